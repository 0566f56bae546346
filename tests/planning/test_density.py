"""Electron densities: known tissues, the table's ends, the body's outside."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from dvhflax import errors
from dvhflax.planning import density


@pytest.mark.parametrize(
  'hu, wanted',
  [
    (-3000, 0.0),
    (-1000, 0.0),
    (-500, 0.5),
    (0, 1.0),
    (50, 1.05),
    (100, 1.1),
    (195, 1.1),
    (975, 1.5),
    (1950, 2.0),
    (3071, 1 + 3071 / 1950),
    (30000, 1 + 3071 / 1950),
  ],
)
def test_the_table(hu, wanted):
  for given_hu in (hu, np.int16(hu), np.float32(hu)):
    got = density.relative_electron_density(given_hu)
    assert got.dtype == np.float32
    assert got == pytest.approx(wanted, abs=1e-6)


@given(st.lists(st.integers(-32768, 32767), min_size=2, max_size=50))
def test_denser_never_gets_lighter(numbers):
  hu = np.sort(np.array(numbers, np.int16))
  got = density.relative_electron_density(hu)
  assert (np.diff(got) >= 0).all() and got.min() >= 0 and got.max() < 2.6


def test_water_without_a_ct_air_around_the_body():
  body = np.zeros((4, 3, 2), np.uint8)
  body[1:3] = 1
  ct_hu = np.full(body.shape, 40, np.int16)
  ct_hu[1, 0] = -1000  # an airway stays
  ct_hu[0] = 500  # a couch does not
  for channel in (body, body.astype(bool), body.astype(np.float32)):
    np.testing.assert_array_equal(density.density_of(channel, None), body)
    got = density.density_of(channel, ct_hu)
    assert got.dtype == np.float32 and not got[[0, 3]].any()
    assert not got[1, 0].any()
    np.testing.assert_allclose(got[1, 1:], 1.04)
    np.testing.assert_allclose(got[2], 1.04)


def test_no_body_and_other_grids_are_refused():
  body = np.ones((2, 2, 2), np.uint8)
  with pytest.raises(errors.PlanningError, match='body is empty'):
    density.density_of(0 * body, None)
  with pytest.raises(errors.PlanningError, match=r'shape \(2, 2, 3\)'):
    density.density_of(body, np.zeros((2, 2, 3), np.int16))
