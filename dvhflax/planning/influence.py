"""Dose influence: what a unit of each beamlet's fluence gives each voxel.

  D[v, j] = (SAD / |p - source|)^2 sum_k w_k(depth) G_k(X - x_j) G_k(Z - z_j)

with G_k the integral of a Gaussian over the beamlet's width.
"""

from collections.abc import Iterator
import functools

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jax.scipy.special import erf
import numpy as np

from dvhflax.planning.beams import beam_axes, Beamlets
from dvhflax.planning.kernel import gaussian_kernel
from dvhflax.planning.raytrace import DepthMaps

# Voxels at once: one shape for every patient, and it stays in cache.
CHUNK = 4096


class Influence:
  """Rows of the dose-influence matrix of one patient's beams."""

  def __init__(self, beamlets: Beamlets, maps: DepthMaps):
    """Args: as `beams.open_beamlets` and `raytrace.depth_maps` give them."""
    kernel = gaussian_kernel()
    across, along = beam_axes(beamlets.angles)
    self.beamlets = beamlets
    self._arguments = {
      'depth': maps.depth,
      'first': jnp.asarray(maps.first, jnp.float32),
      'step': jnp.asarray(maps.step, jnp.float32),
      'across': jnp.asarray(across, jnp.float32),
      'along': jnp.asarray(along, jnp.float32),
      'edges_x': jnp.asarray(beamlets.edges(0), jnp.float32),
      'edges_z': jnp.asarray(beamlets.edges(1), jnp.float32),
      'active': jnp.asarray(beamlets.active),
      'weights': jnp.asarray(kernel.weights),
      'sigma': jnp.asarray(kernel.sigma_mm),
    }
    self._static = {
      'sad': float(beamlets.sad_mm),
      'depth_step': float(kernel.depth_step_mm),
    }

  def _chunks(self, points: np.ndarray) -> Iterator[tuple[slice, jax.Array]]:
    local = (points - self.beamlets.isocentre).astype(np.float32)
    for start in range(0, len(local), CHUNK):
      chunk = local[start : start + CHUNK]
      padding = ((0, CHUNK - len(chunk)), (0, 0))
      yield slice(start, start + len(chunk)), jnp.pad(chunk, padding)

  def rows(self, points: np.ndarray) -> jax.Array:
    """Dense rows.

    Args:
      points: `[V, 3]` mm in the grid's coordinates.

    Returns:
      `[W, M]` float32, W the next multiple of CHUNK; the rows that were added
      and the columns of padded beamlets are 0.
    """
    parts = []
    for rows, chunk in self._chunks(points):
      part = _rows(chunk, **self._arguments, **self._static)
      real = jnp.arange(CHUNK) < rows.stop - rows.start
      parts.append(jnp.where(real[:, None], part, 0))
    return jnp.concatenate(parts)

  def dose(self, points: np.ndarray, fluence: jax.Array) -> np.ndarray:
    """Dose of `[N, M]` fluences in `[V, 3]` points, `[N, V]` float32.

    The rows are made chunk by chunk and never kept.
    """
    dose = np.empty((len(fluence), len(points)), np.float32)
    for rows, chunk in self._chunks(points):
      part = _dose(chunk, fluence, **self._arguments, **self._static)
      dose[:, rows] = np.asarray(part)[:, : rows.stop - rows.start]
    return dose


def _matrix(
  points, *, depth, first, step, across, along, edges_x, edges_z, active,
  weights, sigma, sad, depth_step,
):  # fmt: skip
  beams, width = depth.shape[0], np.sqrt(2)

  def profiles(position, edges):
    # One erf an edge: the integral over a beamlet is a difference of two.
    reach = (edges - position[:, None])[:, None, :] / (width * sigma[:, None])
    return jnp.diff(erf(reach), axis=-1) / 2

  def one(beam):
    ex, ey = across[beam], along[beam]
    t = sad + points[:, :2] @ ey
    x = (points[:, :2] @ ex) * sad / t
    z = points[:, 2] * sad / t
    place = [(u - first[i]) / step[i] for i, u in enumerate((t, x, z))]
    radiological = map_coordinates(depth[beam], place, order=1, mode='nearest')
    row = jnp.clip(radiological / depth_step, 0, len(weights) - 1.001)
    low = row.astype(jnp.int32)
    share = (row - low)[:, None]
    w = weights[low] * (1 - share) + weights[low + 1] * share
    # |p - source|^2 = t^2 (1 + (X^2 + Z^2) / SAD^2).
    inverse_square = (sad / t) ** 2 / (1 + (x**2 + z**2) / sad**2)
    along_x = profiles(x, edges_x) * (w * inverse_square[:, None])[..., None]
    return jnp.einsum('vki,vkj->vij', along_x, profiles(z, edges_z))

  lattice = jax.lax.map(one, jnp.arange(beams))
  flat = jnp.moveaxis(lattice, 0, 1).reshape(len(points), -1)
  return jnp.where(active >= 0, jnp.take(flat, active, axis=1), 0)


_STATIC = ('sad', 'depth_step')
_rows = functools.partial(jax.jit, static_argnames=_STATIC)(_matrix)


@functools.partial(jax.jit, static_argnames=_STATIC)
def _dose(points, fluence, **beams):
  return jnp.einsum('pb,vb->pv', fluence, _matrix(points, **beams))
