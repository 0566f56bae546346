"""The dose engine against published 6 MV values and a plain reference."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from dvhflax import native
from dvhflax.grid import Grid
from dvhflax.planning.beams import Beamlets, project
from dvhflax.planning.influence import Influence
from dvhflax.planning.kernel import gaussian_kernel
from dvhflax.planning.problem import adjoint, dose
from dvhflax.planning.raytrace import depth_maps

GRID = Grid((64, 128, 32), (7.0, 2.5, 7.0))
SURFACE_MM = -155.0


def square_field(source_to_isocentre_depth_mm, width_mm=100.0):
  """One beam from anterior on a water block that begins at SURFACE_MM."""
  _, y, _ = np.ix_(*GRID.axes)
  water = np.broadcast_to(y > SURFACE_MM, GRID.shape).astype(np.float32)
  isocentre = np.array([0, SURFACE_MM + source_to_isocentre_depth_mm, 0])
  count = round(width_mm / 5)
  beamlets = Beamlets(
    isocentre, np.zeros(1), 1000.0, 5.0, np.ones((1, count, count), bool)
  )
  return Influence(beamlets, depth_maps(water, GRID, beamlets)), beamlets


def on_axis(depths_mm, isocentre_depth_mm):
  influence, beamlets = square_field(isocentre_depth_mm)
  points = np.zeros((len(depths_mm), 3))
  points[:, 1] = SURFACE_MM + depths_mm
  open_field = jnp.asarray(beamlets.active >= 0, jnp.float32)[None]
  rows = influence.rows(points)[: len(points)]
  return np.asarray(dose(open_field, rows))[0]


def test_depth_of_maximum():
  depths = np.arange(5.0, 40.0, 1.0)
  # SSD 100 cm: the isocentre lies on the surface.
  deepest = depths[on_axis(depths, 0.0).argmax()]
  assert deepest == pytest.approx(15, abs=2)


def test_tissue_phantom_ratio():
  at_20 = on_axis(np.array([200.0]), 200.0)[0]
  at_10 = on_axis(np.array([100.0]), 100.0)[0]
  assert at_20 / at_10 == pytest.approx(0.66, abs=0.01)


def test_row_equals_a_plain_sum_over_gaussians():
  influence, beamlets = square_field(100.0, 40.0)
  points = np.array([[8.0, -40.0, -13.0]])
  row = np.asarray(influence.rows(points))[0]
  _, x, z = project(points - beamlets.isocentre, np.zeros(1), 1000.0)
  # The radiological depth along the ray, straight from the geometry.
  source = beamlets.isocentre - [0, 1000.0, 0]
  ray = points[0] - source
  inside = points[0, 1] - SURFACE_MM
  depth = inside * np.linalg.norm(ray) / ray[1]
  kernel = gaussian_kernel()
  low = int(depth)
  w = kernel.weights[low] * (1 - depth + low)
  w = w + kernel.weights[low + 1] * (depth - low)
  expected = np.zeros((8, 8))
  for i in range(8):
    for j in range(8):
      for k, sigma in enumerate(kernel.sigma_mm):
        share = 1.0
        for u, n in ((x[0, 0], i), (z[0, 0], j)):
          middle = (n - 3.5) * 5.0
          a, b = (u - middle + 2.5), (u - middle - 2.5)
          share *= (erf(a / sigma / 2**0.5) - erf(b / sigma / 2**0.5)) / 2
        expected[i, j] += w[k] * share
  expected *= (1000.0 / np.linalg.norm(ray)) ** 2
  ours = row[beamlets.active >= 0].reshape(8, 8)
  np.testing.assert_allclose(ours, expected, atol=0.01 * expected.max())


@pytest.mark.parametrize('compiled', [False, True])
def test_full_dose_agrees_with_the_rows(compiled, monkeypatch):
  if not compiled:
    monkeypatch.setattr(native, 'available', tuple)
  elif not native.available():
    pytest.skip('not compiled')
  influence, beamlets = square_field(100.0, 60.0)
  rng = np.random.default_rng(0)
  points = rng.uniform((-60, -150, -60), (60, 100, 60), (500, 3))
  fluence = rng.random((3, len(beamlets.active))) * (beamlets.active >= 0)
  fluence = jnp.asarray(fluence, jnp.float32)
  slow = np.asarray(dose(fluence, influence.rows(points)))[:, :500]
  fast = influence.dose(points, fluence)
  np.testing.assert_allclose(fast, slow, atol=0.005 * slow.max())


def test_adjoint():
  rng = np.random.default_rng(0)
  matrix, x, g = (
    jnp.asarray(rng.random(s), jnp.float32)
    for s in ((40, 30), (2, 30), (2, 40))
  )
  forward = (dose(x, matrix) * g).sum()
  backward = (x * adjoint(g, matrix)).sum()
  np.testing.assert_allclose(forward, backward, rtol=1e-5)
