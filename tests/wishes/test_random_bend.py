"""Plans' DVHs, bent through random points."""

import dataclasses

import numpy as np
import pytest

from dvhflax import errors
from dvhflax.dvh import DVHSpec
from dvhflax.patient import Structure
from dvhflax.wishes import bending, random_bend
from dvhflax.wishes.random_bend import bend_at_random, random_points

STRUCTURES = tuple(
  map(Structure.from_name, ('body', 'bladder', 'rectum', 'PTV56', 'PTV70'))
)
# The prescription in fractions of the reference, the plan's mean in PTV70.
PRESCRIPTION = 0.95
KINDS = ('volume_at_dose', 'dose_at_volume')


def curves(spec: DVHSpec, lacking: tuple[int, ...] = ()) -> np.ndarray:
  """Of doses that are spread evenly between two, structure by structure."""
  ranges = [(0.0, 1.0), (0.05, 0.98), (0.1, 0.9), (0.78, 0.9), (0.95, 1.05)]
  vectors = []
  for low, high in ranges:
    if spec.kind == 'volume_at_dose':
      vectors.append(np.clip((high - spec.levels) / (high - low), 0, 1))
    else:
      vectors.append(low + (high - low) * (1 - spec.levels))
  vectors = np.float32(vectors)
  vectors[list(lacking)] = 0
  return vectors


def bend(spec, seed, lacking=()):
  plan = curves(spec, lacking)
  rng = np.random.default_rng(seed)
  return plan, *bend_at_random(plan, STRUCTURES, spec, PRESCRIPTION, rng)


def read(point, vector, spec):
  """What a curve has at a point, by interpolation between its elements."""
  levels = spec.levels
  if spec.kind == 'volume_at_dose':
    dose, volume = levels, vector
  else:
    dose, volume = vector, levels
  if point.kind == 'mean':
    return np.trapezoid(volume, dose) + dose[0]
  if point.kind == 'V':
    return np.interp(point.at, dose, volume, left=1, right=0)
  return np.interp(-point.at, -volume, dose)


@pytest.mark.parametrize('kind', KINDS)
def test_a_bent_wish_is_a_dvh_that_keeps_its_points(kind):
  spec = DVHSpec(kind, 32)
  for seed in range(60):
    plan, bent, points = bend(spec, seed)
    assert bent.dtype == np.float32 and not np.array_equal(bent, plan)
    sign = 1 if kind == 'dose_at_volume' else -1
    assert bent.min() >= 0 and (sign * np.diff(bent) >= 0).all()
    if kind == 'volume_at_dose':
      assert (bent[:, 0] == 1).all() and bent.max() == 1
    for point in points:
      has, had = (read(point, x[point.structure], spec) for x in (bent, plan))
      # Where a curve is level, a dose at a volume is any of several.
      if point.kind == 'D' and kind == 'volume_at_dose':
        has = np.interp(point.value, spec.levels, bent[point.structure])
        sides = {'<=': has <= point.at + 1e-5, '>=': has >= point.at - 1e-5}
        assert sides[point.relation]
      else:
        assert point.keeps(has, 1e-5)
      # It is moved to that side, by a realistic amount.
      limit = 0.15 if point.kind == 'V' else 0.15 * PRESCRIPTION
      assert abs(point.value - had) <= limit + 1e-5
      assert point.relation == ('<=' if point.value < had else '>=')
    asked = {point.structure for point in points}
    assert 1 <= len(asked) <= 2 and len(asked) <= len(points) <= 3
    others = [s for s in range(len(plan)) if s not in asked]
    np.testing.assert_array_equal(bent[others], plan[others])


def test_all_kinds_of_points_are_drawn():
  spec = DVHSpec()
  plan, rng = curves(spec), np.random.default_rng(0)
  number = 2000
  drawn = [
    p
    for _ in range(number)
    for p in random_points(plan, STRUCTURES, spec, PRESCRIPTION, rng)
  ]
  assert len(drawn) == pytest.approx(2 * number, rel=0.05)
  of = np.bincount([p.structure for p in drawn], minlength=5) / len(drawn)
  # A target is asked for half as often as an OAR, the body never. Of the
  # points 5/6 are of the first structure, the others of another: 1/3 and 0.3
  # of these an OAR's, 1/6 and 0.2 a target's.
  assert of[0] == 0
  np.testing.assert_allclose(of[1:], [0.328, 0.328, 0.172, 0.172], atol=0.03)
  kinds = {(STRUCTURES[p.structure].role, p.kind) for p in drawn}
  assert kinds == {('oar', 'mean'), ('oar', 'V'), ('oar', 'D'), ('target', 'D')}
  targets = {p.at for p in drawn if STRUCTURES[p.structure].role == 'target'}
  assert targets == {0.95, 0.02}
  assert {p.relation for p in drawn} == {'<=', '>='}


@pytest.mark.parametrize('kind', KINDS)
def test_an_absent_structure_is_never_asked_for(kind):
  spec = DVHSpec(kind, 16)
  for seed in range(30):
    _, bent, points = bend(spec, seed, lacking=(1, 4))
    assert {p.structure for p in points} <= {2, 3}
    assert not bent[[1, 4]].any()
    # One target is left.
    _, bent, points = bend(spec, seed, lacking=(1, 2, 3))
    assert {p.structure for p in points} == {4}


def test_doses_follow_the_prescription():
  """In fractions of twice the dose the same points are half as high."""
  spec = DVHSpec('dose_at_volume', 32)
  plan = curves(spec)
  whole, half = (
    random_points(
      np.float64(plan) * by, STRUCTURES, spec, by, np.random.default_rng(4)
    )
    for by in (1.0, 0.5)
  )
  assert whole
  for one, other in zip(whole, half, strict=True):
    doses = {'value': one.value / 2} if one.kind != 'V' else {'at': one.at / 2}
    expected = dataclasses.astuple(dataclasses.replace(one, **doses))
    np.testing.assert_allclose(
      np.float64([expected[1], *expected[3:6:2]]),
      np.float64([other.structure, other.at, other.value]),
      atol=1e-9,
    )


def test_the_same_chance_gives_the_same_wish():
  (_, one, _), (_, again, _), (_, other, _) = (
    bend(DVHSpec(), seed) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(one, again)
  assert not np.array_equal(one, other)


def test_points_that_cannot_be_are_drawn_again(monkeypatch):
  refused = []

  def counted(*args):
    try:
      return bending.bend(*args)
    except errors.WishError as error:
      refused.append(str(error))
      raise

  monkeypatch.setattr(random_bend, 'bend', counted)
  for seed in range(40):
    bend(DVHSpec(), seed)
  assert any('contradict' in words for words in refused)


def test_curves_that_nothing_bends_are_refused():
  spec = DVHSpec()
  plan = curves(spec, lacking=(1, 2, 3, 4))
  with pytest.raises(errors.WishError, match='no random points'):
    bend_at_random(plan, STRUCTURES, spec, 1.0, np.random.default_rng(0))
