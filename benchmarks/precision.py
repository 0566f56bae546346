"""The precision of JAX's products on a GPU."""

import jax
import jax.numpy as jnp

_OF_FLOAT32 = {'float32': 'highest', 'tf32': 'tensorfloat32'}


def set_precision(name: str):
  """Sets how float32 products are computed from here on.

  Args:
    name: `float32`, `tf32` (rounded to 10 bits before) or `bfloat16`, which
      is a type of its own.

  Returns:
    The type to compute in.
  """
  if name == 'bfloat16':
    return jnp.bfloat16
  jax.config.update('jax_default_matmul_precision', _OF_FLOAT32[name])
  return jnp.float32
