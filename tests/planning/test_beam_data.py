"""Open fields in water against published 6 MV beam data.

Published values: a TrueBeam's 6 MV beam, SSD 100 cm, of
https://github.com/DRO-Physics/DCAL (`Golden_Beam_Data.json`, commit 6b3f157);
`benchmarks/beam_data.py` compares more of them.
"""

import numpy as np
import pytest

from dvhflax.grid import Grid
from dvhflax.planning.beams import Beamlets
from dvhflax.planning.influence import Influence
from dvhflax.planning.raytrace import depth_maps

GRID = Grid((32, 144, 32), (14.0, 2.5, 14.0))
SURFACE_MM = -155.0
MAXIMUM_MM = 15.0


def open_fields(points, isocentre_depth_mm=0.0, widths_cm=(10,)):
  """`[F, V]` dose of square fields in x, depth, z (mm) from the axis."""
  _, y, _ = np.ix_(*GRID.axes)
  water = np.broadcast_to(y > SURFACE_MM, GRID.shape).astype(np.float32)
  isocentre = np.array([0.0, SURFACE_MM + isocentre_depth_mm, 0.0])
  count = 2 * max(widths_cm)
  opened = np.ones((1, count, count), bool)
  beamlets = Beamlets(isocentre, np.zeros(1), 1000.0, 5.0, opened)
  influence = Influence(beamlets, depth_maps(water, GRID, beamlets))
  points = np.add(points, [0.0, SURFACE_MM, 0.0])
  rows = np.asarray(influence.rows(points))
  rows = rows[: len(points), beamlets.active >= 0].reshape(-1, count, count)
  middles = [slice(count // 2 - w, count // 2 + w) for w in widths_cm]
  return np.stack([rows[:, m, m].sum((1, 2)) for m in middles])


def on_axis(*depths_mm):
  return [[0, depth, 0] for depth in depths_mm]


@pytest.mark.parametrize(
  'depth_mm, published',
  [(50, (86.1, 87.3)), (100, (66.4, 69.5)), (200, (38.1, 42.4))],
)
def test_depth_dose(depth_mm, published):
  dose = open_fields(on_axis(MAXIMUM_MM, depth_mm), widths_cm=(10, 20))
  percent = 100 * dose[:, 1] / dose[:, 0]
  np.testing.assert_allclose(percent, published, atol=2.5)


def test_wider_fields_scatter_more():
  """The published factors have the scatter of the collimators in them too."""
  dose = open_fields(on_axis(50), widths_cm=(5, 10, 20))[:, 0]
  assert 0.9 < dose[0] / dose[1] < 0.98
  assert 1.03 < dose[2] / dose[1] < 1.08


def test_penumbra():
  x = np.arange(0, 100, 1.0)
  field = open_fields(np.stack([x, 0 * x + 100, 0 * x], 1))[0]
  at = np.interp([-0.8, -0.5, -0.2], -field / field[0], x)
  # The field's edge diverges with depth; 80 to 20% is 6.9 mm as published,
  # widened by the chamber.
  assert at[1] == pytest.approx(55, abs=1)
  assert at[2] - at[0] == pytest.approx(6.9, abs=1)


def test_inverse_square_law():
  """The same depth, farther from the source: less by the distances squared.

  The kernel's Gaussians widen with the beam, so nothing else differs but
  where the traced surface lies between the nodes of ray tracing.
  """
  near = open_fields(on_axis(100), isocentre_depth_mm=100)[0, 0]
  far = open_fields(on_axis(100), isocentre_depth_mm=-100)[0, 0]
  assert far / near == pytest.approx((1000 / 1200) ** 2, rel=3e-3)
