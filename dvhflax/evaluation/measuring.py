"""Errors of networks and baselines, sample by sample."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from dvhflax import dvh as dvh_lib
from dvhflax import errors, metrics
from dvhflax.cohort.store import Cohort
from dvhflax.evaluation.dose_metrics import PlanMetrics
from dvhflax.evaluation.predictors import Predict, for_patient
from dvhflax.normalisation import DoseReference
from dvhflax.report.sample_errors import SampleErrors
from dvhflax.training.sampler import Samples

# Rows of figure 5.
_FIGURE_ROWS = 3
_FIELDS = [field.name for field in dataclasses.fields(SampleErrors)]


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


def predicted_reference(
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
  plans: PlanMetrics | None = None,
) -> tuple[dict[str, SampleErrors], dict[str, list[np.ndarray]]]:
  """Errors of several networks or baselines over the same samples.

  Args:
    predicts: name -> (prediction, `[M, S, K]` wishes to feed it).
    cohort: of the samples.
    samples: `[M]`, a patient's samples one after another.
    plans: of the cohort, if some are read already.

  Returns:
    Errors by name, and by name the doses of the first patient's first
    samples, for the figure.
  """
  plans = plans or PlanMetrics(cohort)
  found = [
    measure_patient(predicts, cohort, samples, plans, p)
    for p in dict.fromkeys(samples.patients.tolist())
  ]
  return {n: joined([e[n] for e, _ in found]) for n in predicts}, found[0][1]


def measure_patient(
  predicts: dict[str, tuple[Predict, np.ndarray]],
  cohort: Cohort,
  samples: Samples,
  plans: PlanMetrics,
  p: int,
) -> tuple[dict[str, SampleErrors], dict[str, list[np.ndarray]]]:
  """As `measure`, of the samples of one patient.

  Returns:
    Errors by name, and by name doses for the figure, if it is the first one.
  """
  gathered = {name: _Errors() for name in predicts}
  shown: dict[str, list[np.ndarray]] = {name: [] for name in predicts}
  rows_shown = set(figure_rows(cohort, samples))
  masks, present = cohort.masks(p), cohort.present[p]
  rows = np.flatnonzero(samples.patients == p)
  for name, (predict, wishes) in predicts.items():
    predict = for_patient(predict, cohort, p)
    for row, dose in zip(rows, predict(masks, wishes[rows])):
      label = samples.labels[row]
      plan, plan_reference = plans.of(p, label), cohort.reference(p, label)
      reference = predicted_reference(cohort, p, dose, masks)
      predicted = metrics.means_and_maxima(dose, masks, present)
      found = gathered[name]
      for off, off_gy, of_plan, of_dose in zip(
        (found.mean, found.max),
        (found.mean_gy, found.max_gy),
        (plan.mean, plan.max),
        predicted,
      ):
        off.append(100 * (of_plan - of_dose))
        off_gy.append(plan_reference.to_gy(of_plan) - reference.to_gy(of_dose))
      found.fidelity.append(
        metrics.dvh_fidelity(
          samples.desired_dvh[row],
          dvh_lib.dvh_vectors(dose, masks, cohort.dvh_spec),
          samples.desired_dvh[row].any(-1) & present,
        )
      )
      if row in rows_shown:
        shown[name].append(dose)
  return {n: e.collect() for n, e in gathered.items()}, shown


def joined(found: Sequence[SampleErrors]) -> SampleErrors:
  """The errors of several patients, in their order, as those of one."""

  def all_of(name: str) -> Any:
    return np.concatenate([getattr(one, name) for one in found])

  return SampleErrors(*map(all_of, _FIELDS))


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
