"""Radiological depth along the divergent rays of each beam."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dvhflax.grid import Grid
from dvhflax.planning.beams import Beamlets, beam_axes

# Steps of the divergent (t, X, Z) grid in mm. Density varies slowly but at
# the skin, where the beam enters across it: t is the fine axis.
_STEP_T_MM, _STEP_X_MM, _STEP_Z_MM = 3.0, 6.0, 6.0
# The isocentre may lie this far from the middle of the grid without a new
# shape, hence a new compilation.
_ROOM_MM = 40.0


class DepthMaps:
  """Radiological depth of every beam on its divergent (t, X, Z) grid.

  Attributes:
    depth: `[B, T, I, J]` radiological depth in mm of water.
    first: `[3]` t, X and Z of the first node in mm.
    step: `[3]` distances between nodes in mm.
  """

  def __init__(self, depth: jax.Array, first: np.ndarray, step: np.ndarray):
    self.depth = depth
    self.first = first
    self.step = step


def depth_maps(
  density: np.ndarray, grid: Grid, beamlets: Beamlets
) -> DepthMaps:
  """Traces each beam through the patient.

  Beyond the first and last slice the patient is taken to go on unchanged;
  beyond the grid's sides there is air.

  Args:
    density: `[X, Y, Z]` electron density relative to water.
    grid: the density's grid.
    beamlets: beams and isocentre.

  Returns:
    Depths on a grid that covers the field of view from every angle.
  """
  sad = beamlets.sad_mm
  shift = np.maximum(np.abs(beamlets.isocentre), _ROOM_MM)
  reach = _multiple(np.hypot(*(grid.half_extent + shift)[:2]), 25)
  reach = min(reach, 0.9 * sad)
  widest_x = _multiple(reach * sad / (sad - reach) * 0.8, 30)
  widest_z = _multiple((grid.half_extent + shift)[2] * sad / (sad - reach), 30)
  half = np.array([reach, widest_x, widest_z])
  step = np.array([_STEP_T_MM, _STEP_X_MM, _STEP_Z_MM])
  count = (2 * np.ceil(half / step) + 1).astype(int)
  first = -(count - 1) / 2 * step + np.array([sad, 0, 0])
  across, along = beam_axes(beamlets.angles)
  depth = _trace(
    jnp.asarray(density, jnp.float32),
    jnp.asarray(across, jnp.float32),
    jnp.asarray(along, jnp.float32),
    jnp.asarray(beamlets.isocentre - grid.first_centre, jnp.float32),
    jnp.asarray(grid.spacing_mm, jnp.float32),
    jnp.asarray(first, jnp.float32),
    shape=tuple(count.tolist()),
    sad=sad,
  )
  return DepthMaps(depth, first, step)


def _multiple(length: float, of: float) -> float:
  return float(np.ceil(length / of) * of)


@functools.partial(jax.jit, static_argnames=('shape', 'sad'))
def _trace(density, across, along, isocentre, spacing, first, *, shape, sad):
  steps = (_STEP_T_MM, _STEP_X_MM, _STEP_Z_MM)
  t, x, z = (
    first[k] + jnp.arange(shape[k], dtype=jnp.float32) * steps[k]
    for k in range(3)
  )
  nz = density.shape[2]
  t, x, z = t[:, None, None], x[None, :, None], z[None, None, :]
  # A step of t is longer along an oblique ray.
  path = steps[0] * jnp.sqrt(1 + (x / sad) ** 2 + (z / sad) ** 2)

  def one(axes):
    ex, ey = axes
    u, v = x * t / sad, t - sad
    i = (u * ex[0] + v * ey[0] + isocentre[0]) / spacing[0]
    j = (u * ex[1] + v * ey[1] + isocentre[1]) / spacing[1]
    # The beams are coplanar: a ray's place in the slices does not depend on
    # Z, nor the slices that it meets on X.
    columns = _in_slices(density, i[..., 0], j[..., 0])
    k = jnp.clip((z * t / sad + isocentre[2]) / spacing[2], 0, nz - 1)[:, 0]
    between = _hat(k[:, None, :] - jnp.arange(nz)[:, None])
    sampled = jnp.einsum('txk,tkz->txz', columns, between)
    # Up to the midpoint of each cell: the cells before it, and half of it.
    return (jnp.cumsum(sampled, axis=0) - sampled / 2) * path

  return jax.lax.map(one, (across, along))


def _in_slices(density, i, j):
  """`[T, X, Z]`, linear between the columns round `[T, X]` indices i, j."""
  nx, ny, _ = density.shape
  low_i, low_j = jnp.floor(i).astype(jnp.int32), jnp.floor(j).astype(jnp.int32)
  total = 0.0
  for di in (0, 1):
    for dj in (0, 1):
      at_i, at_j = low_i + di, low_j + dj
      inside = (at_i >= 0) & (at_i < nx) & (at_j >= 0) & (at_j < ny)
      share = jnp.where(inside, _hat(i - at_i) * _hat(j - at_j), 0)
      column = density[at_i.clip(0, nx - 1), at_j.clip(0, ny - 1)]
      total += share[..., None] * column
  return total


def _hat(distance):
  """Share of a node in the linear interpolation at a distance from it."""
  return jnp.maximum(1 - jnp.abs(distance), 0)
