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
  means, present = _structure_means(jnp.square(predicted - dose), masks)
  return _mean_over(means, present)


def mean_dose_squared_error(
  predicted: jax.Array, dose: jax.Array, masks: jax.Array
) -> jax.Array:
  """Squared error of each structure's mean dose, averaged over structures.

  What a wish asks of a structure moves its whole DVH; voxel by voxel that
  shift is small beside the errors of the dose's shape, and is learned last.

  Args:
    predicted: `[B, X, Y, Z]`.
    dose: `[B, X, Y, Z]`.
    masks: `[B, X, Y, Z, S]`; an empty one does not count.

  Returns:
    `[B]`.
  """
  means, present = _structure_means(predicted - dose, masks)
  return _mean_over(jnp.square(means), present)


def dose_loss(
  predicted: jax.Array,
  dose: jax.Array,
  masks: jax.Array,
  *,
  structure_weight: float = 0.0,
  mean_dose_weight: float = 0.0,
) -> jax.Array:
  """Equation (5) plus the weighted errors of the structures.

  Args:
    predicted: `[B, X, Y, Z]` dose in fractions of the reference dose.
    dose: `[B, X, Y, Z]` label.
    masks: `[B, X, Y, Z, S]`; an empty one does not count.
    structure_weight: of `structure_squared_error`.
    mean_dose_weight: of `mean_dose_squared_error`.

  Returns:
    `[B]`.
  """
  loss = squared_error(predicted, dose)
  if structure_weight:
    loss += structure_weight * structure_squared_error(predicted, dose, masks)
  if mean_dose_weight:
    loss += mean_dose_weight * mean_dose_squared_error(predicted, dose, masks)
  return loss


def _structure_means(
  values: jax.Array, masks: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Mean of `values [B, X, Y, Z]` within each mask, `[B, S]`; which exist."""
  masks = masks.astype(values.dtype)
  voxels = masks.sum((1, 2, 3))
  sums = jnp.einsum('bxyz,bxyzs->bs', values, masks)
  return sums / jnp.maximum(voxels, 1), voxels > 0


def _mean_over(values: jax.Array, present: jax.Array) -> jax.Array:
  return values.sum(1) / jnp.maximum(present.sum(1), 1)
