"""Table 1 twice: with labels among all of a patient's plans, and among few."""

import dataclasses
from typing import Any

import ml_collections
import numpy as np

from dvhflax.cohort.store import Cohort
from dvhflax.evaluation import few_plans
from dvhflax.evaluation.dose_metrics import PlanMetrics
from dvhflax.report import table
from dvhflax.report.sample_errors import SampleErrors
from dvhflax.training.sampler import Samples

# Not a prediction: what labels among few plans are off.
FLOOR = 'floor of {} plans'


@dataclasses.dataclass(frozen=True)
class Tables:
  """As text, as Markdown, and what `summary.json` gets of them."""

  text: str
  markdown: str
  numbers: dict[str, Any]


def tables(
  cohort: Cohort,
  samples: Samples,
  results: dict[str, SampleErrors],
  options: ml_collections.ConfigDict,
  plans: PlanMetrics,
) -> Tables:
  """Table 1, and where patients have more plans than that, with few of them.

  Args:
    cohort: of the samples.
    samples: `[M]`.
    results: by name, the network first.
    options: the configuration's `evaluation`.
    plans: of the cohort.
  """
  names = [s.name for s in cohort.structures]
  count = options.label_plans
  numbers: dict[str, Any] = {'table1': table.summary(results, names)}
  most = max(cohort.patients[p].plans for p in np.unique(samples.patients))
  if count and most > count:
    labels = few_plans.labels_among(cohort, samples, count)
    off = few_plans.floor(cohort, samples, labels, plans)
    few = {
      name: few_plans.relabelled(found, off) for name, found in results.items()
    }
    over = few_plans.std_over_floor(next(iter(few.values())), off)
    numbers['label_plans'] = {
      'plans': count,
      'table1': table.summary(few, names),
      'floor': table.summary({'floor': off}, names)['floor']['structures'],
      'std_over_floor': {
        name: {
          what: float(value) if np.isfinite(value) else None
          for what, value in zip(('mean_dose', 'max_dose'), of_structure)
        }
        for name, of_structure in zip(names, over)
      },
    }
    title = FLOOR.format(count)
    note = f'{title}: dose of the label among {count} minus among all plans'
    shown = [
      ({**results, title: off}, 'all', [note]),
      ({**few, title: off}, str(count), [note, *_spreads(names, over)]),
    ]
  else:
    why = 'evaluation.label_plans=0'
    if count:
      why = f'no patient has more than evaluation.label_plans={count} plans'
    shown = [(results, 'all', [f'no floor: {why}'])]
  text, markdown = (
    '\n'.join(
      show(
        found,
        names,
        table.PAPER_TABLE1 if 'rectum' in names else None,
        cohort.normalisation.words,
        f'{options.split} patients; true: the nearest to the wish of {among} '
        "of a patient's plans",
        notes,
      )
      for found, among, notes in shown
    )
    for show in (table.table1, table.table1_markdown)
  )
  return Tables(text, markdown, numbers)


def _spreads(names: list[str], over: np.ndarray) -> list[str]:
  """A line for each dose."""
  lines = []
  for i, what in enumerate(('mean dose', 'maximum dose')):
    each = [
      f'{name} {value:.2f}'
      for name, value in zip(names, over[:, i])
      if np.isfinite(value)
    ]
    lines.append(
      f"std of the network over the floor's, {what}: {', '.join(each)}"
    )
  return lines
