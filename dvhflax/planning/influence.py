"""Dose-influence matrix: dose to each voxel per unit fluence of each beamlet.

  D[v, j] = (SAD / |p - source|)^2 sum_k w_k(depth) G_k(X - x_j) G_k(Z - z_j)

with G_k the integral of a Gaussian over the beamlet's width. The optimiser
gets dense rows of D. The dose of solved fluences in every voxel needs no D:
each plan's fluence is blurred by each Gaussian once, on a fine grid in the
isocentre's plane, and looked up. Compiled, only the Gaussians' profiles are
looked up, and the fluence is summed with them for each column of voxels.
"""

from collections.abc import Callable, Iterator
from concurrent import futures
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jax.scipy.special import erf
import numpy as np

from dvhflax import native
from dvhflax.planning import memory
from dvhflax.planning.beams import Beamlets, beam_axes, project
from dvhflax.planning.kernel import gaussian_kernel
from dvhflax.planning.raytrace import DepthMaps

# Voxels at once: one shape for every patient, and it stays in cache.
CHUNK = 2048
# The same for the dose, and plans at once: their tables take memory. A compiled
# look-up needs none, and plans in multiples of the lanes of a vector register.
_POINTS, _PLANS, _PLANS_COMPILED, _LANES = 8192, 32, 128, 16
# Chunks at once.
_MOST_WORKERS = 8
# Grids of the fluences that are blurred by narrow and by wide Gaussians. Linear
# look-up errs by at most h^2/8 times the second derivative, below 0.5% of the
# narrowest (2.12 mm) and 1% of the narrowest wide one (11.2 mm).
_FINE_MM, _COARSE_MM, _WIDE_MM = 0.75, 3.0, 8.0


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

  def _chunks(
    self, points: np.ndarray, size: int
  ) -> Iterator[tuple[slice, np.ndarray]]:
    local = (points - self.beamlets.isocentre).astype(np.float32)
    for start in range(0, len(local), size):
      chunk = local[start : start + size]
      padding = ((0, size - len(chunk)), (0, 0))
      yield slice(start, start + len(chunk)), np.pad(chunk, padding)

  def rows(self, points: np.ndarray) -> np.ndarray:
    """Dense rows.

    Args:
      points: `[V, 3]` mm in the grid's coordinates.

    Returns:
      `[W, M]` float32, W the next power of two, so that patients share
      compiled programs; the rows that were added and the columns of padded
      beamlets are 0. JAX need not copy it (`memory.hand_over`).
    """
    size = max(CHUNK, 1 << (len(points) - 1).bit_length())
    matrix = memory.zeros((size, len(self.beamlets.active)))

    arguments = dict(self._arguments)
    active = arguments.pop('active')

    def fill(rows, chunk):
      lattice = _lattice(chunk, **arguments, **self._static)
      part = _open_beamlets(lattice, active)
      matrix[rows] = np.asarray(part)[: rows.stop - rows.start]

    _side_by_side(fill, self._chunks(points, CHUNK))
    return matrix

  def dose(self, points: np.ndarray, fluence: jax.Array) -> np.ndarray:
    """Dose of `[N, M]` fluences in `[V, 3]` points, `[N, V]` float32."""
    dose = np.zeros((len(fluence), len(points)), np.float32)
    self.write_dose(dose, np.arange(len(points)), points, fluence)
    return dose

  def write_dose(
    self,
    dose: np.ndarray,
    places: np.ndarray,
    points: np.ndarray,
    fluence: jax.Array,
  ) -> None:
    """Writes the dose of `[N, M]` fluences in `[V, 3]` points.

    Points in the order of a grid are fastest: those that differ in z alone
    share a part of the sums.

    Args:
      dose: `[N, P]`, written to.
      places: `[V]` where each point's dose goes.
      points: mm in the grid's coordinates.
      fluence: of N plans.
    """
    compiled = jax.default_backend() == 'cpu' and bool(native.available())
    most = _PLANS_COMPILED if compiled else _PLANS
    for first in range(0, len(fluence), most):
      group = slice(first, first + most)
      self._write_dose(dose[group], places, points, fluence[group], compiled)

  def _write_dose(self, dose, places, points, fluence, compiled) -> None:
    beams, plans = self.beamlets, len(fluence)
    arguments = dict(self._arguments)
    edges = [arguments.pop('edges_x'), arguments.pop('edges_z')]
    sigma = np.asarray(arguments.pop('sigma'))
    # A place more for the padding's -1 to go to.
    lattice = np.zeros((-(-plans // _LANES) * _LANES, beams.open.size + 1))
    lattice[:plans, arguments.pop('active')] = fluence
    maps = lattice[:, :-1].reshape(-1, *beams.open.shape).astype(np.float32)
    narrow = int(np.sum(sigma < _WIDE_MM))
    reach = [float(e[-1]) + 4 * sigma[narrow - 1] for e in edges]
    _, x, z = project(points - beams.isocentre, beams.angles, beams.sad_mm)
    field = [float(np.abs(u).max()) for u in (x, z)]
    tables = []
    for step, half, part in (
      (_FINE_MM, reach, slice(narrow)),
      (_COARSE_MM, field, slice(narrow, None)),
    ):
      # In multiples of this, so that patients share compiled programs.
      nodes = [np.ceil(h / (32 * step)) * 32 + 1 for h in half]
      across = [np.float32(np.arange(-n, n + 1) * step) for n in nodes]
      if compiled:
        tables += [_profiles(*of, sigma[part]) for of in zip(across, edges)]
        continue
      blurred = [
        _blur(maps[:, beam], *across, *edges, sigma[part])
        for beam in range(len(beams.angles))
      ]
      tables.append(jnp.stack(blurred))
    if compiled:
      look_up = _look_up_profiles
      tables.append(jnp.asarray(np.moveaxis(maps, 0, -1)))
    else:
      look_up = _look_up

    def fill(rows, chunk):
      part = look_up(chunk, tables, **arguments, **self._static)
      inside = places[rows]
      # Plan by plan: much faster than all at once.
      for plan, values in zip(dose, np.asarray(part)):
        plan[inside] = values[: len(inside)]

    _side_by_side(fill, self._chunks(points, _POINTS))


def _side_by_side(fill: Callable[..., None], chunks: Iterator[Any]) -> None:
  """Calls `fill` with every chunk; XLA alone keeps one core busy with one."""
  workers = min(os.cpu_count() or 1, _MOST_WORKERS)
  with futures.ThreadPoolExecutor(workers) as pool:
    for done in [pool.submit(fill, *chunk) for chunk in chunks]:
      done.result()


@jax.jit
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
def _lattice(
  points, *, depth, first, step, across, along, edges_x, edges_z, weights,
  sigma, sad, depth_step,
):  # fmt: skip
  """`[B, V, I, J]` dose of all beamlets, open or not."""

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

  return jax.lax.map(one, jnp.arange(depth.shape[0]))


@jax.jit
def _open_beamlets(lattice, active):
  """`[V, M]` of `[B, V, I, J]`; a program of its own: together with `_lattice`
  XLA takes half as long again."""
  flat = jnp.moveaxis(lattice, 0, 1)
  flat = flat.reshape(len(flat), -1)
  return jnp.where(active >= 0, jnp.take(flat, active, axis=1), 0)


@jax.jit
def _blur(fluence, fine_x, fine_z, edges_x, edges_z, sigma):
  """`[U, W, K, N]` of `[N, I, J]` fluences of one beam."""
  in_x = _profiles(fine_x, edges_x, sigma)
  in_z = _profiles(fine_z, edges_z, sigma)
  half = jnp.einsum('uki,nij->kunj', in_x, fluence)
  return jnp.einsum('kunj,wkj->uwkn', half, in_z)


@functools.partial(jax.jit, static_argnames=_STATIC)
def _look_up_profiles(
  points, tables, *, depth, first, step, across, along, weights, sad,
  depth_step,
):  # fmt: skip
  """`[N, V]` dose of all beams, from profiles and `[B, I, J, N]` fluences."""

  def one(beam):
    return _geometry(
      points, across[beam], along[beam], depth[beam], first, step, weights,
      sad, depth_step,
    )  # fmt: skip

  x, z, w = jax.lax.map(one, jnp.arange(len(across)))
  *profiles, fluence = tables
  return jax.ffi.ffi_call(
    native.target('look_up'),
    jax.ShapeDtypeStruct((fluence.shape[-1], len(points)), jnp.float32),
  )(
    fluence, x, z, w, *profiles,
    narrow_mm=np.float32(_FINE_MM), wide_mm=np.float32(_COARSE_MM),
  )  # fmt: skip


@functools.partial(jax.jit, static_argnames=_STATIC)
def _look_up(
  points, tables, *, depth, first, step, across, along, weights, sad,
  depth_step,
):  # fmt: skip
  """`[N, V]` dose of all beams, from two `[B, U, W, K, N]` tables."""
  narrow = tables[0].shape[3]

  # A loop: unrolled it would take seconds to compile.
  def add_beam(beam, dose):
    x, z, w = _geometry(
      points, across[beam], along[beam], depth[beam], first, step, weights,
      sad, depth_step,
    )  # fmt: skip
    for spacing, table, part in (
      (_FINE_MM, tables[0], w[:, :narrow]),
      (_COARSE_MM, tables[1], w[:, narrow:]),
    ):
      dose += _interpolate(table, beam, x / spacing, z / spacing, part)
    return dose

  start = jnp.zeros((len(points), tables[0].shape[-1]))
  return jax.lax.fori_loop(0, len(across), add_beam, start).T


def _interpolate(table, beam, x, z, weights):
  """`[V, N]`: a beam's values at x, z, summed over K with weights.

  Of a `[B, U, W, K, N]` table whose middle node lies at 0. Beyond its border
  its outermost values go on; there they vanish.
  """
  _, *size = table.shape[:3]
  (i, a), (j, b) = (_cell(u, n) for u, n in zip((x, z), size))
  shares = ((1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b)
  rows = table.reshape(-1, *table.shape[3:])
  row = (beam * size[0] + i) * size[1] + j
  value = sum(
    rows[row + offset] * share[:, None, None]
    for offset, share in zip((0, 1, size[1], size[1] + 1), shares)
  )
  return (value * weights[..., None]).sum(1)


def _cell(place, size):
  """The node below a place, from the middle node, and the share beyond it."""
  place = jnp.clip(place + size // 2, 0, size - 1.001)
  low = place.astype(jnp.int32)
  return low, place - low
