"""Evaluation: table 1 and figures 4 to 6, of a network and its baselines.

A network that ignores its wish has the same errors when the wishes are
shuffled: that baseline stands in every table.
"""

from collections.abc import Iterator
import dataclasses
import os

import numpy as np
import tqdm

from dvhflax import dvh as dvh_lib
from dvhflax import errors, files, metrics
from dvhflax.cohort.store import Cohort
from dvhflax.evaluation import openkbp_scores
from dvhflax.evaluation.predictors import (
  Predict,
  for_patient,
  make_predict,
  mean_dose_predict,
)
from dvhflax.normalisation import DoseReference
from dvhflax.report import figure as figures
from dvhflax.report import losses as losses_report
from dvhflax.report import predictions as predictions_report
from dvhflax.report import table
from dvhflax.report import violins as violins_report
from dvhflax.report.sample_errors import (
  Sample,
  SampleErrors,
  write_samples_csv,
)
from dvhflax.training import history
from dvhflax.training import runs as networks
from dvhflax.training.sampler import Sampler, Samples

NETWORK = 'network'
SHUFFLED = 'network, shuffled wish'
ANATOMY = 'anatomy-only network'
MEAN_DOSE = 'mean dose of the training plans'

# Rows of figure 5.
_FIGURE_ROWS = 3


@dataclasses.dataclass
class _Errors:
  """Errors of one network or baseline, sample by sample."""

  mean: list[np.ndarray] = dataclasses.field(default_factory=list)
  max: list[np.ndarray] = dataclasses.field(default_factory=list)
  fidelity: list[float] = dataclasses.field(default_factory=list)
  mean_gy: list[np.ndarray] = dataclasses.field(default_factory=list)
  max_gy: list[np.ndarray] = dataclasses.field(default_factory=list)

  def collect(self) -> SampleErrors:
    return SampleErrors(
      np.array(self.mean),
      np.array(self.max),
      np.array(self.fidelity),
      np.array(self.mean_gy),
      np.array(self.max_gy),
    )


def _predicted_reference(
  cohort: Cohort, patient: int, dose: np.ndarray, masks: np.ndarray
) -> DoseReference:
  """What 1.0 of a prediction stands for; NaN where no Gy follow from it."""
  prescription_gy = cohort.patients[patient].prescription_gy
  try:
    return cohort.normalisation.of_dose(
      dose, masks, cohort.structures, prescription_gy
    )
  except errors.SessionError:
    return DoseReference(float('nan'), prescription_gy, 'unknown')


def measure(
  predicts: dict[str, tuple[Predict, np.ndarray]],
  cohort: Cohort,
  samples: Samples,
) -> tuple[dict[str, SampleErrors], dict[str, list[np.ndarray]]]:
  """Errors of several networks or baselines over the same samples.

  Args:
    predicts: name -> (prediction, `[M, S, K]` wishes to feed it).
    cohort: of the samples.
    samples: `[M]`, a patient's samples one after another.

  Returns:
    Errors by name, and by name the doses of the first patient's first
    samples, for the figure.
  """
  gathered = {name: _Errors() for name in predicts}
  shown: dict[str, list[np.ndarray]] = {name: [] for name in predicts}
  number = len(samples.patients)
  patients = list(dict.fromkeys(samples.patients.tolist()))
  rows_shown = set(figure_rows(cohort, samples))
  bar = tqdm.tqdm(total=number * len(predicts), unit='dose', desc='evaluating')
  for p in patients:
    masks, present, true = cohort.masks(p), cohort.present[p], cohort.doses(p)
    rows = np.flatnonzero(samples.patients == p)
    of_plans = [metrics.means_and_maxima(plan, masks, present) for plan in true]
    for name, (predict, wishes) in predicts.items():
      predict = for_patient(predict, cohort, p)
      for row, dose in zip(rows, predict(masks, wishes[rows])):
        label = samples.labels[row]
        plan_reference = cohort.reference(p, label)
        reference = _predicted_reference(cohort, p, dose, masks)
        predicted = metrics.means_and_maxima(dose, masks, present)
        found = gathered[name]
        for off, off_gy, of_plan, of_dose in zip(
          (found.mean, found.max),
          (found.mean_gy, found.max_gy),
          of_plans[label],
          predicted,
        ):
          off.append(100 * (of_plan - of_dose))
          off_gy.append(
            plan_reference.to_gy(of_plan) - reference.to_gy(of_dose)
          )
        found.fidelity.append(
          metrics.dvh_fidelity(
            samples.desired_dvh[row],
            dvh_lib.dvh_vectors(dose, masks, cohort.dvh_spec),
            samples.desired_dvh[row].any(-1) & present,
          )
        )
        if row in rows_shown:
          shown[name].append(dose)
        bar.update()
  bar.close()
  return {n: e.collect() for n, e in gathered.items()}, shown


def figure_rows(cohort: Cohort, samples: Samples) -> list[int]:
  """Samples of the first patient for figure 5, of plans that differ most.

  Farthest-first over the labels' DVHs, so that the rows show trade-offs.
  """
  p = samples.patients[0]
  rows = np.flatnonzero(samples.patients == p)
  curves = cohort.dvh[p][samples.labels[rows]].reshape(len(rows), -1)
  chosen = [0]
  while len(chosen) < min(_FIGURE_ROWS, len(rows)):
    distance = np.abs(curves[:, None] - curves[chosen][None]).sum(-1).min(1)
    if not distance.max():
      break
    chosen.append(int(distance.argmax()))
  return sorted(rows[chosen].tolist())


def evaluate(
  workdir: str | os.PathLike[str],
  *,
  anatomy_workdir: str | os.PathLike[str] | None = None,
  cohort_path: str | os.PathLike[str] | None = None,
  which: str = 'best',
  output: str | os.PathLike[str] | None = None,
) -> str:
  """Evaluates a run on its test patients; writes table, figures, samples.

  Args:
    workdir: path of a training run.
    anatomy_workdir: of an anatomy-only run on the same cohort, a baseline.
    cohort_path: cohort store, if it moved since.
    which: `best`, `latest` or a saved step.
    output: folder to write to; None is `workdir/evaluation`.

  Returns:
    Table 1, and the OpenKBP scores where the cohort is theirs, as text.

  Raises:
    CheckpointError: if there is no such run or checkpoint.
    CohortError: if its cohort is not found, or is another.
  """
  workdir = os.path.abspath(workdir)
  model, variables, config, cohort, step = networks.load_model(
    workdir, which, cohort_path
  )
  sampler = Sampler(
    cohort,
    'test',
    seed=config.seed,
    own_wish_share=config.evaluation.own_wish_share,
    bent_wish_share=config.evaluation.bent_wish_share,
  )
  samples = sampler.samples(sampler.fixed(config.evaluation.wishes))
  wishes = samples.desired_dvh
  batch_size = config.evaluation.batch_size
  network = make_predict(model, variables, batch_size)
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
      make_predict(anatomy, anatomy_variables, batch_size),
      wishes,
    )
  targets = [i for i, s in enumerate(cohort.structures) if s.role == 'target']
  predicts[MEAN_DOSE] = (mean_dose_predict(cohort, targets), wishes)

  results, shown = measure(predicts, cohort, samples)
  names = [s.name for s in cohort.structures]
  paper = table.PAPER_TABLE1 if 'rectum' in names else None
  reference = cohort.normalisation.words
  text = table.table1(results, names, paper, reference)
  numbers = {
    'workdir': os.path.basename(workdir),
    'step': step,
    'samples': len(samples.patients),
    'own_wish_share': config.evaluation.own_wish_share,
    'bent_wish_share': config.evaluation.bent_wish_share,
    'normalisation': cohort.normalisation.to_json(),
    'table1': table.summary(results, names),
  }
  if cohort.metadata.provenance.get('source') == 'openkbp':
    scores = _openkbp(network, cohort, samples)
    numbers['openkbp'] = dataclasses.asdict(scores)
    text += (
      f'\nOpenKBP dose score {scores.dose:.2f} Gy, DVH score '
      f'{scores.dvh:.2f} Gy\n'
    )
  output = os.path.abspath(output or os.path.join(workdir, 'evaluation'))
  os.makedirs(output, exist_ok=True)
  _write(output, workdir, cohort, samples, results, shown[NETWORK], names)
  files.write_text(os.path.join(output, 'table1.txt'), text)
  files.write_text(
    os.path.join(output, 'table1.md'),
    table.table1_markdown(results, names, paper, reference),
  )
  files.write_json(os.path.join(output, 'summary.json'), numbers)
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
  masks, true = cohort.masks(p), cohort.doses(p)
  rows = [
    predictions_report.Prediction(
      masks,
      true[samples.labels[row]],
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
      reference = _predicted_reference(cohort, p, dose, masks)
      yield openkbp_scores.Case(
        reference=cohort.reference(p, label).to_gy(cohort.dose(p, label)),
        predicted=reference.to_gy(dose),
        possible_dose=masks[..., body],
        masks=masks,
        spacing_mm=cohort.patients[p].spacing_mm,
      )

  return openkbp_scores.scores(cases(), cohort.structures)
