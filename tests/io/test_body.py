"""The body from a CT: cylinders with lungs, couches, masks, noise."""

import numpy as np
import pytest

from dvhflax import errors
from dvhflax.io import body as body_lib
from dvhflax.io.resample import Scan

SHAPE, SPACING = (80, 90, 6), (2.0, 2.0, 3.0)
X, Y, Z = (s * (np.arange(n) - (n - 1) / 2) for n, s in zip(SHAPE, SPACING))


def disk(radius, x=0.0, y=0.0):
  return np.broadcast_to(
    np.hypot(X[:, None, None] - x, Y[:, None] - y) <= radius, SHAPE
  )


@pytest.fixture
def hu():
  """Air with a little noise around a body of radius 50 mm."""
  noise = np.random.default_rng(0).normal(0, 20, SHAPE)
  return np.where(disk(50), 0, -1000) + noise


def test_holes_are_filled(hu):
  hu[disk(15, -25)] = -800
  hu[disk(4, 20)] = -1000
  np.testing.assert_array_equal(body_lib.derive_body(hu, SPACING), disk(50))


def test_couch_and_mask_are_left_out(hu):
  hu[:, Y > 60] = 100  # a couch that is smaller than the body
  hu[:, Y > 70] = -1000
  hu[(X > -2) & (X < 2)] = np.where(  # held up by a post of 4 mm
    (Y[:, None] > 45) & (Y[:, None] < 62), 100, hu[(X > -2) & (X < 2)]
  )
  hu[disk(60) & ~disk(57)] = -200  # a mask of 3 mm, off the skin
  body = body_lib.derive_body(hu, SPACING)
  assert (body & ~disk(50)).sum() <= 2 * 2 * 2 * SHAPE[2]
  assert not (disk(50) & ~body).any()


def test_a_body_that_reaches_the_border_and_unclosed_cavities(hu):
  hu[:, :20] = 0  # to the border of the image
  hu[(X > -4) & (X < 4)] = np.where(Y[:, None] > 0, -1000, 0)  # a cleft
  body = body_lib.derive_body(hu, SPACING)
  assert body[:, :20].all()
  assert not body[40, 60:].any()


@pytest.mark.parametrize('value', [-1000, 0])
def test_uniform_images(value):
  hu = np.full(SHAPE, value)
  if value == 0:
    assert body_lib.derive_body(hu, SPACING).all()
    return
  with pytest.raises(errors.CohortError, match='no body found in the CT'):
    body_lib.derive_body(hu, SPACING)


def test_a_small_part_is_no_body(hu):
  hu[disk(50)] = -1000
  hu[disk(10)] = 0
  with pytest.raises(errors.CohortError, match='has 6 cc'):
    body_lib.derive_body(hu, SPACING)


@pytest.mark.parametrize('pixel_mm', [0.8, 2.0, 4.0])
def test_the_volume_from_a_scan(pixel_mm):
  """A slanted cone cut off; slices of 2 mm, one missing."""
  count = round(240 / pixel_mm) + 1
  x = pixel_mm * (np.arange(count) - (count - 1) / 2)
  z = np.delete(np.arange(0.0, 60.0, 2.0), 11)
  radius = 60 + z / 2
  hu = np.where(
    np.hypot(x[:, None, None] - z / 4, x[:, None]) <= radius, 30, -1000
  )
  occupancy = body_lib.from_scan(Scan(hu.astype(np.int16), (x, x, z)))
  assert max(occupancy.fractions.shape[:2]) <= body_lib.PIXELS
  # Over -1 to 59 mm, pi times the mean of the squared radius.
  a, b = 59.5, 89.5
  wanted = np.pi * (a * a + a * b + b * b) / 3 * 60 / 1000
  assert occupancy.volume_cc == pytest.approx(wanted, rel=0.015)
  low, high = occupancy.lower[2][0], occupancy.upper[2][-1]
  assert (low, high) == (-1.0, 59.0)
  middle = [
    (occupancy.volumes_mm3.sum((1 - i, 2)) @ occupancy.centres[i])
    / occupancy.volumes_mm3.sum()
    for i in range(2)
  ]
  assert middle[1] == pytest.approx(0, abs=0.3)
  assert middle[0] == pytest.approx(7.9, abs=0.6)
