"""A dose without what alternates between voxels, which no beam delivers."""

import jax
import jax.numpy as jnp

# Weights of a voxel and its two neighbours along an axis.
KERNEL = (0.25, 0.5, 0.25)


def smoothed(dose: jax.Array, inside: jax.Array) -> jax.Array:
  """The dose's binomial mean over neighbours, 1 2 1 along each axis.

  Values that alternate between two voxels vanish, and with them the pattern of
  a network's cells of 2x2x2 voxels.

  Args:
    dose: `[B, X, Y, Z]`.
    inside: `[B, X, Y, Z]` bool, where it is smoothed; voxels elsewhere, and
      beyond the grid, do not take part: the dose ends at the skin.

  Returns:
    `[B, X, Y, Z]`, elsewhere as it was.
  """
  taking_part = inside.astype(dose.dtype)
  total = _binomial(jnp.where(inside, dose, 0))
  share = _binomial(taking_part)
  return jnp.where(inside, total / jnp.where(inside, share, 1), dose)


def _binomial(x: jax.Array) -> jax.Array:
  """The mean by `KERNEL` along each axis, beyond the grid zeros."""
  for axis in (1, 2, 3):
    size = x.shape[axis]
    padding = [(0, 0)] * x.ndim
    padding[axis] = (1, 1)
    wide = jnp.pad(x, padding)
    before, here, after = (
      weight * jax.lax.slice_in_dim(wide, i, i + size, axis=axis)
      for i, weight in enumerate(KERNEL)
    )
    x = before + here + after
  return x
