"""What evaluation does to a patient, in this process or on a worker.

A worker is sent the `Question` and the mean dose of the training plans; it
restores the networks and opens the cohort itself, once for all its patients.
"""

import dataclasses
from typing import Any

import ml_collections
import numpy as np
import tqdm

from dvhflax import errors
from dvhflax.checksum import checksum
from dvhflax.cohort import place
from dvhflax.cohort.store import Cohort
from dvhflax.config import rules as config_rules
from dvhflax.evaluation import measuring, openkbp_scores, own_wishes
from dvhflax.evaluation.dose_metrics import DoseMetrics, PlanMetrics
from dvhflax.evaluation.predictors import (
  MeanDose,
  Predict,
  for_patient,
  make_predict,
  mean_dose_predict,
)
from dvhflax.models import build as models_build
from dvhflax.report.sample_errors import SampleErrors
from dvhflax.sources.engines import Engine
from dvhflax.training import runs as networks
from dvhflax.training.sampler import Sampler, Samples

NETWORK = 'network'
SHUFFLED = 'network, shuffled wish'
ANATOMY = 'anatomy-only network'
MEAN_DOSE = 'mean dose of the training plans'


@dataclasses.dataclass(frozen=True)
class Question:
  """What is evaluated, and on which patients.

  Attributes:
    workdir: of the run; `which` of its checkpoints.
    anatomy_workdir: of an anatomy-only run, `anatomy_which` of its checkpoints.
    cohort_path: cohort store, if it moved since.
    split, mimicked: None: the run's settings.
    weights_sha256: of the networks that a worker must find; None: any.
  """

  workdir: str
  which: str
  anatomy_workdir: str | None = None
  anatomy_which: str | None = None
  cohort_path: str | None = None
  split: str | None = None
  mimicked: int | None = None
  weights_sha256: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Opened:
  """A question with all that is needed to answer it.

  Attributes:
    question: such that another process opens the same.
    step: of the network.
    config: of its run, with the question's settings.
    cohort: of the patients.
    sampler: of the split.
    samples: `[M]`, those of table 1.
    predicts: name -> (prediction, `[M, S, K]` wishes to feed it).
    mean_dose: of the training plans.
  """

  question: Question
  step: int
  config: ml_collections.ConfigDict
  cohort: Cohort
  sampler: Sampler
  samples: Samples
  predicts: dict[str, tuple[Predict, np.ndarray]]
  mean_dose: MeanDose


@dataclasses.dataclass(frozen=True)
class OfPatient:
  """What is found of a patient.

  Attributes:
    errors: by network or baseline, of the patient's samples.
    shown: doses of the network for the figure.
    answers: to own wishes; None where none are asked.
    plans: number -> what was read off a plan.
    openkbp: the challenge's errors of the first wish; None in other cohorts.
  """

  errors: dict[str, SampleErrors]
  shown: list[np.ndarray]
  answers: own_wishes.OfPatient | None
  plans: dict[int, DoseMetrics]
  openkbp: openkbp_scores.OfPatient | None


def open_question(question: Question, mean: MeanDose | None = None) -> Opened:
  """Restores the networks and opens the cohort.

  Args:
    question: what to open.
    mean: dose of the training plans; None: they are read.

  Raises:
    CheckpointError, CohortError, ConfigError, UserError: see `evaluate`.
  """
  model, variables, config, cohort, step = networks.load_model(
    question.workdir, question.which, question.cohort_path
  )
  options = config.evaluation
  for key in ('split', 'mimicked'):
    value = getattr(question, key)
    if value is not None:
      name = f'evaluation.{key}'
      config_rules.check_value(name, value, config_rules.RULES[name])
      options[key] = value
  sampler = Sampler(
    cohort,
    options.split,
    seed=config.seed,
    own_wish_share=options.own_wish_share,
    bent_wish_share=options.bent_wish_share,
  )
  own_wishes.require_protocols(cohort, sampler.patients, options.mimicked)
  samples = sampler.samples(sampler.fixed(options.wishes))
  wishes = samples.desired_dvh
  network = make_predict(model, variables, options.batch_size)
  predicts: dict[str, tuple[Predict, np.ndarray]] = {NETWORK: (network, wishes)}
  sums, anatomy_step = [checksum(variables)], None
  if model.takes_wish:
    rng = np.random.default_rng([config.seed, 4])
    predicts[SHUFFLED] = (network, wishes[rng.permutation(len(wishes))])
  if question.anatomy_workdir:
    anatomy, anatomy_variables, _, other, anatomy_step = networks.load_model(
      question.anatomy_workdir,
      question.anatomy_which or question.which,
      question.cohort_path,
    )
    if other.metadata != cohort.metadata:
      raise errors.CohortError(
        f'{question.anatomy_workdir} was trained on {other.path}, not '
        f'{cohort.path}'
      )
    sums.append(checksum(anatomy_variables))
    predicts[ANATOMY] = (
      make_predict(anatomy, anatomy_variables, options.batch_size),
      wishes,
    )
  elif within := models_build.anatomy_only(model, variables):
    predicts[ANATOMY] = make_predict(*within, options.batch_size), wishes
  if question.weights_sha256 not in (None, tuple(sums)):
    raise errors.CheckpointError(
      f'{question.workdir} has another step {step} there'
    )
  targets = [i for i, s in enumerate(cohort.structures) if s.role == 'target']
  mean = mean or mean_dose_predict(cohort, targets)
  predicts[MEAN_DOSE] = (mean, wishes)
  same = dataclasses.replace(
    question,
    which=str(step),
    anatomy_which=None if anatomy_step is None else str(anatomy_step),
    cohort_path=place.absolute(cohort.path),
    weights_sha256=tuple(sums),
  )
  return Opened(same, step, config, cohort, sampler, samples, predicts, mean)


class AtPatient:
  """Evaluates one patient after another; pickled, it opens all anew."""

  def __init__(self, opened: Opened):
    self._opened: Opened | None = opened
    self._sent = opened.question, opened.mean_dose

  def __getstate__(self) -> dict[str, Any]:
    return {'_opened': None, '_sent': self._sent}

  def __call__(self, patient: int) -> OfPatient:
    """Of the patient at a place of the cohort.

    Raises:
      ConfigError: if this process does not find what is evaluated.
      UserError: if the patient cannot be evaluated.
    """
    if self._opened is None:
      try:
        self._opened = open_question(*self._sent)
      except errors.UserError as error:
        raise errors.ConfigError(f'on a worker: {error}') from None
    return _evaluate(self._opened, patient)


def _evaluate(opened: Opened, patient: int) -> OfPatient:
  cohort, samples = opened.cohort, opened.samples
  options = opened.config.evaluation
  plans = PlanMetrics(cohort)
  found, shown = measuring.measure_patient(
    opened.predicts, cohort, samples, plans, patient
  )
  network = opened.predicts[NETWORK][0]
  answers = None
  if options.obedience_wishes:
    answers = own_wishes.ask_patient(
      network,
      cohort,
      opened.sampler.patients,
      patient,
      options.obedience_wishes,
      plans,
      options.mimicked,
    )
  scored = None
  if cohort.metadata.provenance.get('source') == 'openkbp':
    scored = _openkbp(network, cohort, samples, patient)
  return OfPatient(found, shown[NETWORK], answers, plans.read(patient), scored)


def _openkbp(
  network: Predict, cohort: Cohort, samples: Samples, p: int
) -> openkbp_scores.OfPatient:
  """The challenge's errors, with the patient's first wish."""
  body = next(i for i, s in enumerate(cohort.structures) if s.role == 'body')
  row = int(np.flatnonzero(samples.patients == p)[0])
  masks, label = cohort.masks(p), int(samples.labels[row])
  predict = for_patient(network, cohort, p)
  dose = next(predict(masks, samples.desired_dvh[[row]]))
  reference = measuring.predicted_reference(cohort, p, dose, masks)
  case = openkbp_scores.Case(
    reference=cohort.reference(p, label).to_gy(cohort.dose(p, label)),
    predicted=reference.to_gy(dose),
    possible_dose=masks[..., body],
    masks=masks,
    spacing_mm=cohort.patients[p].spacing_mm,
  )
  return openkbp_scores.of_patient(case, cohort.structures)


def evaluate_all(opened: Opened, engine: Engine) -> list[OfPatient]:
  """Of the patients of the samples, in their order, whoever is done first.

  Args:
    opened: what is evaluated.
    engine: which maps over the patients.

  Raises:
    UserError: if a patient cannot be evaluated, at the end: all are named.
    ConfigError: if a worker does not find what is evaluated.
  """
  patients = list(dict.fromkeys(opened.samples.patients.tolist()))
  found: dict[int, OfPatient] = {}
  faults: dict[int, errors.UserError] = {}
  with tqdm.tqdm(total=len(patients), unit='patient', desc='evaluating') as bar:
    for i, result in engine.map(AtPatient(opened), None, patients):
      if isinstance(result, errors.UserError):
        faults[i] = result
        bar.write(_named(opened.cohort, patients[i], result))
      else:
        found[i] = result
      bar.update()
  if faults:
    raise errors.UserError(
      f'{len(faults)} of {len(patients)} patients not evaluated, and nothing '
      'is written: '
      + '; '.join(
        _named(opened.cohort, patients[i], faults[i]) for i in sorted(faults)
      )
    )
  return [found[i] for i in range(len(patients))]


def _named(cohort: Cohort, patient: int, error: errors.UserError) -> str:
  return f'patient {cohort.patients[patient].id}: {error}'
