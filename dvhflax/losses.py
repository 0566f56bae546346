"""The training loss: equation (5)."""

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
