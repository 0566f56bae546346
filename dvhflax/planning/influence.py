"""Dose influence: what a unit of each beamlet's fluence gives each voxel.

  D[v, j] = (SAD / |p - source|)^2 sum_k w_k(depth) G_k(X - x_j) G_k(Z - z_j)

with G_k the integral of a Gaussian over the beamlet's width. The optimiser
gets dense rows of D. The dose of solved fluences in every voxel needs no D:
each plan's fluence is blurred by each Gaussian once, on a fine grid in the
isocentre's plane, and looked up.
"""

from collections.abc import Iterator
import functools

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jax.scipy.special import erf
import numpy as np

from dvhflax import native
from dvhflax.planning.beams import Beamlets, beam_axes, project
from dvhflax.planning.kernel import gaussian_kernel
from dvhflax.planning.raytrace import DepthMaps

# Voxels at once: one shape for every patient, and it stays in cache.
CHUNK = 2048
# Grid of the blurred fluences. Linear look-up errs by at most h^2/8 times the
# second derivative, below 0.5% of the narrowest Gaussian (2.12 mm).
_FINE_MM = 0.75
_MARGIN_MM = 3 * _FINE_MM


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
    """Dose of `[N, M]` fluences in `[V, 3]` points, `[N, V]` float32."""
    beams = self.beamlets
    _, x, z = project(points - beams.isocentre, beams.angles, beams.sad_mm)
    half = [np.ceil(np.abs(u).max() / 24) * 24 + _MARGIN_MM for u in (x, z)]
    fine = [np.arange(-h, h + _FINE_MM, _FINE_MM) for h in half]
    arguments = dict(self._arguments)
    edges = [arguments.pop('edges_x'), arguments.pop('edges_z')]
    # A place more for the padding's -1 to go to.
    size = self.beamlets.open.size
    lattice = jnp.zeros((len(fluence), size + 1))
    lattice = lattice.at[:, arguments.pop('active')].set(fluence)
    maps = lattice[:, :-1].reshape(len(fluence), *self.beamlets.open.shape)
    dose = np.zeros((len(fluence), len(points)), np.float32)
    compiled = jax.default_backend() == 'cpu' and bool(native.available())
    for beam in range(len(beams.angles)):
      blurred = _blur(
        maps[:, beam],
        *[jnp.asarray(f, jnp.float32) for f in fine],
        *edges,
        arguments['sigma'],
      )
      for rows, chunk in self._chunks(points):
        part = _look_up(
          chunk, blurred, beam, half[0], half[1], compiled=compiled,
          **arguments, **self._static,
        )  # fmt: skip
        dose[:, rows] += np.asarray(part)[: rows.stop - rows.start].T
    return dose


def _profiles(position, edges, sigma):
  """`[V, K, I]` share of a Gaussian round each position in each beamlet."""
  # One erf an edge: the integral over a beamlet is a difference of two.
  reach = (edges - position[:, None])[:, None, :] / sigma[:, None]
  return jnp.diff(erf(reach / np.sqrt(2)), axis=-1) / 2


def _geometry(points, ex, ey, depth, first, step, weights, sad, depth_step):
  """X, Z and the weights `[V, K]`, inverse square included, of one beam."""
  t = sad + points[:, :2] @ ey
  x = (points[:, :2] @ ex) * sad / t
  z = points[:, 2] * sad / t
  place = [(u - first[i]) / step[i] for i, u in enumerate((t, x, z))]
  radiological = map_coordinates(depth, place, order=1, mode='nearest')
  row = jnp.clip(radiological / depth_step, 0, len(weights) - 1.001)
  low = row.astype(jnp.int32)
  share = (row - low)[:, None]
  w = weights[low] * (1 - share) + weights[low + 1] * share
  # |p - source|^2 = t^2 (1 + (X^2 + Z^2) / SAD^2).
  inverse_square = (sad / t) ** 2 / (1 + (x**2 + z**2) / sad**2)
  return x, z, w * inverse_square[:, None]


_STATIC = ('sad', 'depth_step')


@functools.partial(jax.jit, static_argnames=_STATIC)
def _rows(
  points, *, depth, first, step, across, along, edges_x, edges_z, active,
  weights, sigma, sad, depth_step,
):  # fmt: skip
  def one(beam):
    x, z, w = _geometry(
      points, across[beam], along[beam], depth[beam], first, step, weights,
      sad, depth_step,
    )  # fmt: skip
    in_x = _profiles(x, edges_x, sigma) * w[..., None]
    in_z = _profiles(z, edges_z, sigma)
    # Else XLA computes the profiles anew for every beamlet.
    in_x, in_z = jax.lax.optimization_barrier((in_x, in_z))
    # A sum of outer products: XLA's small batched products are slower.
    return sum(
      in_x[:, k, :, None] * in_z[:, k, None, :] for k in range(len(sigma))
    )

  lattice = jax.lax.map(one, jnp.arange(depth.shape[0]))
  flat = jnp.moveaxis(lattice, 0, 1).reshape(len(points), -1)
  return jnp.where(active >= 0, jnp.take(flat, active, axis=1), 0)


@jax.jit
def _blur(fluence, fine_x, fine_z, edges_x, edges_z, sigma):
  """`[U, W, K, N]` of `[N, I, J]` fluences of one beam."""
  in_x = _profiles(fine_x, edges_x, sigma)
  in_z = _profiles(fine_z, edges_z, sigma)
  half = jnp.einsum('uki,nij->kunj', in_x, fluence)
  return jnp.einsum('kunj,wkj->uwkn', half, in_z)


@functools.partial(jax.jit, static_argnames=(*_STATIC, 'compiled'))
def _look_up(
  points, blurred, beam, half_x, half_z, *, depth, first, step, across, along,
  weights, sigma, sad, depth_step, compiled,
):  # fmt: skip
  """`[V, N]` dose of one beam."""
  x, z, w = _geometry(
    points, across[beam], along[beam], depth[beam], first, step, weights,
    sad, depth_step,
  )  # fmt: skip
  u, v = (x + half_x) / _FINE_MM, (z + half_z) / _FINE_MM
  i, j = u.astype(jnp.int32), v.astype(jnp.int32)
  a, b = u - i, v - j
  shares = ((1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b)
  width = blurred.shape[1]
  table = blurred.reshape(-1, *blurred.shape[2:])
  row = i * width + j
  if compiled:
    return jax.ffi.ffi_call(
      native.target('look_up'),
      jax.ShapeDtypeStruct((len(points), table.shape[-1]), jnp.float32),
    )(table, row, jnp.stack(shares, -1), w, across=width)
  value = sum(
    table[row + offset] * share[:, None, None]
    for offset, share in zip((0, 1, width, width + 1), shares)
  )
  return (value * w[..., None]).sum(1)
