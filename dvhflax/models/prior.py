"""A first guess of where dose goes, from the anatomy: its order gives ranks.

Only the order of voxels within a structure matters, see `matching.py`. The
guess is a weighted sum of fields that need no training: the target blurred over
several distances, and what open beams give.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Distances of the blurs, standard deviations of Gaussians in mm: from the edge
# of the target to the whole pelvis.
BLURS_MM = (6.0, 15.0, 40.0, 120.0)
# Of the open fields, whose edges are sharper than a beam's.
PENUMBRA_MM = 6.0
# GPUs would round the factors of a product to 10 bits, and change ranks.
_EXACT = jax.lax.Precision.HIGHEST


def blurred(
  x: jax.Array, spacing_mm: jax.Array, deviation_mm: float
) -> jax.Array:
  """Gaussian blur of `[B, X, Y, Z]`; nothing comes in from outside.

  Args:
    x: field.
    spacing_mm: `[B, 3]` voxel size.
    deviation_mm: standard deviation.
  """

  def one(x: jax.Array, *weights: jax.Array) -> jax.Array:
    # In this order and with these sides XLA copies least.
    along_x, along_y, along_z = weights
    x = jnp.einsum('nx,xyz->nyz', along_x, x, precision=_EXACT)
    x = jnp.einsum('ny,xyz->xnz', along_y, x, precision=_EXACT)
    return jnp.einsum('xyz,nz->xyn', x, along_z, precision=_EXACT)

  weights = [
    blur_weights(x.shape[1 + axis], spacing_mm[:, axis], deviation_mm)
    for axis in range(3)
  ]
  return jax.vmap(one)(x, *weights)


def blur_weights(
  voxels: int, step_mm: jax.Array, deviation_mm: float
) -> jax.Array:
  """`[B, n, n]` weights of a blur along an axis of n voxels, `[B]` mm apart."""
  steps = jnp.arange(voxels, dtype=jnp.float32)
  apart = (steps[:, None] - steps) * step_mm[:, None, None]
  weights = jnp.exp(-0.5 * jnp.square(apart / deviation_mm))
  return weights / weights.sum(-1).max(-1)[:, None, None]


def target_sets(targets: Sequence[int]) -> list[tuple[int, ...]]:
  """Channels that are blurred together: all targets, then each of several."""
  each = [(t,) for t in targets] if len(targets) > 1 else []
  return [tuple(targets), *each]


def prior_fields(
  masks: jax.Array,
  targets: Sequence[int],
  spacing_mm: jax.Array,
  open_fields: jax.Array | None,
) -> jax.Array:
  """The fields that a prior is a weighted sum of.

  Args:
    masks: `[B, X, Y, Z, S]`, 0 or 1.
    targets: channels of the targets.
    spacing_mm: `[B, 3]` voxel size.
    open_fields: `[B, X, Y, Z]` of `open_fields.py`; None: without beams.

  Returns:
    `[B, X, Y, Z, F]`, each at most 1: all targets together blurred by each of
    `BLURS_MM`; where there are several targets the same of each; the open
    fields.
  """
  fields = []
  for chosen in target_sets(targets):
    inside = (masks[..., list(chosen)] != 0).any(-1).astype(jnp.float32)
    fields += [blurred(inside, spacing_mm, mm) for mm in BLURS_MM]
  if open_fields is not None:
    fields.append(blurred(open_fields, spacing_mm, PENUMBRA_MM))
  return jnp.stack([_over_largest(field) for field in fields], -1)


def _over_largest(field: jax.Array) -> jax.Array:
  largest = field.max((1, 2, 3), keepdims=True)
  return field / jnp.where(largest > 0, largest, 1)
