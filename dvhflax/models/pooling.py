"""Max pooling down to one voxel: the levels of the U-Net."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dvhflax import errors


def pooling_plan(grid: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
  """Max-pooling windows that take a grid to 1x1x1, halving axis by axis.

  Six windows of 2x2x2 and one of 2x2x1 for the paper's 128x128x64.

  Raises:
    ConfigError: if an axis is no power of two, or the grid has one voxel.
  """
  if len(grid) != 3 or any(n < 1 or n & (n - 1) for n in grid):
    raise errors.ConfigError(
      f'grid={tuple(grid)} cannot be halved down to 1x1x1: each of its three '
      'axes must be a power of two, such as (64, 64, 32)'
    )
  if max(grid) == 1:
    raise errors.ConfigError('grid=(1, 1, 1) has nothing to pool')
  plan = []
  nx, ny, nz = grid
  while max(nx, ny, nz) > 1:
    window = (min(nx, 2), min(ny, 2), min(nz, 2))
    nx, ny, nz = nx // window[0], ny // window[1], nz // window[2]
    plan.append(window)
  return tuple(plan)


def cells_of(grid: Sequence[int], patch: int) -> tuple[int, int, int]:
  """A grid's size in cells of `patch`^3 voxels.

  Raises:
    ConfigError: if it does not divide into cells.
  """
  if len(grid) != 3 or any(n % patch for n in grid):
    raise errors.ConfigError(
      f'grid={tuple(grid)} does not divide into cells of model.patch={patch} '
      'voxels an axis'
    )
  nx, ny, nz = grid
  return nx // patch, ny // patch, nz // patch


def max_pool(x: jax.Array, window: tuple[int, int, int]) -> jax.Array:
  """Largest value of each window of ones and twos; `[B, X, Y, Z, C]`.

  Pair by pair: XLA takes a maximum over axes, and its gradient, three times as
  long. Equal values share the gradient equally, as they do there.
  """
  b, nx, ny, nz, c = x.shape
  wx, wy, wz = window
  tiles = x.reshape(b, nx // wx, wx, ny // wy, wy, nz // wz, wz, c)
  values = [tiles[:, :, i, :, j, :, k] for i, j, k in np.ndindex(*window)]
  while len(values) > 1:
    values = [jnp.maximum(*pair) for pair in zip(values[::2], values[1::2])]
  return values[0]
