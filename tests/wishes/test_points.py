"""Points in clinicians' notation, and the curves bent through them."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dvhflax.dvh import DVHSpec
from dvhflax.errors import WishError
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Structure
from dvhflax.wishes import points as points_lib
from dvhflax.wishes.bending import bend

STRUCTURES = (Structure('rectum', 'oar'), Structure('PTV', 'target'))
SPEC = DVHSpec(points=32)


def parse(text):
  return points_lib.parse(
    text, STRUCTURES, DoseReference(85.0, 78.0), (40.0, 0.0)
  )


def straight(spec=SPEC):
  """Two curves that fall evenly to 0 at the last dose."""
  curve = 1 - spec.levels / spec.max_dose
  if spec.kind == 'dose_at_volume':
    curve = (1 - spec.levels) * spec.max_dose
  return np.stack([curve, curve])


@pytest.mark.parametrize(
  'text, expected',
  [
    ('rectum V70 <= 10%', (0, 'V', 70 / 85, '<=', 0.1)),
    ('RECTUM v 50 % < 25 %', (0, 'V', 39 / 85, '<=', 0.25)),
    ('ptv D95 ≥ 95%', (1, 'D', 0.95, '>=', 74.1 / 85)),
    ('PTV D2% <= 81.9 Gy', (1, 'D', 0.02, '<=', 81.9 / 85)),
    ('rectum mean = 39gy', (0, 'mean', 0, '=', 39 / 85)),
    ('rectum max<=78Gy', (0, 'max', 0, '<=', 78 / 85)),
    ('rectum V70 <= 8 cc', (0, 'V', 70 / 85, '<=', 0.2)),
    ('rectum D2cc <= 70.2 Gy', (0, 'D', 0.05, '<=', 70.2 / 85)),
    ('rectum D0.1 CC <= 90%', (0, 'D', 0.0025, '<=', 70.2 / 85)),
  ],
)
def test_notation(text, expected):
  point = dataclasses.astuple(parse(text))[1:]
  assert point[:2] == expected[:2] and point[3] == expected[3]
  np.testing.assert_allclose([point[2], point[4]], [expected[2], expected[4]])


@pytest.mark.parametrize(
  'text, reason',
  [
    ('rectum is fine', 'is not a point'),
    ('colon V70 <= 10%', "no structure 'colon'; there are rectum, PTV"),
    ('rectum V70 <= 110%', 'more than all the volume'),
    ('rectum V70 <= 10 Gy', 'volume of V in %'),
    ('rectum V70cc <= 10%', 'V is at a dose'),
    ('rectum V70 <= 41 cc', 'more than all the volume, 40.0 cc'),
    ('rectum D41cc <= 70 Gy', '41cc is more than all'),
    ('PTV D2cc <= 80 Gy', 'the patient has no such structure'),
    ('rectum mean <= 30 cc', 'Gy or in %'),
    ('rectum mean <= 30', 'Gy or in %'),
  ],
)
def test_another_notation_is_refused(text, reason):
  with pytest.raises(WishError, match=reason):
    parse(text)


@pytest.mark.parametrize('kind', ['volume_at_dose', 'dose_at_volume'])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_feasible_points_are_met_by_a_dvh(kind, data):
  number = data.draw(st.integers(2, 40))
  spec = DVHSpec(kind, number)
  unit = st.floats(0, 1, allow_subnormal=False)

  def curve():
    steps = data.draw(st.lists(unit, min_size=number, max_size=number))
    if kind == 'dose_at_volume':
      return np.sort(steps) * spec.max_dose
    return np.array([1, *np.sort(steps)[::-1][1:]])

  start, reached = curve(), curve()
  if not start.any():
    start[-1] = 1
  demands, read = [], []
  for _ in range(data.draw(st.integers(1, 6))):
    place = data.draw(unit)
    relation = data.draw(st.sampled_from(['<=', '>=', '=']))
    value = float(np.interp(place, np.linspace(0, 1, number), reached))
    if kind == 'volume_at_dose':
      dose = place * spec.max_dose
      point = points_lib.Point('', 0, 'V', dose, relation, value)
    else:
      point = points_lib.Point('', 0, 'D', 1 - place, relation, value)
    demands.append(point)
    read.append(place)
  bent = bend(start[None], demands, spec)[0]
  if kind == 'volume_at_dose':
    assert bent[0] == 1 and bent.min() >= 0 and (np.diff(bent) <= 0).all()
  else:
    assert bent.min() >= 0 and (np.diff(bent) >= 0).all()
  for place, point in zip(read, demands):
    at = np.interp(place, np.linspace(0, 1, number), bent)
    assert point.keeps(at, 1e-5)


@pytest.mark.parametrize('kind', ['volume_at_dose', 'dose_at_volume'])
def test_bounds_are_met_exactly_and_the_rest_bends_smoothly(kind):
  spec = DVHSpec(kind, 32)
  curves = straight(spec)
  demands = [parse('rectum V70 <= 10%'), parse('rectum mean <= 40 Gy')]
  bent = bend(curves, demands, spec)
  np.testing.assert_allclose(bent[1], curves[1])
  volume, dose = bent[0], spec.levels
  if kind == 'dose_at_volume':
    volume, dose = dose[::-1], volume[::-1]
    assert np.interp(0.1, volume, dose) == pytest.approx(70 / 85, abs=1e-6)
  else:
    assert np.interp(70 / 85, dose, volume) == pytest.approx(0.1, abs=1e-6)
  assert abs(np.trapezoid(volume, dose)) <= 40 / 85 + 1e-6
  assert np.abs(np.diff(bent[0] - curves[0], 2)).max() < 0.03


def test_kept_points_change_nothing():
  curves = straight().astype(np.float32)
  bent = bend(curves, [parse('rectum V70 <= 50%')], SPEC)
  np.testing.assert_array_equal(bent, curves)


@pytest.mark.parametrize(
  'texts, reason',
  [
    (['rectum V0 <= 50%'], 'cannot hold'),
    (
      ['rectum mean <= 70 Gy', 'rectum V50 <= 10%', 'rectum V60 >= 20%'],
      "'rectum V50 <= 10%' and 'rectum V60 >= 20%' contradict",
    ),
    (['rectum D95 >= 70 Gy', 'rectum mean <= 30 Gy'], 'contradict'),
    (['rectum V103 <= 5%'], 'beyond'),
    (['rectum max >= 70 Gy'], 'only be kept below'),
  ],
)
def test_points_that_cannot_be_are_refused(texts, reason):
  with pytest.raises(WishError, match=reason):
    bend(straight(), [parse(t) for t in texts], SPEC)


def test_a_structure_that_the_patient_lacks():
  curves = straight()
  curves[0] = 0
  with pytest.raises(WishError, match='no such structure'):
    bend(curves, [parse('rectum V70 <= 10%')], SPEC)
