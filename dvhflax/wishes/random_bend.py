"""Wishes as physicians make them: a plan's DVH, bent through random points."""

from collections.abc import Sequence

import numpy as np

from dvhflax import errors
from dvhflax.dvh import DVHSpec
from dvhflax.patient import Structure
from dvhflax.wishes.bending import bend
from dvhflax.wishes.points import Kind, Point

# At most so many points, of so many structures.
_POINTS, _STRUCTURES = 3, 2
# How often a structure is asked for, relative to an OAR.
_WEIGHT = {'body': 0.0, 'oar': 1.0, 'target': 0.5}
# How far a point is moved from what the plan has: a dose in fractions of the
# prescription, a volume (V) in fractions of the structure's.
_OAR_MOVES: dict[Kind, tuple[float, float]] = {
  'mean': (-0.15, 0.1),
  'V': (-0.15, 0.15),
  'D': (-0.15, 0.1),
}
_TARGET_MOVE = (-0.03, 0.03)
# Volumes: at what dose of an OAR's a V is, and what a D is of.
_V_VOLUMES, _D_VOLUMES = (0.05, 0.95), (0.02, 0.5)
_TARGET_VOLUMES = (0.95, 0.02)
# Points that no DVH keeps are drawn again; on plans, at most a few times.
_TRIES = 100


def bend_at_random(
  curves: np.ndarray,
  structures: Sequence[Structure],
  spec: DVHSpec,
  prescription: float,
  rng: np.random.Generator,
) -> tuple[np.ndarray, list[Point]]:
  """A plan's DVH, bent through one to three random points.

  Args:
    curves: `[S, K]` DVH vectors of the plan; zeros for an absent structure.
    structures: `[S]`.
    spec: how the vectors are to be read.
    prescription: of the patient, in fractions of the vectors' reference.
    rng: all chance.

  Returns:
    `[S, K]` float32, which is not `curves`, and the points that it keeps.

  Raises:
    WishError: if 100 draws give none: no curve is one that can be bent.
  """
  for _ in range(_TRIES):
    points = random_points(curves, structures, spec, prescription, rng)
    try:
      bent = bend(curves, points, spec)
    except errors.WishError:
      continue
    if not np.array_equal(bent, curves):
      return bent, points
  raise errors.WishError('no random points are found that bend these curves')


def random_points(
  curves: np.ndarray,
  structures: Sequence[Structure],
  spec: DVHSpec,
  prescription: float,
  rng: np.random.Generator,
) -> list[Point]:
  """Random demands, some below and some above what a plan has.

  Of an OAR a mean dose, a volume at a dose or a dose at a volume, of a target
  D95 or D2. What is moved down is a `<=`, what is moved up a `>=`. No DVH may
  keep all of them. Arguments are those of `bend_at_random`.

  Returns:
    One to three points of one or two structures; none, where no OAR or target
    has a curve.
  """
  there = curves.any(-1)
  weights = np.array([_WEIGHT[s.role] for s in structures]) * there
  number, several = rng.integers(1, [_POINTS + 1, _STRUCTURES + 1])
  several = min(number, several, np.count_nonzero(weights))
  if not several:
    return []
  chosen = rng.choice(
    len(weights), several, replace=False, p=weights / weights.sum()
  )
  return [
    _random_point(s, curves[s], structures[s], spec, prescription, rng)
    for s in map(int, np.resize(chosen, number))
  ]


def _random_point(
  index: int,
  vector: np.ndarray,
  structure: Structure,
  spec: DVHSpec,
  prescription: float,
  rng: np.random.Generator,
) -> Point:
  curve = spec.curve(vector)
  kind: Kind = 'D'
  if structure.role == 'target':
    at, move = float(rng.choice(_TARGET_VOLUMES)), rng.uniform(*_TARGET_MOVE)
  else:
    kind = ('mean', 'V', 'D')[rng.integers(3)]
    at = rng.uniform(*(_V_VOLUMES if kind == 'V' else _D_VOLUMES))
    move = rng.uniform(*_OAR_MOVES[kind])
  if kind == 'V':
    at = curve.dose_at_volume_percent(100 * at)
    current = curve.volume_percent_at_dose(at) / 100
    wanted = min(max(current + move, 0.0), 1.0)
  else:
    current = curve.mean_dose
    if kind == 'D':
      current = curve.dose_at_volume_percent(100 * at)
    wanted = max(current + move * prescription, 0.0)
  relation = '<=' if wanted < current else '>='
  at = 0.0 if kind == 'mean' else at
  return Point('drawn at random', index, kind, at, relation, wanted)
