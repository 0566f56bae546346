"""Asks a network for its test patients' own plans; see `obedience`."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from dvhflax import dvh as dvh_lib
from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.evaluation import mimic, obedience
from dvhflax.evaluation.dose_metrics import DoseMetrics, PlanMetrics
from dvhflax.evaluation.few_plans import spread_plans
from dvhflax.evaluation.measuring import predicted_reference
from dvhflax.evaluation.obedience import Answers
from dvhflax.evaluation.predictors import Predict, for_patient
from dvhflax.normalisation import DoseReference
from dvhflax.planning import pareto


@dataclasses.dataclass(frozen=True)
class OfPatient:
  """What a patient's wishes have found.

  Attributes:
    answers: of each wish, fields of `Answers`.
    itself: of the patient's plans, likewise.
    deliverable: of each mimicked prediction, by structure, the mean absolute
      difference in % of the prescription.
  """

  answers: list[dict[str, Any]]
  itself: dict[str, Any]
  deliverable: list[dict[str, float]]


def ask(
  predict: Predict,
  cohort: Cohort,
  patients: Sequence[int] | np.ndarray,
  wishes: int,
  plans: PlanMetrics,
  mimicked: int = 0,
) -> tuple[Answers, list[dict[str, float]]]:
  """Predicts for each patient's own plans as wishes.

  Args:
    patients: places of P patients.
    predict, cohort, wishes, plans, mimicked: see `ask_patient`.

  Returns:
    See `gathered`.
  """
  return gathered(
    [
      ask_patient(predict, cohort, patients, int(p), wishes, plans, mimicked)
      for p in patients
    ]
  )


def gathered(
  found: Sequence[OfPatient],
) -> tuple[Answers, list[dict[str, float]]]:
  """Of several patients, in their order.

  Returns:
    The answers; and of each mimicked prediction, by structure, the mean
    absolute difference in % of the prescription.
  """
  answers = [one for of in found for one in of.answers]
  return Answers(
    **{key: np.array([one[key] for one in answers]) for key in answers[0]},
    **{
      key: np.array([of.itself[key] for of in found]) for key in found[0].itself
    },
  ), [one for of in found for one in of.deliverable]


def ask_patient(
  predict: Predict,
  cohort: Cohort,
  patients: Sequence[int] | np.ndarray,
  p: int,
  wishes: int,
  plans: PlanMetrics,
  mimicked: int = 0,
) -> OfPatient:
  """Predicts for a patient's own plans as wishes.

  Args:
    predict: the network.
    cohort: of the patients.
    patients: places of all P patients that are asked for.
    p: the one among them.
    wishes: a patient, at most; `few_plans.spread_plans` chooses them.
    plans: of the cohort; all plans of the patient are read.
    mimicked: predictions of all patients to compare with the closest
      deliverable dose; the first wish of each patient, then the second, and so
      on. It needs the protocol of the plans, see `require_protocols`.
  """
  found: list[dict[str, Any]] = []
  deliverable: list[dict[str, float]] = []
  front = _Front.of(cohort, p, plans)
  masks = cohort.masks(p)
  chosen = spread_plans(cohort, p, wishes)
  # As many of this patient's as are its turn.
  place = list(patients).index(p)
  to_mimic = len(range(place, mimicked, len(patients)))
  doses = for_patient(predict, cohort, p)(masks, cohort.dvh[p][chosen])
  for turn, (n, dose) in enumerate(zip(chosen, doses)):
    reference = predicted_reference(cohort, p, dose, masks)
    found.append(
      front.answer(
        n,
        plans.inside(p).measure(dose),
        dvh_lib.dvh_vectors(dose, masks, cohort.dvh_spec),
        reference,
      )
    )
    # A prediction whose Gy are not known cannot be delivered.
    if turn < to_mimic and np.isfinite(reference.gy):
      closest = mimic.mimic_dose(
        cohort, p, reference.to_gy(np.maximum(dose, 0))
      )
      deliverable.append(
        {name: row['mean_absolute'] for name, row in closest.difference.items()}
      )
  return OfPatient(found, front.itself(), deliverable)


def require_protocols(
  cohort: Cohort, patients: Sequence[int] | np.ndarray, mimicked: int
) -> None:
  """Raises a UserError if nothing tells which doses can be delivered."""
  if mimicked and not all(
    'protocol' in cohort.patients[p].provenance for p in patients
  ):
    raise errors.UserError(
      f'evaluation.mimicked={mimicked}: the plans of {cohort.path} have no '
      'protocol, so nothing tells which doses can be delivered; use 0'
    )


@dataclasses.dataclass(frozen=True)
class _Front:
  """A patient's plans, to compare predictions with.

  Attributes:
    patient: its place.
    present: `[S]` bool.
    sparing: channels of the organs at risk and the body that it has.
    plans: N, what is read off them.
    curves: `[N, S, K]` their DVH vectors.
    doses, coverage: `[N, O]` and `[N, 2]` in % of the prescription: what is
      good for a patient is told in Gy.
  """

  patient: int
  present: np.ndarray
  sparing: list[int]
  plans: list[DoseMetrics]
  curves: np.ndarray
  doses: np.ndarray
  coverage: np.ndarray

  @classmethod
  def of(cls, cohort: Cohort, patient: int, plans: PlanMetrics) -> '_Front':
    number = cohort.patients[patient].plans
    present = cohort.present[patient]
    sparing = [
      s
      for s, structure in enumerate(cohort.structures)
      if structure.role != 'target' and present[s]
    ]
    own = [plans.of(patient, n) for n in range(number)]
    references = [cohort.reference(patient, n) for n in range(number)]
    return cls(
      patient,
      present,
      sparing,
      own,
      cohort.dvh[patient][:number],
      np.array(
        [r.to_percent(m.mean[sparing]) for r, m in zip(references, own)]
      ),
      np.array([r.to_percent(m.coverage) for r, m in zip(references, own)]),
    )

  def itself(self) -> dict[str, Any]:
    """How plans are to one another, as fields of `Answers`."""
    apart = self._distance(self.curves)
    np.fill_diagonal(apart, np.inf)
    between = apart.min(1).mean() if len(apart) > 1 else np.nan
    # No plan is lower than itself, nor beyond itself.
    dominated, beyond = obedience.shares(
      self.doses, self.coverage, self.doses, self.coverage
    )
    return {
      'between_plans': between,
      'plans_dominated': dominated.mean(),
      'plans_beyond': beyond.mean(),
    }

  def answer(
    self,
    plan: int,
    achieved: DoseMetrics,
    curves: np.ndarray,
    reference: DoseReference,
  ) -> dict[str, Any]:
    """A prediction, asked for a plan, as fields of `Answers`.

    Args:
      plan: its number.
      achieved: of the prediction.
      curves: `[S, K]` its DVH vector.
      reference: of the prediction; NaN is neither dominated nor beyond.
    """
    wished = self.plans[plan]
    distance = self._distance(curves[None])[0]
    dominated, beyond = obedience.shares(
      reference.to_percent(achieved.mean[self.sparing])[None],
      reference.to_percent(achieved.coverage)[None],
      self.doses,
      self.coverage,
    )
    return {
      'patients': self.patient,
      'wished_mean': 100 * wished.mean,
      'achieved_mean': 100 * achieved.mean,
      'wished_max': 100 * wished.max,
      'achieved_max': 100 * achieved.max,
      'wished_volume': 100 * wished.volume,
      'achieved_volume': 100 * achieved.volume,
      'from_plans': distance.min(),
      'from_wish': distance[plan],
      'dominated': dominated[0],
      'beyond': beyond[0],
    }

  def _distance(self, curves: np.ndarray) -> np.ndarray:
    """`[M, N]` of `[M, S, K]` to the plans, the mean of an element."""
    ours, theirs = curves[:, self.present], self.curves[:, self.present]
    return pareto.distances(ours, theirs) / ours[0].size
