"""One layer of the U-Net: convolution, normalisation, ReLU, dropout."""

import functools
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from dvhflax.models.convolution import (
  Convolution,
  convolve,
  convolve_upsampled,
)
from dvhflax.models.norm import Kind, Normalisation, rectify

# What is kept of a layer if its activations are not.
CONVOLVED = 'convolved'


class ConvLayer(nn.Module):
  """Convolution, normalisation, optional modulation, ReLU, dropout.

  A decoder's first layer meets the upsampled features of the level below and
  the encoder's copy. A convolution of both is the sum of one of each; that of
  the copy, `skip`, does not depend on the wish.

  Attributes:
    channels: input channels.
    features: output channels.
    kernel_size: 3 or 1.
    dropout: rate.
    norm: `batch` (synchronised over `axis_name`) or `group`.
    modulated: whether a wish scales and shifts the normalised features.
    convolution: form of the convolution.
    axis_name: mapped axis of the devices, None outside of one.
    dtype: of the computation; normalisation is in float32.
    skip_channels: those of the input that are the encoder's copy, the last.
  """

  channels: int
  features: int
  kernel_size: int
  dropout: float
  norm: Kind
  modulated: bool
  convolution: Convolution
  axis_name: str | None
  dtype: Any
  skip_channels: int = 0

  def setup(self):
    self.kernel = self.param(
      'kernel',
      nn.initializers.he_normal(),
      (self.kernel_size,) * 3 + (self.channels, self.features),
    )
    self.bias = self.param('bias', nn.initializers.zeros, (self.features,))
    self.normalisation = Normalisation(
      self.features, self.norm, self.axis_name, name='norm'
    )
    if self.modulated:
      # Zero at the start: the network begins as if it were unconditioned.
      self.modulation = nn.Dense(
        2 * self.features, kernel_init=nn.initializers.zeros
      )
    # Whole channels: neighbouring voxels are too alike to drop one by one.
    self.drop = nn.Dropout(self.dropout, broadcast_dims=(1, 2, 3))

  def __call__(
    self, x: jax.Array, wish: jax.Array | None, *, train: bool
  ) -> jax.Array:
    """`[B, X, Y, Z, F]` of `[B, X, Y, Z, C]`."""
    convolved = functools.partial(
      convolve,
      x.astype(self.dtype),
      self.kernel.astype(self.dtype),
      self.convolution,
    )
    return self._activated(convolved, wish, train=train)

  def skip(self, copy: jax.Array) -> jax.Array:
    """What the encoder's copy adds before the bias, `[B, X, Y, Z, F]`."""
    kernel = self.kernel[..., self.channels - self.skip_channels :, :]
    return convolve(copy, kernel.astype(self.dtype), self.convolution)

  def merge(
    self,
    x: jax.Array,
    skip: jax.Array,
    window: tuple[int, int, int],
    wish: jax.Array | None,
    *,
    train: bool,
  ) -> jax.Array:
    """The layer on `x`, upsampled by a window, and on what gave `skip`."""
    kernel = self.kernel[..., : self.channels - self.skip_channels, :]
    convolved = functools.partial(
      convolve_upsampled,
      x,
      kernel.astype(self.dtype),
      skip,
      window,
      self.convolution,
    )
    return self._activated(convolved, wish, train=train)

  def _activated(self, convolved, wish, *, train):
    if self.norm == 'batch' and not train:
      # Nothing of the features themselves is needed: one pass does it all.
      scale, shift = self._modulated(self.normalisation.running(), wish)
      return convolved(affine=(scale, shift + self.bias * scale))
    bias = self.bias
    if self.norm == 'batch':
      # The norm takes the mean away, and the bias with it: its gradient is 0,
      # and Adam would make full steps of the rounding errors that are left.
      bias = jax.lax.stop_gradient(bias)
    x = checkpoint_name(convolved() + bias.astype(self.dtype), CONVOLVED)
    affine = self._modulated(self.normalisation(x, train=train), wish)
    return self.drop(rectify(x, affine), deterministic=not train)

  def _modulated(self, affine, wish):
    if not self.modulated:
      return affine
    factor, offset = jnp.split(self.modulation(wish), 2, axis=-1)
    scale, shift = affine
    return scale * (1 + factor), shift * (1 + factor) + offset
