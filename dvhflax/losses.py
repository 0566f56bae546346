"""The training loss: equation (5), and what may be added to it."""

import jax
import jax.numpy as jnp


def squared_error(predicted: jax.Array, dose: jax.Array) -> jax.Array:
  """Mean squared error of each sample's dose.

  The inner norm of equation (5) of Ma et al. 2021, over the voxels of one
  sample; the mean over a batch is the loss.

  Args:
    predicted: `[B, X, Y, Z]` dose in fractions of the reference dose.
    dose: `[B, X, Y, Z]` label, of any float type.

  Returns:
    `[B]` float32.
  """
  error = predicted.astype(jnp.float32) - dose.astype(jnp.float32)
  return jnp.mean(jnp.square(error), axis=(1, 2, 3))


def structure_squared_error(
  predicted: jax.Array, dose: jax.Array, masks: jax.Array
) -> jax.Array:
  """Squared error averaged within each structure, then over structures.

  Over the whole grid, equation (5), a rectum is less than 1% of the voxels
  and what a wish changes in it is lost among the rest; here it counts as much
  as the body.

  Args:
    predicted: `[B, X, Y, Z]`.
    dose: `[B, X, Y, Z]`.
    masks: `[B, X, Y, Z, S]`; an empty one does not count.

  Returns:
    `[B]`.
  """
  squares = jnp.square(predicted - dose)
  masks = masks.astype(squares.dtype)
  voxels = masks.sum((1, 2, 3))
  sums = jnp.einsum('bxyz,bxyzs->bs', squares, masks)
  means = sums / jnp.maximum(voxels, 1)
  return means.sum(1) / jnp.maximum((voxels > 0).sum(1), 1)


def dose_loss(
  predicted: jax.Array,
  dose: jax.Array,
  masks: jax.Array,
  structure_weight: float = 0.0,
) -> jax.Array:
  """`[B]`: equation (5) plus the weighted error within structures."""
  loss = squared_error(predicted, dose)
  if structure_weight:
    loss += structure_weight * structure_squared_error(predicted, dose, masks)
  return loss
