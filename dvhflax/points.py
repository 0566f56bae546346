"""Points of a desired DVH in clinicians' notation, and curves through them.

`rectum V70 <= 10%`, `bladder mean <= 30 Gy`, `PTV D95 >= 95%`: each is linear
in a structure's DVH vector, so the curve nearest to the current one that keeps
all of them is the solution of a small quadratic programme.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import re
from typing import Literal

import numpy as np
from scipy import optimize

from dvhflax import errors
from dvhflax.dvh import DVHSpec
from dvhflax.patient import Structure

Kind = Literal['V', 'D', 'mean', 'max']

# How far, in fractions of the prescription or of the volume, a bend reaches
# to either side of its point.
_REACH = 0.1
# Added to 4 v (1 - v), by which a volume v gives way: its least.
_SATURATED = 0.01
# Of a demand against the change of a curve.
_WEIGHT = 1e6
# Beyond the solver's rounding, and far below what a point is written to.
_EXACT = 1e-7
_TOLERANCE = 1e-6

_NOTATION = re.compile(
  r'(?P<structure>.+?)\s+'
  r'(?:(?P<kind>[VD])\s*(?P<at>\d+(?:\.\d+)?)\s*(?P<at_unit>Gy|%|cc)?'
  r'|(?P<whole>mean|max))\s*'
  r'(?P<relation><=|>=|[<>=≤≥])\s*'
  r'(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>Gy|%|cc)?',
  re.IGNORECASE,
)
_KINDS: dict[str, Kind] = {'v': 'V', 'd': 'D', 'mean': 'mean', 'max': 'max'}
_RELATIONS = {'<': '<=', '≤': '<=', '>': '>=', '≥': '>='}


@dataclasses.dataclass(frozen=True)
class Point:
  """A demand on one structure's DVH.

  Attributes:
    text: as it was written.
    structure: index of the structure.
    kind: `V`, the volume that receives the dose `at`; `D`, the dose that the
      hottest volume `at` receives; `mean`; `max`.
    at: dose in fractions of the prescription, or volume in [0, 1]; 0 for
      `mean` and `max`.
    relation: `<=`, `>=` or `=`.
    value: volume in [0, 1] for `V`, else dose in fractions of the prescription.
    volume_cc: of the structure, where the point gives a `V` in cc.
  """

  text: str
  structure: int
  kind: Kind
  at: float
  relation: str
  value: float
  volume_cc: float | None = None

  def keeps(self, achieved: float, tolerance: float = _TOLERANCE) -> bool:
    """Whether a value, in the unit of `value`, is what was demanded."""
    over = achieved - self.value
    if self.relation == '<=':
      return over <= tolerance
    if self.relation == '>=':
      return over >= -tolerance
    return abs(over) <= tolerance

  def measure(self, dose: np.ndarray) -> float:
    """What `[V]` doses of the structure's voxels have, in `value`'s unit."""
    if self.kind == 'V':
      return float(np.mean(dose >= self.at))
    if self.kind == 'D':
      return float(np.quantile(dose, 1 - self.at))
    return float(dose.mean() if self.kind == 'mean' else dose.max())


def split(text: str) -> list[str]:
  """Points that semicolons or line ends part."""
  return [one.strip() for one in re.split(r'[;\n]', text) if one.strip()]


def parse(
  text: str,
  structures: Sequence[Structure],
  prescription_gy: float,
  volumes_cc: Sequence[float] | np.ndarray,
) -> Point:
  """Reads one point.

  A dose is given in Gy or in % of the prescription, a volume in % or in cc. The
  dose of `V70` is in Gy, that of `V95%` in % of the prescription; the volume of
  `D95` is in %, that of `D2cc` in cc. `<` and `>` are read as `<=` and `>=`.

  Args:
    text: such as `rectum V70 <= 10%`; capitals do not matter.
    structures: those that may be named.
    prescription_gy: the dose that 1.0 of a DVH vector stands for.
    volumes_cc: `[S]` of the patient's structures, 0 for one that is absent.

  Raises:
    WishError: a point in another notation, an unknown structure, more than all
      of its volume.
  """
  found = _NOTATION.fullmatch(text.strip())
  if not found:
    raise errors.WishError(
      f"{text!r} is not read: write 'rectum V70 <= 10%', "
      "'bladder mean <= 30 Gy' or 'PTV D95 >= 95%'"
    )
  kind = _KINDS[(found['kind'] or found['whole']).lower()]
  at_unit, unit = (_unit(found[name]) for name in ('at_unit', 'unit'))
  structure = _index(found['structure'], structures, text)
  whole_cc = float(volumes_cc[structure])
  at, volume_cc = 0.0, None
  if kind == 'V':
    if at_unit == 'cc':
      raise errors.WishError(f'{text!r}: V is at a dose, as in V70')
    at = float(found['at']) / (100 if at_unit == '%' else prescription_gy)
    if unit not in ('%', 'cc'):
      raise errors.WishError(f'{text!r}: give the volume of V in % or in cc')
    value = _volume(found['value'], unit, whole_cc, text)
    volume_cc = whole_cc if unit == 'cc' else None
  else:
    if kind == 'D':
      if at_unit == 'Gy':
        raise errors.WishError(f'{text!r}: D is at a volume, as in D95')
      at = _volume(found['at'], at_unit, whole_cc, text)
    if unit not in ('Gy', '%'):
      raise errors.WishError(
        f'{text!r}: give the dose in Gy or in % of the prescription'
      )
    value = float(found['value']) / (100 if unit == '%' else prescription_gy)
  relation = _RELATIONS.get(found['relation'], found['relation'])
  return Point(text.strip(), structure, kind, at, relation, value, volume_cc)


def _unit(text: str | None) -> str:
  return {'gy': 'Gy'}.get((text or '').lower(), (text or '').lower())


def _volume(number: str, unit: str, whole_cc: float, text: str) -> float:
  """A volume in % or in cc as a fraction of the structure."""
  whole = 100.0
  if unit == 'cc':
    if not whole_cc:
      raise errors.WishError(f'{text!r}: the patient has no such structure')
    whole = whole_cc
  if float(number) > whole:
    of_whole = f', {whole:.1f} cc' if unit == 'cc' else ''
    raise errors.WishError(
      f'{text!r}: {number}{unit or "%"} is more than all the volume{of_whole}'
    )
  return float(number) / whole


def _index(name: str, structures: Sequence[Structure], text: str) -> int:
  names = [s.name for s in structures]
  same = [i for i, n in enumerate(names) if n.lower() == name.strip().lower()]
  if not same:
    raise errors.WishError(
      f'{text!r}: there is no structure {name!r}; there are {", ".join(names)}'
    )
  return same[0]


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
        f'{demands[0].text!r}: the patient has no such structure'
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
        f'{point.text!r}: a maximum dose can only be kept below, by <=; '
        'ask for a dose at a volume, as in D2'
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
      f'{point.text!r} lies at {100 * dose:.0f}% of the prescription, beyond '
      f"the DVH's last level, {100 * spec.max_dose:.0f}%"
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
  """Names the fewest points that no DVH keeps."""
  if not points or _feasible(points, spec):
    return
  for point in points:
    if not _feasible([point], spec):
      raise errors.WishError(f'{point.text!r} cannot hold: no DVH has it')
  for number in range(2, len(points) + 1):
    for some in itertools.combinations(points, number):
      if not _feasible(some, spec):
        texts = ' and '.join(repr(point.text) for point in some)
        raise errors.WishError(
          f'{texts} contradict each other: leave one out or relax it'
        )


def _feasible(points: Sequence[Point], spec: DVHSpec) -> bool:
  system, values = _in_steps(_demands(points, spec), spec)
  _, residual = optimize.nnls(system, values, maxiter=_iterations(system))
  return residual <= _EXACT


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
  found, _ = optimize.nnls(system, target, maxiter=_iterations(system))
  return steps @ found[: spec.points]


def _stiffness(curve: np.ndarray, spec: DVHSpec) -> np.ndarray:
  """`[K]` weights of a change; doses that all or none get stay so."""
  if spec.kind == 'dose_at_volume':
    return np.ones(spec.points)
  volume = np.clip(curve, 0, 1)
  return 1 / np.sqrt(4 * volume * (1 - volume) + _SATURATED)


def _iterations(system: np.ndarray) -> int:
  return 100 * system.shape[1]


def _is_dvh(curve: np.ndarray, spec: DVHSpec) -> bool:
  return np.array_equal(curve, _exactly_a_dvh(curve, spec))


def _exactly_a_dvh(curve: np.ndarray, spec: DVHSpec) -> np.ndarray:
  """Takes the solver's rounding off."""
  if spec.kind == 'volume_at_dose':
    curve = np.minimum.accumulate(np.clip(curve, 0, 1))
    return np.concatenate([[1.0], curve[1:]])
  return np.maximum.accumulate(np.maximum(curve, 0))
