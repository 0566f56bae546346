"""Bends DVH curves through points.

Each point is linear in a structure's DVH vector, so the curve nearest to the
current one that keeps all of them is the solution of a small quadratic
programme.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import optimize

from dvhflax import errors
from dvhflax.dvh import DVHSpec
from dvhflax.wishes.points import Point

# How far, in fractions of the prescription or of the volume, a bend reaches
# to either side of its point.
_REACH = 0.1
# Added to 4 v (1 - v), by which a volume v gives way: its least.
_SATURATED = 0.01
# Of a demand against the change of a curve.
_WEIGHT = 1e6
# Beyond the solver's rounding, and far below what a point is written to.
_EXACT = 1e-7


def bend(
  curves: np.ndarray, points: Sequence[Point], spec: DVHSpec
) -> np.ndarray:
  """The smoothly bent curves nearest to these that keep all points.

  With `u` the change of a structure's curve and `r` the reach in levels, the
  least of `|u / g|^2 + r^4 |u''|^2` is sought (`u''` its second differences)
  among the curves that are DVHs and keep the points. For volumes v,
  `g^2 = 4 v (1 - v) + 0.01`, so that a bend does not give a target a dose
  that none of it got; for doses g is 1. What a curve keeps
  already moves nothing; a bound that it does not keep is met exactly.
  Between its levels a curve is read by linear interpolation, and a mean dose
  is the area under it (by the trapezoid rule).

  Args:
    curves: `[S, K]` DVH vectors; zeros for a structure without one.
    points: the demands.
    spec: how the vectors are to be read.

  Returns:
    `[S, K]` float32 DVH vectors, which are valid whatever `curves` was:
    not increasing, in [0, 1], V(0) = 1 (or, for `dose_at_volume`, doses that
    do not fall and are not negative).

  Raises:
    WishError: a point that no DVH keeps or this vector cannot tell, points
      that contradict each other, a structure without a curve.
  """
  curves = np.asarray(curves, np.float64)
  bent = np.zeros_like(curves)
  by_structure: dict[int, list[Point]] = {}
  for point in points:
    by_structure.setdefault(point.structure, []).append(point)
  for s, curve in enumerate(curves):
    demands = by_structure.get(s, [])
    if curve.any():
      bent[s] = _bend(curve, demands, spec)
    elif demands:
      raise errors.WishError(
        f'{errors.shown(demands[0].text)}: the patient has no such structure'
      )
  return bent.astype(np.float32)


def _bend(
  curve: np.ndarray, points: Sequence[Point], spec: DVHSpec
) -> np.ndarray:
  _check_feasible(points, spec)
  demands = _demands(points, spec)
  if _is_dvh(curve, spec) and demands.kept_by(curve):
    return curve
  return _exactly_a_dvh(_nearest(curve, demands, spec), spec)


@dataclasses.dataclass(frozen=True)
class _Demands:
  """Linear demands on a vector: `rows @ x - signs * slack = values`.

  Attributes:
    rows: `[C, K]`.
    signs: `[C]`, 1 for at least, -1 for at most, 0 for equal; slack >= 0.
    values: `[C]`.
  """

  rows: np.ndarray
  signs: np.ndarray
  values: np.ndarray

  def kept_by(self, x: np.ndarray) -> bool:
    over = self.rows @ x - self.values
    missed = np.where(self.signs, np.maximum(-self.signs * over, 0), abs(over))
    return bool(missed.max(initial=0) <= _EXACT)


def _demands(points: Sequence[Point], spec: DVHSpec) -> _Demands:
  rows, signs, values = [], [], []
  if spec.kind == 'volume_at_dose':  # all of the volume gets 0 or more
    rows.append(np.eye(spec.points)[0])
    signs.append(0)
    values.append(1.0)
  for point in points:
    row, value, relation = _linear(point, spec)
    rows.append(row)
    signs.append({'<=': -1, '=': 0, '>=': 1}[relation])
    values.append(value)
  return _Demands(
    np.array(rows).reshape(-1, spec.points), np.array(signs), np.array(values)
  )


def _from_steps(spec: DVHSpec) -> np.ndarray:
  """`T [K, K]`: the vectors `T w` of steps `w >= 0` are those of the right
  sign that never rise (volumes) or never fall (doses)."""
  ones = np.ones((spec.points, spec.points))
  return np.triu(ones) if spec.kind == 'volume_at_dose' else np.tril(ones)


def _linear(point: Point, spec: DVHSpec) -> tuple[np.ndarray, float, str]:
  """The point as `row @ vector <relation> value`."""
  if point.kind == 'mean':
    return _area(spec), point.value, point.relation
  if spec.kind == 'dose_at_volume':
    if point.kind == 'max':
      return np.eye(spec.points)[-1], point.value, point.relation
    volume, dose = _volume_and_dose(point)
    return _interpolation(1 - volume, spec), dose, point.relation
  if point.kind == 'max':
    if point.relation != '<=':
      raise errors.WishError(
        f'{errors.shown(point.text)}: a maximum dose can only be kept below, '
        'by <=; ask for a dose at a volume, as in D2'
      )
    return _interpolation(_on_levels(point.value, point, spec), spec), 0.0, '<='
  volume, dose = _volume_and_dose(point)
  at = _on_levels(dose, point, spec)
  return _interpolation(at, spec), volume, point.relation


def _volume_and_dose(point: Point) -> tuple[float, float]:
  """Where on the curve a `V` or `D` lies; both bound it from the same side."""
  if point.kind == 'V':
    return point.value, point.at
  return point.at, point.value


def _on_levels(dose: float, point: Point, spec: DVHSpec) -> float:
  """The dose as a fraction of the last level."""
  if dose > spec.max_dose:
    raise errors.WishError(
      f'{errors.shown(point.text)} lies at {100 * dose:.0f}% of the '
      f"reference dose, beyond the DVH's last level, {100 * spec.max_dose:.0f}%"
    )
  return dose / spec.max_dose


def _interpolation(place: float, spec: DVHSpec) -> np.ndarray:
  """`[K]` weights that read a vector at a place in [0, 1] along it."""
  last = spec.points - 1
  low = min(int(place * last), last - 1)
  share = place * last - low
  weights = np.zeros(spec.points)
  weights[low : low + 2] = 1 - share, share
  return weights


def _area(spec: DVHSpec) -> np.ndarray:
  """`[K]` weights of the mean dose, by the trapezoid rule."""
  weights = np.ones(spec.points)
  weights[[0, -1]] = 0.5
  length = spec.max_dose if spec.kind == 'volume_at_dose' else 1.0
  return weights * length / (spec.points - 1)


def _check_feasible(points: Sequence[Point], spec: DVHSpec) -> None:
  """Names points that no DVH keeps, none of which may be left out."""
  if not points or _feasible(points, spec):
    return
  for point in points:
    if not _feasible([point], spec):
      raise errors.WishError(
        f'{errors.shown(point.text)} cannot hold: no DVH has it'
      )
  # One after another is left out unless it is needed for the contradiction:
  # all subsets of many points would take for ever.
  needed = list(points)
  for point in points:
    others = [p for p in needed if p is not point]
    if not _feasible(others, spec):
      needed = others
  texts = ' and '.join(errors.shown(p.text) for p in needed[:4])
  more = f' and {len(needed) - 4} more' if len(needed) > 4 else ''
  raise errors.WishError(
    f'{texts}{more} contradict each other: leave one out or relax it'
  )


def _feasible(points: Sequence[Point], spec: DVHSpec) -> bool:
  system, values = _in_steps(_demands(points, spec), spec)
  found = _least_squares(system, values)
  return float(np.linalg.norm(system @ found - values)) <= _EXACT


def _in_steps(
  demands: _Demands, spec: DVHSpec
) -> tuple[np.ndarray, np.ndarray]:
  """The demands on steps and slacks, all non-negative: `A [C, K + C]`, `b`."""
  slacks = -np.diag(demands.signs.astype(float))
  rows = demands.rows @ _from_steps(spec)
  return np.concatenate([rows, slacks], axis=1), demands.values


def _nearest(curve: np.ndarray, demands: _Demands, spec: DVHSpec) -> np.ndarray:
  """The vector nearest to a curve, see `bend`, that keeps the demands.

  A non-negative least-squares problem in steps and slacks. The demands are
  weighted, not eliminated (Lawson and Hanson 1974, Solving Least Squares
  Problems, chapter 22): that is robust where they leave no room.
  """
  length = spec.max_dose if spec.kind == 'volume_at_dose' else 1.0
  reach = _REACH * (spec.points - 1) / length
  bending = reach**2 * np.diff(np.eye(spec.points), 2, axis=0)
  change = np.concatenate([np.diag(_stiffness(curve, spec)), bending])
  steps = _from_steps(spec)
  kept, values = _in_steps(demands, spec)
  free = np.zeros((len(change), len(values)))
  system = np.concatenate(
    [np.concatenate([change @ steps, free], axis=1), _WEIGHT * kept]
  )
  target = np.concatenate([change @ curve, _WEIGHT * values])
  found = _least_squares(system, target)
  return steps @ found[: spec.points]


def _stiffness(curve: np.ndarray, spec: DVHSpec) -> np.ndarray:
  """`[K]` weights of a change; doses that all or none get stay so."""
  if spec.kind == 'dose_at_volume':
    return np.ones(spec.points)
  volume = np.clip(curve, 0, 1)
  return 1 / np.sqrt(4 * volume * (1 - volume) + _SATURATED)


def _least_squares(system: np.ndarray, target: np.ndarray) -> np.ndarray:
  """The `x >= 0` of least `|system @ x - target|`.

  Raises:
    WishError: if it is not found.
  """
  try:
    return optimize.nnls(system, target, maxiter=100 * system.shape[1])[0]
  except RuntimeError:  # it turned in circles; another method seldom does too
    pass
  try:
    solved = optimize.lsq_linear(
      system, target, (0, np.inf), method='bvls', tol=1e-14, max_iter=10_000
    )
  except (ValueError, np.linalg.LinAlgError):
    solved = None
  if solved is None or not solved.success:
    raise errors.WishError(
      'no curve through these points is found: give fewer or simpler points'
    )
  return np.maximum(solved.x, 0)


def _is_dvh(curve: np.ndarray, spec: DVHSpec) -> bool:
  return np.array_equal(curve, _exactly_a_dvh(curve, spec))


def _exactly_a_dvh(curve: np.ndarray, spec: DVHSpec) -> np.ndarray:
  """Takes the solver's rounding off."""
  if spec.kind == 'volume_at_dose':
    curve = np.minimum.accumulate(np.clip(curve, 0, 1))
    return np.concatenate([[1.0], curve[1:]])
  return np.maximum.accumulate(np.maximum(curve, 0))
