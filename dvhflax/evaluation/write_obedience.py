"""Writes down how well a network obeys."""

from collections.abc import Sequence
import os
from typing import Any

import numpy as np

from dvhflax import files
from dvhflax.cohort.store import Cohort
from dvhflax.evaluation import obedience, own_wishes
from dvhflax.report import figure as figures
from dvhflax.report import obedience as report


def write(
  output: str,
  cohort: Cohort,
  found: Sequence[own_wishes.OfPatient],
  split: str,
  heard: dict[str, Any],
) -> tuple[dict[str, Any], str, str]:
  """Writes tables and a figure of the answers to own wishes.

  Args:
    output: folder.
    cohort: of the patients.
    found: of each of them.
    split: that they are of.
    heard: by structure, `with_wish`, `shuffled` and `ratio` of `mean_dose` and
      `max_dose`; see `of_table`.

  Returns:
    What `summary.json` gets, the first lines, and the tables as text.
  """
  names = [s.name for s in cohort.structures]
  reference = cohort.normalisation.words
  answers, deliverable = own_wishes.gathered(found)
  numbers = {'split': split, **obedience.summary(answers, names)}
  rows = numbers['structures']
  for name in names:
    rows[name]['shuffled'] = heard[name]
  if deliverable:
    numbers['mimicked'] = _mean(deliverable)
  heading = report.heading(
    numbers, [s.name for s in cohort.structures if s.role == 'oar']
  )
  text = report.text(numbers, reference)
  for name, content in (
    ('obedience.txt', f'{heading}\n\n{text}'),
    ('obedience.md', report.markdown(numbers, reference)),
  ):
    files.write_text(os.path.join(output, name), content)
  points = report.Points(
    answers.patients,
    answers.wished_mean,
    answers.achieved_mean,
    [rows[name]['slope']['mean_dose'] for name in names],
  )
  figures.save(
    report.scatter(points, cohort.structures, reference),
    os.path.join(output, 'obedience.png'),
  )
  return numbers, heading, text


def of_table(
  network: dict[str, Any], shuffled: dict[str, Any] | None
) -> dict[str, Any]:
  """What the errors of table 1 tell of the wish: does it matter which it is?

  Args:
    network, shuffled: the structures of `table.summary`; None for a network
      that takes no wish.

  Returns:
    By structure, for `mean_dose` and `max_dose`, the mean absolute errors
    `with_wish` and `shuffled` in %, and their `ratio`.
  """
  return {
    name: {
      dose: {
        'with_wish': row[dose]['absolute_mean'],
        'shuffled': shuffled[name][dose]['absolute_mean'] if shuffled else None,
        'ratio': shuffled[name][dose]['ratio'] if shuffled else None,
      }
      for dose in ('mean_dose', 'max_dose')
    }
    for name, row in network.items()
  }


def _mean(deliverable: list[dict[str, float]]) -> dict[str, Any]:
  """Over predictions, of the patients that have a structure."""
  names = dict.fromkeys(name for one in deliverable for name in one)
  return {
    'predictions': len(deliverable),
    'structures': {
      name: float(np.mean([x[name] for x in deliverable if name in x]))
      for name in names
    },
  }
