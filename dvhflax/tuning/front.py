"""What can be had: a patient's plans, or those of similar patients.

Where a cohort has at least three plans of the patient, these are its front.
Else it is the plans of the ten most similar training patients who have all of
its structures, and such few as it has itself. Similar are patients whose plans'
mean DVH is near to the DVH of this patient's first dose, in L1: what a network
gives an anatomy without a wish is the shortest description of what that anatomy
allows, needs no masks of the others, and exists for a patient without a plan.
The overlap of organs with targets, the usual measure, is a part of it: it is
the end of the organ's curve.

The distance of curves to a front is that of equation (4), the L1 distance to
the nearest of its plans. Curves are in reach when they are no farther than
plans are from each other: than 95% of the plans are from the nearest other one,
of another patient where the plans are of several. Of curves out of reach, the
structure in the way is the one without which the distance would fall most.

Curves that are compared are vectors in fractions, as networks have them: where
1.0 is each plan's own target mean, so are those of a front. Its band is to be
drawn over curves in Gy, and plans whose 1.0 differ have no common one but the
prescription: the band is in fractions of that, of each plan's own patient.
"""

import dataclasses
import functools
from typing import Literal

import numpy as np

from dvhflax.cohort.store import Cohort
from dvhflax.planning.pareto import distances

Kind = Literal['own', 'similar']

# Of the patient's own; fewer are no front.
_FEWEST_PLANS = 3
_SIMILAR_PATIENTS = 10


@dataclasses.dataclass(frozen=True)
class Compared:
  """How far curves are from a front.

  Attributes:
    distance: L1, of equation (4); None where no plan has all the structures.
    share: by name of the structure, its part of the distance, in [0, 1].
    in_reach: whether the distance is no larger than is usual among plans.
    in_the_way: the structure that is; None of curves in reach.
    plan: index of the nearest plan in the front.
  """

  distance: float | None
  share: dict[str, float]
  in_reach: bool
  in_the_way: str | None
  plan: int | None


@dataclasses.dataclass(frozen=True)
class Front:
  """The plans that a patient's curves are held against.

  Attributes:
    kind: whose plans they are.
    names: `[S]` of the structures.
    dvh: `[N, S, K]` of the plans; zeros for what the patient lacks.
    owners: `[N]`, places of their patients in the cohort.
    usual: distance that 95% of the plans are from the nearest other one; 0
      where there are no two.
    prescribed: `[N, S, K]` of the plans, vectors as `dvh` has them, but in
      fractions of the prescription.
    low, high: `[S, K]` band of these.
  """

  kind: Kind
  names: tuple[str, ...]
  dvh: np.ndarray
  owners: np.ndarray
  usual: float
  prescribed: np.ndarray

  @property
  def plans(self) -> int:
    """How many."""
    return len(self.dvh)

  @functools.cached_property
  def low(self) -> np.ndarray:
    """See above; zeros where there is no plan."""
    return self.prescribed.min(0) if self.plans else self._none

  @functools.cached_property
  def high(self) -> np.ndarray:
    """See above."""
    return self.prescribed.max(0) if self.plans else self._none

  @property
  def _none(self) -> np.ndarray:
    return np.zeros(self.prescribed.shape[1:], self.prescribed.dtype)

  def compare(self, dvh: np.ndarray) -> Compared:
    """How far `[S, K]` curves are from the front.

    Args:
      dvh: zeros for a structure that does not count.
    """
    wished = np.flatnonzero(dvh.any(-1))
    apart = np.abs(self.dvh[:, wished] - dvh[wished]).sum(-1, dtype=np.float64)
    total = apart.sum(-1)
    if not total.size or not np.isfinite(total).any() or not len(wished):
      return Compared(None, {}, False, None, None)
    plan = int(total.argmin())
    distance = float(total[plan])
    share = {
      self.names[s]: float(part / distance) if distance else 0.0
      for s, part in zip(wished, apart[plan])
    }
    in_reach = distance <= self.usual
    in_the_way = None
    if not in_reach:
      without = (total[:, None] - apart).min(0)
      in_the_way = self.names[wished[int(without.argmin())]]
    return Compared(distance, share, in_reach, in_the_way, plan)


def front_of(
  cohort: Cohort,
  present: np.ndarray,
  first_dvh: np.ndarray,
  patient: int | None = None,
) -> Front:
  """The front of a patient.

  Args:
    cohort: of the training.
    present: `[S]`, structures of the patient.
    first_dvh: `[S, K]` of its first dose, by which similar ones are found.
    patient: its place in the cohort; None for one from outside.
  """
  none = np.zeros(0, int)
  own = none if patient is None else np.flatnonzero(cohort.valid[patient])
  if patient is not None and len(own) >= _FEWEST_PLANS:
    owners = np.full(len(own), patient)
    kind: Kind = 'own'
    plans = own
  else:
    chosen = _similar(cohort, present, first_dvh, patient)
    places = [np.flatnonzero(cohort.valid[p]) for p in chosen]
    owners = np.repeat(chosen, [len(place) for place in places])
    plans = np.concatenate([none, *places])
    kind = 'similar'
    if patient is not None:
      owners = np.append(owners, np.full(len(own), patient))
      plans = np.append(plans, own)
  curves = cohort.dvh[owners, plans] * present[:, None]
  names = tuple(s.name for s in cohort.structures)
  return Front(
    kind,
    names,
    curves,
    owners,
    _usual(curves, owners),
    _of_prescription(cohort, curves, owners, plans),
  )


def _similar(
  cohort: Cohort,
  present: np.ndarray,
  first_dvh: np.ndarray,
  patient: int | None,
) -> np.ndarray:
  """Places of similar training patients, the nearest first."""
  train = cohort.split('train')
  has = cohort.present[train][:, present].all(-1) & cohort.valid[train].any(-1)
  others = train[has & (train != (-1 if patient is None else patient))]
  valid = cohort.valid[others][..., None, None]
  mean = (cohort.dvh[others] * valid).sum(1) / valid.sum(1)
  apart = np.abs(mean - first_dvh)[:, present].sum((1, 2))
  return others[np.argsort(apart, kind='stable')[:_SIMILAR_PATIENTS]]


def _of_prescription(
  cohort: Cohort, curves: np.ndarray, owners: np.ndarray, plans: np.ndarray
) -> np.ndarray:
  """`[N, S, K]` curves of plans in fractions of their prescriptions."""
  references = [cohort.reference(p, n) for p, n in zip(owners, plans)]
  by = np.array([one.gy / one.prescription_gy for one in references])
  if np.all(by == 1):
    return curves
  spec = cohort.dvh_spec
  if spec.kind == 'dose_at_volume':
    return (curves * by[:, None, None]).astype(curves.dtype)
  return np.array(
    [
      [np.interp(spec.levels, spec.levels * scale, one) for one in plan]
      for scale, plan in zip(by, curves)
    ],
    curves.dtype,
  )


def _usual(curves: np.ndarray, owners: np.ndarray) -> float:
  """See `Front.usual`."""
  if len(curves) < 2:
    return 0.0
  apart = distances(curves, curves)
  same = owners[:, None] == owners
  if same.all():
    same = np.eye(len(owners), dtype=bool)
  apart[same] = np.inf
  nearest = apart.min(1)
  nearest = nearest[np.isfinite(nearest)]
  return float(np.percentile(nearest, 95)) if len(nearest) else 0.0
