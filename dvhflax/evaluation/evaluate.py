"""Evaluation: table 1 and figures 4 to 6, of a network and its baselines.

A network that ignores its wish has the same errors when the wishes are
shuffled: that baseline stands in every table.
"""

from collections.abc import Iterator
import dataclasses
import os

import numpy as np

from dvhflax import errors, files
from dvhflax.cohort.store import Cohort
from dvhflax.config import rules as config_rules
from dvhflax.evaluation import (
  label_tables,
  openkbp_scores,
  own_wishes,
  write_obedience,
)
from dvhflax.evaluation.dose_metrics import PlanMetrics
from dvhflax.evaluation.measuring import (
  figure_rows,
  measure,
  predicted_reference,
)
from dvhflax.evaluation.predictors import (
  Predict,
  for_patient,
  make_predict,
  mean_dose_predict,
)
from dvhflax.models import build as models_build
from dvhflax.report import figure as figures
from dvhflax.report import losses as losses_report
from dvhflax.report import predictions as predictions_report
from dvhflax.report import violins as violins_report
from dvhflax.report.sample_errors import (
  Sample,
  SampleErrors,
  write_samples_csv,
)
from dvhflax.training import history, remote
from dvhflax.training import runs as networks
from dvhflax.training.bundle import is_bundle
from dvhflax.training.sampler import Sampler, Samples

NETWORK = 'network'
SHUFFLED = 'network, shuffled wish'
ANATOMY = 'anatomy-only network'
MEAN_DOSE = 'mean dose of the training plans'


def evaluate(
  workdir: str | os.PathLike[str],
  *,
  anatomy_workdir: str | os.PathLike[str] | None = None,
  cohort_path: str | os.PathLike[str] | None = None,
  which: str = 'best',
  output: str | os.PathLike[str] | None = None,
  split: str | None = None,
  mimicked: int | None = None,
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

  Returns:
    How well the wish is heard, table 1, the measures of obedience, and the
    OpenKBP scores where the cohort is theirs, as text.

  Raises:
    CheckpointError: if there is no such run or checkpoint, and for a bundle.
    CohortError: if its cohort is not found, or is another.
    ConfigError: for a `split` or `mimicked` that cannot be.
    UserError: if there is something to mimic, and no protocol to do it with.
  """
  workdir = remote.absolute(workdir)
  if is_bundle(workdir):
    raise errors.CheckpointError(
      f'{workdir} is a bundle, without test plans to compare with: its card.md '
      'has the evaluation of the run that it was made of'
    )
  remote.require_writable(os.fspath(output or workdir), '--output')
  model, variables, config, cohort, step = networks.load_model(
    workdir, which, cohort_path
  )
  options = config.evaluation
  for key, value in (('split', split), ('mimicked', mimicked)):
    if value is not None:
      name = f'evaluation.{key}'
      config_rules.check_value(name, value, config_rules.RULES[name])
      options[key] = value
  split = options.split
  sampler = Sampler(
    cohort,
    split,
    seed=config.seed,
    own_wish_share=config.evaluation.own_wish_share,
    bent_wish_share=config.evaluation.bent_wish_share,
  )
  own_wishes.require_protocols(cohort, sampler.patients, options.mimicked)
  samples = sampler.samples(sampler.fixed(options.wishes))
  wishes = samples.desired_dvh
  network = make_predict(model, variables, options.batch_size)
  predicts = {NETWORK: (network, wishes)}
  if model.takes_wish:
    rng = np.random.default_rng([config.seed, 4])
    predicts[SHUFFLED] = (network, wishes[rng.permutation(len(wishes))])
  if anatomy_workdir:
    anatomy, anatomy_variables, _, other, _ = networks.load_model(
      anatomy_workdir, which, cohort_path
    )
    if other.metadata != cohort.metadata:
      raise errors.CohortError(
        f'{anatomy_workdir} was trained on {other.path}, not {cohort.path}'
      )
    predicts[ANATOMY] = (
      make_predict(anatomy, anatomy_variables, options.batch_size),
      wishes,
    )
  elif within := models_build.anatomy_only(model, variables):
    predicts[ANATOMY] = make_predict(*within, options.batch_size), wishes
  targets = [i for i, s in enumerate(cohort.structures) if s.role == 'target']
  predicts[MEAN_DOSE] = (mean_dose_predict(cohort, targets), wishes)

  plans = PlanMetrics(cohort)
  results, shown = measure(predicts, cohort, samples, plans)
  tables = label_tables.tables(cohort, samples, results, options, plans)
  numbers = {
    'workdir': os.path.basename(workdir),
    'step': step,
    'split': split,
    'samples': len(samples.patients),
    'own_wish_share': config.evaluation.own_wish_share,
    'bent_wish_share': config.evaluation.bent_wish_share,
    'normalisation': cohort.normalisation.to_json(),
    **tables.numbers,
  }
  text = tables.text
  if cohort.metadata.provenance.get('source') == 'openkbp':
    scores = _openkbp(network, cohort, samples)
    numbers['openkbp'] = dataclasses.asdict(scores)
    text += (
      f'\nOpenKBP dose score {scores.dose:.2f} Gy, DVH score '
      f'{scores.dvh:.2f} Gy\n'
    )
  folder = 'evaluation' if split == 'test' else f'evaluation_{split}'
  output = remote.absolute(output or os.path.join(workdir, folder))
  names = [s.name for s in cohort.structures]
  with remote.written(output) as folder:
    _write(folder, workdir, cohort, samples, results, shown[NETWORK], names)
    files.write_text(os.path.join(folder, 'table1.txt'), text)
    files.write_text(os.path.join(folder, 'table1.md'), tables.markdown)
    if options.obedience_wishes:
      in_table = {k: v['structures'] for k, v in numbers['table1'].items()}
      numbers['obedience'], heading, obeyed = write_obedience.write(
        folder,
        network,
        cohort,
        sampler.patients,
        options,
        plans,
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


def _openkbp(
  network: Predict, cohort: Cohort, samples: Samples
) -> openkbp_scores.Scores:
  """The challenge's scores, with each patient's first wish."""
  body = next(i for i, s in enumerate(cohort.structures) if s.role == 'body')

  def cases() -> Iterator[openkbp_scores.Case]:
    for p in dict.fromkeys(samples.patients.tolist()):
      row = int(np.flatnonzero(samples.patients == p)[0])
      masks, label = cohort.masks(p), int(samples.labels[row])
      predict = for_patient(network, cohort, p)
      dose = next(predict(masks, samples.desired_dvh[[row]]))
      reference = predicted_reference(cohort, p, dose, masks)
      yield openkbp_scores.Case(
        reference=cohort.reference(p, label).to_gy(cohort.dose(p, label)),
        predicted=reference.to_gy(dose),
        possible_dose=masks[..., body],
        masks=masks,
        spacing_mm=cohort.patients[p].spacing_mm,
      )

  return openkbp_scores.scores(cases(), cohort.structures)
