"""Evaluation: table 1 and figures 4 to 6, of a network and its baselines.

A network that ignores its wish has the same errors when the wishes are
shuffled: that baseline stands in every table.
"""

import dataclasses
import os

import numpy as np

from dvhflax import errors, files
from dvhflax.cohort.store import Cohort
from dvhflax.evaluation import (
  label_tables,
  openkbp_scores,
  patients,
  write_obedience,
)
from dvhflax.evaluation.dose_metrics import PlanMetrics
from dvhflax.evaluation.measuring import figure_rows, joined
from dvhflax.evaluation.patients import NETWORK, SHUFFLED
from dvhflax.report import figure as figures
from dvhflax.report import losses as losses_report
from dvhflax.report import predictions as predictions_report
from dvhflax.report import violins as violins_report
from dvhflax.report.sample_errors import (
  Sample,
  SampleErrors,
  write_samples_csv,
)
from dvhflax.sources.engines import HERE, Engine
from dvhflax.training import history, remote
from dvhflax.training.bundle import is_bundle
from dvhflax.training.sampler import Samples


def evaluate(
  workdir: str | os.PathLike[str],
  *,
  anatomy_workdir: str | os.PathLike[str] | None = None,
  cohort_path: str | os.PathLike[str] | None = None,
  which: str = 'best',
  output: str | os.PathLike[str] | None = None,
  split: str | None = None,
  mimicked: int | None = None,
  engine: Engine = HERE,
) -> str:
  """Evaluates a run on its test patients; writes tables, figures, samples.

  Args:
    workdir: path or URL of a training run.
    anatomy_workdir: of an anatomy-only run on the same cohort, a baseline;
      None takes the one within a network with `model.prior='first_dose'`.
    cohort_path: cohort store, if it moved since.
    which: `best`, `latest` or a saved step.
    output: folder to write to, or its URL; None is `workdir/evaluation`, and
      for validation patients `workdir/evaluation_validation`.
    split: `test` or `validation` patients; None: the run's `evaluation.split`.
    mimicked: predictions to compare with the closest deliverable dose; None:
      the run's `evaluation.mimicked`.
    engine: which maps over the patients; the results are the same.

  Returns:
    How well the wish is heard, table 1, the measures of obedience, and the
    OpenKBP scores where the cohort is theirs, as text.

  Raises:
    CheckpointError: if there is no such run or checkpoint, and for a bundle.
    CohortError: if its cohort is not found, or is another.
    ConfigError: for a `split` or `mimicked` that cannot be.
    UserError: if there is something to mimic, and no protocol to do it with,
      or some patients cannot be evaluated, who are named.
  """
  workdir = remote.absolute(workdir)
  if is_bundle(workdir):
    raise errors.CheckpointError(
      f'{workdir} is a bundle, without test plans to compare with: its card.md '
      'has the evaluation of the run that it was made of'
    )
  remote.require_writable(os.fspath(output or workdir), '--output')
  opened = patients.open_question(
    patients.Question(
      workdir,
      which,
      remote.absolute(anatomy_workdir) if anatomy_workdir else None,
      cohort_path=None if cohort_path is None else os.fspath(cohort_path),
      split=split,
      mimicked=mimicked,
    )
  )
  cohort, samples = opened.cohort, opened.samples
  options = opened.config.evaluation
  found = patients.evaluate_all(opened, engine)
  results = {
    name: joined([one.errors[name] for one in found])
    for name in opened.predicts
  }
  plans = PlanMetrics(cohort)
  for p, one in zip(dict.fromkeys(samples.patients.tolist()), found):
    plans.add(p, one.plans)
  tables = label_tables.tables(cohort, samples, results, options, plans)
  numbers = {
    'workdir': os.path.basename(workdir),
    'step': opened.step,
    'split': options.split,
    'samples': len(samples.patients),
    'own_wish_share': options.own_wish_share,
    'bent_wish_share': options.bent_wish_share,
    'normalisation': cohort.normalisation.to_json(),
    **tables.numbers,
  }
  text = tables.text
  scored = [one.openkbp for one in found if one.openkbp is not None]
  if scored:
    scores = openkbp_scores.scores(scored)
    numbers['openkbp'] = dataclasses.asdict(scores)
    text += (
      f'\nOpenKBP dose score {scores.dose:.2f} Gy, DVH score '
      f'{scores.dvh:.2f} Gy\n'
    )
  folder = (
    'evaluation' if options.split == 'test' else f'evaluation_{options.split}'
  )
  output = remote.absolute(output or os.path.join(workdir, folder))
  names = [s.name for s in cohort.structures]
  with remote.written(output) as folder:
    _write(folder, workdir, cohort, samples, results, found[0].shown, names)
    files.write_text(os.path.join(folder, 'table1.txt'), text)
    files.write_text(os.path.join(folder, 'table1.md'), tables.markdown)
    if options.obedience_wishes:
      in_table = {k: v['structures'] for k, v in numbers['table1'].items()}
      numbers['obedience'], heading, obeyed = write_obedience.write(
        folder,
        cohort,
        [one.answers for one in found if one.answers is not None],
        options.split,
        write_obedience.of_table(in_table[NETWORK], in_table.get(SHUFFLED)),
      )
      text = f'{heading}\n\n{text}\n{obeyed}'
    files.write_json(os.path.join(folder, 'summary.json'), numbers)
  return text + f'\nwritten to {output}\n'


def _write(
  output: str,
  workdir: str,
  cohort: Cohort,
  samples: Samples,
  results: dict[str, SampleErrors],
  doses: list[np.ndarray],
  names: list[str],
) -> None:
  """The samples' CSV and figures 4 to 6."""

  def path(name: str) -> str:
    return os.path.join(output, name)

  ids = [record.id for record in cohort.patients]
  write_samples_csv(
    path('samples.csv'),
    results,
    names,
    [
      Sample(ids[p], ids[m], int(j), bent=bool(b), label_plan=int(n))
      for p, m, j, b, n in zip(
        samples.patients,
        samples.wish_patients,
        samples.wish_plans,
        samples.bent,
        samples.labels,
      )
    ],
  )
  epochs = history.read(workdir)
  if not epochs:
    raise errors.UserError(
      f'{workdir}/history.csv has no epoch yet: train for one, then evaluate'
    )
  figures.save(losses_report.losses(epochs), path('figure4_losses.png'))
  p = int(samples.patients[0])
  masks = cohort.masks(p)
  rows = [
    predictions_report.Prediction(
      masks,
      cohort.dose(p, int(samples.labels[row])),
      dose,
      samples.desired_dvh[row],
      cohort.patients[p].spacing_mm,
    )
    for row, dose in zip(figure_rows(cohort, samples), doses)
  ]
  figures.save(
    predictions_report.predictions(
      rows, cohort.structures, cohort.dvh_spec, cohort.normalisation.words
    ),
    path('figure5_predictions.png'),
  )
  figures.save(
    violins_report.violins(
      results[NETWORK], cohort.structures, cohort.normalisation.words
    ),
    path('figure6_violins.png'),
  )
