"""Voxels as channels and back, and means over windows; `[B, X, Y, Z, C]`."""

import jax


def space_to_depth(x: jax.Array, patch: int) -> jax.Array:
  """Takes `patch`^3 voxels together as channels.

  Args:
    x: `[B, X, Y, Z, C]`, each axis a multiple of the patch.
    patch: voxels an axis; 1 returns `x`.

  Returns:
    `[B, X/p, Y/p, Z/p, p^3 C]`.
  """
  if patch == 1:
    return x
  b, nx, ny, nz, c = x.shape
  p = patch
  x = x.reshape(b, nx // p, p, ny // p, p, nz // p, p, c)
  x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
  return x.reshape(b, nx // p, ny // p, nz // p, p**3 * c)


def depth_to_space(x: jax.Array, patch: int) -> jax.Array:
  """The inverse of `space_to_depth`."""
  if patch == 1:
    return x
  b, nx, ny, nz, c = x.shape
  p = patch
  x = x.reshape(b, nx, ny, nz, p, p, p, c // p**3)
  x = x.transpose(0, 1, 4, 2, 5, 3, 6, 7)
  return x.reshape(b, p * nx, p * ny, p * nz, c // p**3)


def mean_pool(x: jax.Array, window: tuple[int, int, int]) -> jax.Array:
  """Mean over windows."""
  b, nx, ny, nz, c = x.shape
  wx, wy, wz = window
  tiles = x.reshape(b, nx // wx, wx, ny // wy, wy, nz // wz, wz, c)
  return tiles.mean((2, 4, 6))
