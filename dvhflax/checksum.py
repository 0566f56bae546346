"""Checksums of arrays: which weights, whose masks."""

import hashlib
from typing import Any

import jax
import numpy as np


def checksum(tree: Any) -> str:
  """SHA-256 of the names, types, shapes and values of a tree's arrays."""
  sha256 = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    leaf = np.asarray(leaf)
    head = f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n'
    sha256.update(head.encode())
    sha256.update(np.ascontiguousarray(leaf).tobytes())
  return sha256.hexdigest()
