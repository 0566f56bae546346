"""Batch and group normalisation, as one scale and shift of each channel.

A normalised, modulated and rectified layer is `relu(x * scale + shift)`: a
single pass over the voxels, and few in its gradient. flax's own layers, which
the tests compare with, normalise in several and take three times as long.
"""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Kind = Literal['batch', 'group']
# Scale and shift of each channel, `[B, F]` or `[1, F]`.
Affine = tuple[jax.Array, jax.Array]
# `mixed`: batch norm where it has enough values, see `SMALL_MAP`.
Norm = Literal['batch', 'group', 'mixed']

# A feature map of so many voxels gives a batch of a few samples too few values
# a channel: running statistics stray from those of the next batch.
SMALL_MAP = 64
GROUP_SIZE = 8
EPSILON = 1e-5
_MOMENTUM = 0.9


def kind_of(norm: Norm, voxels: int) -> Kind:
  """The normalisation of a feature map of so many voxels."""
  if norm != 'mixed':
    return norm
  return 'batch' if voxels > SMALL_MAP else 'group'


def group_size(channels: int) -> int:
  """Channels of a group: 8, or what divides them."""
  return math.gcd(GROUP_SIZE, channels)


def rectify(x: jax.Array, affine: Affine) -> jax.Array:
  """`relu(x * scale + shift)`, `[B, X, Y, Z, F]`, of x's type."""
  scale, shift = (a[:, None, None, None] for a in affine)
  return jax.nn.relu(x * scale + shift).astype(x.dtype)


class Normalisation(nn.Module):
  """What brings channels to mean `bias` and standard deviation `scale`.

  Attributes:
    channels: of the features.
    kind: `batch`, over the samples of a batch and all voxels, with running
      statistics in evaluation; `group`, over each sample's voxels and groups
      of 8 channels.
    axis_name: mapped axis that batch statistics are averaged over.
  """

  channels: int
  kind: Kind
  axis_name: str | None

  def setup(self):
    shape = (self.channels,)
    self.scale = self.param('scale', nn.initializers.ones, shape)
    self.bias = self.param('bias', nn.initializers.zeros, shape)
    if self.kind == 'batch':
      self.mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
      self.variance = self.variable('batch_stats', 'var', jnp.ones, shape)

  def __call__(self, x: jax.Array, *, train: bool) -> Affine:
    """Scale and shift of `[B, X, Y, Z, C]`, each `[B, C]` or `[1, C]`."""
    if self.kind == 'group':
      return self._affine(*_group_statistics(x))
    return self._affine(*self._of_batch(x)) if train else self.running()

  def running(self) -> Affine:
    """Scale and shift, `[1, C]`, by the running statistics of batch norm."""
    return self._affine(self.mean.value[None], self.variance.value[None])

  def _affine(self, mean, variance):
    scale = self.scale * jax.lax.rsqrt(variance + EPSILON)
    return scale, self.bias - mean * scale

  def _of_batch(self, x):
    x = x.astype(_wide(x.dtype))

    def average(values):
      local = values.mean((0, 1, 2, 3))
      if self.axis_name is None or self.is_initializing():
        return local
      return jax.lax.pmean(local, self.axis_name)

    # Not the mean of squares less the square of the mean: in float32 that
    # loses the variance of channels far from 0.
    mean = average(x)
    variance = average(jnp.square(x - mean))
    if not self.is_initializing():
      for running, now in ((self.mean, mean), (self.variance, variance)):
        running.value = _MOMENTUM * running.value + (1 - _MOMENTUM) * now
    return mean[None], variance[None]


def _group_statistics(x):
  batch, channels = x.shape[0], x.shape[-1]
  size = group_size(channels)
  groups = x.reshape(batch, -1, channels // size, size).astype(_wide(x.dtype))
  mean = groups.mean((1, 3))
  variance = jnp.square(groups - mean[:, None, :, None]).mean((1, 3))
  return jnp.repeat(mean, size, 1), jnp.repeat(variance, size, 1)


def _wide(dtype):
  """Statistics are in float32 at least."""
  return jnp.promote_types(dtype, jnp.float32)
