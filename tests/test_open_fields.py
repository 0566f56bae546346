"""Open fields: where the beams go, and how they fall off."""

import jax.numpy as jnp
import numpy as np
import pytest

from dvhflax.models.open_fields import (
  ATTENUATION_PER_MM,
  SAD_MM,
  open_field_dose,
)

GRID, SPACING = (33, 33, 9), (5.0, 5.0, 6.0)


def dose(beams, centre=(16, 16, 4)):
  target = np.zeros((1, *GRID), np.uint8)
  x, y, z = centre
  target[0, x - 2 : x + 3, y - 2 : y + 3, z - 1 : z + 2] = 1
  return np.asarray(open_field_dose(jnp.asarray(target), SPACING, beams))[0]


def test_one_beam_enters_from_the_front_and_falls_off():
  field = dose(1)
  assert field[16, 16, 4] == pytest.approx(1)
  # Anterior is where y is small.
  along = (np.arange(33) - 16) * 5.0
  expected = (
    np.exp(-ATTENUATION_PER_MM * along) * (SAD_MM / (SAD_MM + along)) ** 2
  )
  np.testing.assert_allclose(field[16, :, 4], expected, rtol=1e-5)
  # Beside, and above the margin of a voxel, there is nothing.
  assert (field[:10] == 0).all() and (field[:, :, :2] == 0).all()


def test_fields_cover_the_target_and_turn_with_the_beams():
  field = dose(7)
  assert field[14:19, 14:19, 3:6].min() > 0.9
  # Mirrored beams: the same on the left and on the right.
  np.testing.assert_allclose(field, field[::-1], atol=1e-5)
  # Seven beams face no other: each leaves between two that enter, weaker.
  assert 0 < field[16, 31, 4] < field[16, 1, 4]


def test_fields_follow_the_target():
  moved = dose(7, centre=(20, 12, 5))
  assert moved[18:23, 10:15, 4:7].min() > 0.8
  assert moved[:, :, :3].max() == 0


def test_nothing_to_treat():
  empty = jnp.zeros((2, *GRID))
  assert not np.asarray(open_field_dose(empty, SPACING, 7)).any()
