"""Goals of a plan: points in clinicians' notation that it is judged by.

A goal is written as a point of a wish is, `rectum V70 <= 10%`, see
`wishes.points`; but no curve is bent through it.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from dvhflax import errors
from dvhflax.dose_volume import Curve, Voxels
from dvhflax.dvh import DVHSpec
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Structure
from dvhflax.tuning import plan_metrics
from dvhflax.wishes import points as points_lib


@dataclasses.dataclass(frozen=True)
class GoalResult:
  """What a dose has of a goal.

  Attributes:
    text: the goal as it was written.
    structure: name of the structure.
    achieved: in `unit`; None where it cannot be told.
    unit: Gy, % or cc; empty where it cannot be told.
    met: whether the goal is kept; None where it cannot be told.
    by: by how much in `unit`: 0 or more where it is kept, less where not.
    fault: why it cannot be told, such as a structure that the patient lacks.
  """

  text: str
  structure: str
  achieved: float | None = None
  unit: str = ''
  met: bool | None = None
  by: float | None = None
  fault: str = ''


@dataclasses.dataclass(frozen=True)
class GoalRange:
  """What plans have of a goal, read off their DVHs.

  Attributes:
    text: the goal as it was written.
    low: the least, in `unit`; None where it cannot be told: of a maximum, which
      a DVH has only to its next level, of doses beyond the last one where a
      plan has such, or of an absent structure.
    high: the most.
    unit: Gy, % or cc.
    kept: how many of the plans keep the goal.
  """

  text: str
  low: float | None = None
  high: float | None = None
  unit: str = ''
  kept: int | None = None


def check(
  texts: Sequence[str], structures: Sequence[Structure] | None = None
) -> tuple[str, ...]:
  """Goals, one space between their words, if all can be read.

  Args:
    texts: the goals.
    structures: those that may be named; None for any.

  Raises:
    WishError: a goal in another notation or of an unknown structure, twice the
      same, or more than a hundred.
  """
  if isinstance(texts, str) or not all(isinstance(one, str) for one in texts):
    raise errors.WishError('goals are a list of texts')
  if len(texts) > points_lib.MOST_POINTS:
    raise errors.WishError(
      f'{len(texts)} goals: give {points_lib.MOST_POINTS} at most'
    )
  goals = [' '.join(text.split()) for text in texts]
  for goal in goals:
    name = points_lib.structure_of(goal)
    if structures is not None:
      points_lib.index_of(name, structures, goal)
    if goals.count(goal) > 1:
      raise errors.WishError(f'{errors.shown(goal)} is there twice')
  return tuple(goals)


def refuse_untold(texts: Sequence[str]) -> None:
  """Raises a WishError for a goal that can be told of no dose whatever.

  Such as one without the unit of its value, with more than 100% of the volume
  or 300% of the prescription, or with more Gy than any course has.
  """
  for text in texts:
    structures = [Structure(points_lib.structure_of(text), 'oar')]
    reference = DoseReference.of_prescription(1.0)
    points_lib.parse(text, structures, reference, [np.inf], goal=True)


def known(
  texts: Sequence[str], structures: Sequence[Structure]
) -> tuple[str, ...]:
  """Those goals of a template that name one of the structures."""
  names = {' '.join(s.name.split()).lower() for s in structures}
  return tuple(
    text for text in texts if points_lib.structure_of(text).lower() in names
  )


def assess(
  texts: Sequence[str],
  doses: Sequence[Voxels | None],
  reference: DoseReference,
  structures: Sequence[Structure],
  volumes_cc: np.ndarray,
) -> list[GoalResult]:
  """What a dose has of goals.

  Args:
    texts: the goals.
    doses: `[S]` of the structures, fractions of the reference; None for one
      that the patient lacks.
    reference: of the doses.
    structures: `[S]`.
    volumes_cc: `[S]`.

  Raises:
    WishError: a goal in another notation, or of an unknown structure.
  """
  return [
    _assess(text, doses, reference, structures, volumes_cc) for text in texts
  ]


def _assess(
  text: str,
  doses: Sequence[Voxels | None],
  reference: DoseReference,
  structures: Sequence[Structure],
  volumes_cc: np.ndarray,
) -> GoalResult:
  named = points_lib.structure_of(text)
  index = points_lib.index_of(named, structures, text)
  name, inside = structures[index].name, doses[index]
  if inside is None:
    return GoalResult(text, name, fault=f'the patient has no {name}')
  try:
    point = points_lib.parse(text, structures, reference, volumes_cc, goal=True)
  except errors.WishError as error:  # such as D5cc of an organ of 4
    return GoalResult(text, name, fault=str(error))
  achieved = plan_metrics.point_achieved(point, inside, reference)
  scale, unit = plan_metrics.in_unit(point, reference)
  room = scale * point.value - achieved['achieved']
  if point.relation != '<=':
    room = -room if point.relation == '>=' else -abs(room)
  met = achieved['met']
  # What is printed as kept is kept by nothing less than 0.
  room = max(room, 0.0) if met else room
  return GoalResult(text, name, achieved['achieved'], unit, met, room)


def ranges(
  texts: Sequence[str],
  plans: np.ndarray,
  spec: DVHSpec,
  reference: DoseReference,
  structures: Sequence[Structure],
  volumes_cc: np.ndarray,
) -> list[GoalRange]:
  """What plans have of goals: the least, and the most.

  Args:
    texts: the goals.
    plans: `[N, S, K]` DVHs, zeros for an absent structure.
    spec: how these are read.
    reference: what 1.0 of them stands for.
    structures: `[S]`.
    volumes_cc: `[S]`.

  Raises:
    WishError: a goal in another notation, or of an unknown structure.
  """
  return [
    _range(text, plans, spec, reference, structures, volumes_cc)
    for text in texts
  ]


def _range(
  text: str,
  plans: np.ndarray,
  spec: DVHSpec,
  reference: DoseReference,
  structures: Sequence[Structure],
  volumes_cc: np.ndarray,
) -> GoalRange:
  index = points_lib.index_of(points_lib.structure_of(text), structures, text)
  if not plans[:, index].any():
    return GoalRange(text)
  try:
    point = points_lib.parse(text, structures, reference, volumes_cc, goal=True)
  except errors.WishError:  # such as D5cc of an organ of 4
    return GoalRange(text)
  if point.kind == 'max':
    return GoalRange(text)
  curves = [spec.curve(vector) for vector in plans[:, index]]
  if any(_is_beyond(point, curve) for curve in curves):
    return GoalRange(text)
  found = [_read(point, curve) for curve in curves]
  scale, unit = plan_metrics.in_unit(point, reference)
  kept = sum(plan_metrics.is_met(point, one, reference) for one in found)
  return GoalRange(text, scale * min(found), scale * max(found), unit, kept)


def _is_beyond(point: points_lib.Point, curve: Curve) -> bool:
  """Whether a curve ends before what a point asks for."""
  left = curve.volume[-1]
  if point.kind == 'V':
    return bool(left > 0 and point.at > curve.dose[-1])
  return bool(point.kind == 'D' and point.at < left)


def _read(point: points_lib.Point, curve: Curve) -> float:
  if point.kind == 'V':
    return curve.volume_percent_at_dose(point.at) / 100
  if point.kind == 'D':
    return curve.dose_at_volume_percent(100 * point.at)
  return curve.mean_dose
