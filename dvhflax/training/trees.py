"""The arrays of a tree, by their names in checkpoints and messages."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def named(tree: Any) -> Iterator[tuple[str, Any]]:
  """`params/encoder_0_a/kernel` and its leaf, whatever the containers."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    keys = [
      getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k))) for k in path
    ]
    yield '/'.join(map(str, keys)), leaf


def first_not_finite(tree: Any) -> str | None:
  """Name of the first array with a value that is not finite, None if none."""
  for name, leaf in named(tree):
    leaf = np.asarray(leaf)
    # JAX's, since bfloat16 is no subtype of NumPy's.
    if jnp.issubdtype(leaf.dtype, jnp.inexact) and not np.isfinite(leaf).all():
      return name
  return None
