"""The dose of open fields, as an input that shows where beams can reach.

Masks alone do not say that dose comes along beams; a network learns it slowly
from examples. After A. M. Barragan-Montero et al., "Three-dimensional dose
prediction for lung IMRT patients with deep neural networks: robust learning
from heterogeneous beam configurations", Med Phys 46:3679 (2019), it may be
told: beams as wide as the target, not modulated, without scatter.
"""

from collections.abc import Sequence
import dataclasses
import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SAD_MM = 1000.0
# Attenuation of broad 6 MV beams in water, at a TPR20,10 of 0.67.
ATTENUATION_PER_MM = 0.004
# By so much are columns farther apart in an aperture than in the grid, at most:
# voxels are longer one way than the other, and beams diverge.
_SPREAD = 3


@dataclasses.dataclass(frozen=True)
class Beam:
  """What a beam is to the columns (x, y) of a grid, C = X * Y of them.

  Attributes:
    bins: bins of its aperture, from one side to the other.
    bin: `[C]` bin that a column of the target opens.
    low: `[C]` bin before a column; the next one is after it.
    share: `[C]` weight of that next one, 0 to 1.
    weight: `[C]` dose of an open ray.
  """

  bins: int
  bin: Any
  low: Any
  share: Any
  weight: Any


def beams_of(
  grid: Sequence[int], spacing_mm: Sequence[float], beams: int
) -> list[Beam]:
  """Equidistant coplanar beams round the middle of a grid.

  Args:
    grid: voxels along x, y, z.
    spacing_mm: voxel size.
    beams: how many, the first at gantry angle 0.
  """
  x, y = _columns(grid, spacing_mm, np)
  found = []
  for angle in _angles(beams):
    across, weight = _rays(x, y, angle, np)
    place = across / min(spacing_mm[:2])
    half = int(np.ceil(np.abs(place).max())) + 1
    place = place + half
    low = place.astype(int)
    found.append(
      Beam(
        bins=2 * half + 1,
        bin=np.rint(place).astype(int),
        low=low,
        share=(place - low).astype(np.float32),
        weight=(weight / beams).astype(np.float32),
      )
    )
  return found


def _angles(beams: int) -> np.ndarray:
  """`[beams]` gantry angles in radians."""
  return 2 * np.pi * np.arange(beams) / beams


def _columns(
  grid: Sequence[int], spacing_mm: Any, xp: ModuleType
) -> tuple[Any, Any]:
  """`[C]` places of a grid's columns in mm from its middle, x and y."""
  x, y = (
    (np.arange(n) - (n - 1) / 2) * step for n, step in zip(grid[:2], spacing_mm)
  )
  x, y = (u.ravel() for u in xp.meshgrid(x, y, indexing='ij'))
  return x, y


def _rays(x: Any, y: Any, angle: float, xp: ModuleType) -> tuple[Any, Any]:
  """`[C]` where the rays of columns cross the isocentre's plane, in mm from the
  middle, and the dose of an open one."""
  across = x * np.cos(angle) + y * np.sin(angle)
  along = y * np.cos(angle) - x * np.sin(angle)
  magnification = SAD_MM / (SAD_MM + along)
  weight = xp.exp(-ATTENUATION_PER_MM * along) * magnification**2
  return across * magnification, weight


def open_field_dose(
  target: jax.Array, spacing_mm: tuple[float, float, float], beams: int
) -> jax.Array:
  """Dose of equidistant coplanar beams that just cover the target.

  Rays diverge within the slices, round the middle of the grid, and are
  parallel across them. In water a point's depth beyond the isocentre's is its
  distance along the beam, whatever the patient's outline.

  Args:
    target: `[B, X, Y, Z]`, not 0 inside the target; axes to the patient's
      left, posterior, superior.
    spacing_mm: voxel size.
    beams: number of beams, the first at gantry angle 0.

  Returns:
    `[B, X, Y, Z]` float32, 1 in the middle of the grid if the target is there.
  """
  return _dose(target, beams_of(target.shape[1:], spacing_mm, beams))


def open_field_dose_each(
  target: jax.Array, spacing_mm: jax.Array, beams: int
) -> jax.Array:
  """As `open_field_dose`, of patients whose voxels are of several sizes.

  Args:
    target: `[B, X, Y, Z]`.
    spacing_mm: `[B, 3]` voxel size of each.
    beams: number of beams.

  Returns:
    `[B, X, Y, Z]` float32.
  """
  nx, ny = target.shape[1:3]
  half = math.ceil(_SPREAD * math.hypot(nx, ny) / 2) + 1

  def one(target, spacing):
    x, y = _columns((nx, ny), spacing[:2], jnp)
    found = []
    for angle in _angles(beams):
      across, weight = _rays(x, y, angle, jnp)
      # Wider bins, should it be more than `_SPREAD`: nothing falls outside.
      step = jnp.maximum(spacing[:2].min(), jnp.abs(across).max() / (half - 1))
      place = across / step + half
      low = place.astype(jnp.int32)
      nearest = jnp.rint(place).astype(jnp.int32)
      found.append(
        Beam(2 * half + 1, nearest, low, place - low, weight / beams)
      )
    return _dose(target[None], found)[0]

  return jax.vmap(one)(target, spacing_mm.astype(jnp.float32))


def _dose(target: jax.Array, beams: Sequence[Beam]) -> jax.Array:
  """`[B, X, Y, Z]` float32 of a target on one grid."""
  batch, nx, ny, nz = target.shape
  columns = (target != 0).astype(jnp.float32).reshape(batch, nx * ny, nz)
  total = jnp.zeros((batch, nx, ny, nz))

  def over_columns(x: Any) -> jax.Array:
    # Not reshaped at the end: XLA would keep each beam's dose until then.
    return jnp.asarray(x).reshape(nx, ny)

  for beam in beams:
    aperture = jnp.zeros((batch, beam.bins, nz))
    aperture = aperture.at[:, beam.bin].max(columns)
    # A margin of a voxel, which also closes what falls between two columns.
    aperture = jax.lax.reduce_window(
      aperture, 0.0, jax.lax.max, (1, 3, 3), (1, 1, 1), 'SAME'
    )
    low, share = over_columns(beam.low), over_columns(beam.share)[..., None]
    open_ = aperture[:, low] * (1 - share) + aperture[:, low + 1] * share
    total += open_ * over_columns(beam.weight)[..., None]
  return total
