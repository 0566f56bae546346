"""The training loss: equation (5), and what may be added to it."""

from collections.abc import Callable
from typing import NamedTuple

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


def max_dose_squared_error(
  predicted: jax.Array, dose: jax.Array, masks: jax.Array
) -> jax.Array:
  """Squared error of each structure's maximum dose, averaged over structures.

  Its gradient is of one voxel a structure, the hottest of the prediction: noise
  that stands out there is what spoils a maximum.

  Args:
    predicted: `[B, X, Y, Z]`.
    dose: `[B, X, Y, Z]`, nowhere negative.
    masks: `[B, X, Y, Z, S]`; an empty one does not count.

  Returns:
    `[B]`.
  """

  inside = masks != 0
  errors = _structure_maxima(predicted, inside) - _structure_maxima(
    dose.astype(predicted.dtype), inside
  )
  return _mean_over(jnp.square(errors), inside.any((1, 2, 3)))


def gradient_squared_error(
  predicted: jax.Array, dose: jax.Array, masks: jax.Array
) -> jax.Array:
  """Squared error of the dose's difference from each voxel to the next.

  An error that alternates from voxel to voxel is small in equation (5), but no
  beam delivers it; here it counts four times, one that is smooth hardly.

  Args:
    predicted: `[B, X, Y, Z]`.
    dose: `[B, X, Y, Z]`.
    masks: `[B, X, Y, Z, S]`; pairs of voxels that lie in structures count.

  Returns:
    `[B]`, the mean over pairs along an axis, averaged over the axes.
  """
  error = predicted - dose
  inside = masks.any(-1)
  means = []
  for axis in (1, 2, 3):
    pairs = jnp.logical_and(*_neighbours(inside, axis))
    here, there = _neighbours(error, axis)
    steps = jnp.where(pairs, there - here, 0)
    count = jnp.maximum(pairs.sum((1, 2, 3)), 1)
    means.append(jnp.square(steps).sum((1, 2, 3)) / count)
  return jnp.mean(jnp.stack(means), axis=0)


class Loss(NamedTuple):
  """A loss and its terms, each without its weight; `[B]`, or sums of these."""

  total: jax.Array
  terms: dict[str, jax.Array]


# What may be added to equation (5): `loss.NAME_weight` is the weight of each.
TERMS: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
  'structure': structure_squared_error,
  'mean_dose': mean_dose_squared_error,
  'max_dose': max_dose_squared_error,
  'gradient': gradient_squared_error,
}


def dose_loss(
  predicted: jax.Array, dose: jax.Array, masks: jax.Array, **weights: float
) -> Loss:
  """Equation (5), the term `voxel`, plus the weighted others.

  Args:
    predicted: `[B, X, Y, Z]` dose in fractions of the reference dose.
    dose: `[B, X, Y, Z]` label.
    masks: `[B, X, Y, Z, S]`; an empty one does not count.
    **weights: `NAME_weight` of `TERMS`; a term of weight 0 is not computed.

  Returns:
    The total and the terms, `[B]`.
  """
  total = squared_error(predicted, dose)
  terms = {'voxel': total}
  for name, term in TERMS.items():
    if weight := weights.get(f'{name}_weight'):
      terms[name] = term(predicted, dose, masks)
      total += weight * terms[name]
  return Loss(total, terms)


def _neighbours(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """All voxels but the last along an axis, and the one after each."""
  last = x.shape[axis] - 1
  return (
    jax.lax.slice_in_dim(x, 0, last, axis=axis),
    jax.lax.slice_in_dim(x, 1, last + 1, axis=axis),
  )


def _structure_means(
  values: jax.Array, masks: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Mean of `values [B, X, Y, Z]` within each mask, `[B, S]`; which exist."""
  masks = masks.astype(values.dtype)
  voxels = masks.sum((1, 2, 3))
  sums = jnp.einsum('bxyz,bxyzs->bs', values, masks)
  return sums / jnp.maximum(voxels, 1), voxels > 0


def _structure_maxima(values: jax.Array, inside: jax.Array) -> jax.Array:
  """`[B, S]`, at least 0, of `[B, X, Y, Z]` within `[B, X, Y, Z, S]`.

  First the line along z that has each is found, which needs no gradient, then
  it is read off that line: the gradient of a maximum over all voxels is twice
  as dear.
  """
  batch, nx, ny, nz, structures = inside.shape
  lines = jnp.where(inside, jax.lax.stop_gradient(values)[..., None], -jnp.inf)
  best = lines.max(3).reshape(batch, nx * ny, structures).argmax(1)
  of_line = jnp.take_along_axis(
    values.reshape(batch, nx * ny, nz), best[..., None], axis=1
  )
  within = jnp.take_along_axis(
    inside.reshape(batch, nx * ny, nz, structures), best[:, None, None], axis=1
  )[:, 0]
  return jnp.max(of_line, -1, where=jnp.swapaxes(within, 1, 2), initial=0)


def _mean_over(values: jax.Array, present: jax.Array) -> jax.Array:
  return values.sum(1) / jnp.maximum(present.sum(1), 1)
