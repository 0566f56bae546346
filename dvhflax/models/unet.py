"""The 3D U-Net of figure 3: masks and a desired DVH in, a dose out.

The encoder sees the anatomy alone, so that a new wish for the same patient
needs the decoder only: `encode` once, `decode` for every wish.
"""

from collections.abc import Sequence
import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
import numpy as np

from dvhflax import errors, schedules
from dvhflax.models.convolution import (
  Convolution,
  convolve,
  convolve_upsampled,
)
from dvhflax.models.norm import Kind, Norm, Normalisation, kind_of, rectify
from dvhflax.models.open_fields import open_field_dose, open_field_dose_each

Conditioning = Literal['bottleneck', 'film', 'none']
# What is kept of a layer if its activations are not.
CONVOLVED = 'convolved'
Features = tuple[tuple[jax.Array, ...], jax.Array]


def pooling_plan(grid: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
  """Max-pooling windows that take a grid to 1x1x1, halving axis by axis.

  Six windows of 2x2x2 and one of 2x2x1 for the paper's 128x128x64.

  Raises:
    ConfigError: if an axis is no power of two, or the grid has one voxel.
  """
  if len(grid) != 3 or any(n < 1 or n & (n - 1) for n in grid):
    raise errors.ConfigError(
      f'grid={tuple(grid)} cannot be halved down to 1x1x1: each of its three '
      'axes must be a power of two, such as (64, 64, 32)'
    )
  if max(grid) == 1:
    raise errors.ConfigError('grid=(1, 1, 1) has nothing to pool')
  plan = []
  nx, ny, nz = grid
  while max(nx, ny, nz) > 1:
    window = (min(nx, 2), min(ny, 2), min(nz, 2))
    nx, ny, nz = nx // window[0], ny // window[1], nz // window[2]
    plan.append(window)
  return tuple(plan)


def max_pool(x: jax.Array, window: tuple[int, int, int]) -> jax.Array:
  """Largest value of each window of ones and twos; `[B, X, Y, Z, C]`.

  Pair by pair: XLA takes a maximum over axes, and its gradient, three times as
  long. Equal values share the gradient equally, as they do there.
  """
  b, nx, ny, nz, c = x.shape
  wx, wy, wz = window
  tiles = x.reshape(b, nx // wx, wx, ny // wy, wy, nz // wz, wz, c)
  values = [tiles[:, :, i, :, j, :, k] for i, j, k in np.ndindex(*window)]
  while len(values) > 1:
    values = [jnp.maximum(*pair) for pair in zip(values[::2], values[1::2])]
  return values[0]


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


class UNet(nn.Module):
  """Modified 3D U-Net (figure 3 of Ma et al. 2021).

  Attributes:
    grid: voxels along each axis.
    dvh_shape: (S, K), structures and elements a structure.
    base_channels: channels at full size; they double with each level.
    max_channels: at most so many.
    conditioning: how the wish enters: `bottleneck`, concatenated with the
      1x1x1 anatomy features as in the paper; `film`, scaling and shifting
      every layer of the decoder (Perez et al. 2018); `none`, the anatomy-only
      network of the workflow's first step.
    standardise_dvh: subtract the training set's mean DVH and divide by its
      spread before use; see `dvh_statistics`.
    norm: `batch`, `group`, or `mixed`, batch norm but on small feature maps.
    dropout: rate of the deepest level, equation (7).
    beams: number of beams whose open fields are one more input, 0 for none;
      see `open_fields`.
    targets: mask channels of targets, for the open fields.
    spacing_mm: voxel size, for the open fields.
    own_spacing: whether the open fields are on every patient's own voxel size,
      which then comes with the masks.
    convolution: form of the convolution.
    axis_name: mapped axis that batch statistics are averaged over.
    dtype: of the computation; parameters are float32.
  """

  grid: tuple[int, int, int]
  dvh_shape: tuple[int, int]
  base_channels: int = 16
  max_channels: int = 128
  conditioning: Conditioning = 'bottleneck'
  standardise_dvh: bool = False
  norm: Norm = 'batch'
  dropout: float = 0.2
  beams: int = 0
  targets: tuple[int, ...] = ()
  spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
  own_spacing: bool = False
  convolution: Convolution = 'auto'
  axis_name: str | None = None
  dtype: Any = jnp.float32

  def setup(self):
    self.windows = pooling_plan(self.grid)
    levels = len(self.windows)
    channels = [
      min(self.base_channels * 2**level, self.max_channels)
      for level in range(levels)
    ]
    # A kernel of 3 needs more than the 2x2x1 or 1x1x1 voxels of the last two.
    kernels = [3] * (levels - 1) + [1] * 2

    voxels = np.prod(self.grid) / np.cumprod([1, *map(math.prod, self.windows)])

    def block(name: str, level: int, inputs: int, features: int, **fields):
      rate = schedules.dropout_rate(level + 1, levels, self.dropout)
      layer = functools.partial(
        ConvLayer,
        features=features,
        kernel_size=kernels[level],
        dropout=rate,
        norm=kind_of(self.norm, int(voxels[level])),
        convolution=self.convolution,
        axis_name=self.axis_name,
        dtype=self.dtype,
        modulated=film and name.startswith('decoder'),
      )
      return [
        layer(channels=inputs, name=f'{name}_a', **fields),
        layer(channels=features, name=f'{name}_b'),
      ]

    film = self.conditioning == 'film'
    structures, points = self.dvh_shape
    inputs = structures + (1 if self.beams else 0)
    self.encoder = [
      block(f'encoder_{i}', i, below, c)
      for i, (below, c) in enumerate(zip([inputs, *channels], channels))
    ]
    self.bottleneck = block(
      'bottleneck', levels, channels[-1], self.max_channels
    )
    wish = structures * points if self.conditioning == 'bottleneck' else 0
    below = [*channels[1:], self.max_channels + wish]
    self.decoder = [
      block(f'decoder_{i}', i, up + c, c, skip_channels=c)
      for i, (up, c) in enumerate(zip(below, channels))
    ]
    # Zero at the start: a first dose far off would fill Adam's memory of
    # squared gradients, which lasts for a thousand updates.
    self.dose = nn.Dense(1, kernel_init=nn.initializers.zeros)
    if self.conditioning != 'none':
      # The training set's mean and spread, set once before the first update:
      # not trained, but part of the model wherever it goes.
      self.dvh_mean = self.variable(
        'dvh_statistics', 'mean', jnp.zeros, self.dvh_shape
      )
      self.dvh_spread = self.variable(
        'dvh_statistics', 'spread', jnp.ones, self.dvh_shape
      )
    if film:
      self.wish_layers = [nn.Dense(self.max_channels) for _ in range(2)]

  def encode(
    self,
    masks: jax.Array,
    spacing_mm: jax.Array | None = None,
    *,
    train: bool,
  ) -> Features:
    """Anatomy features of every level.

    Args:
      masks: `[B, X, Y, Z, S]`, 0 or 1, of any type.
      spacing_mm: `[B, 3]` voxel size of each, where `own_spacing` asks for it.
      train: whether dropout acts and batch statistics are of this batch.

    Returns:
      What the skip connections add to the decoder's levels, from full size
      down, and the `[B, 1, 1, 1, C]` bottleneck.
    """
    x = masks.astype(self.dtype)
    if self.beams:
      target = masks[..., list(self.targets)].any(-1)
      if not self.own_spacing:
        fields = open_field_dose(target, self.spacing_mm, self.beams)
      elif spacing_mm is None:
        raise ValueError('the open fields need the voxel size of each patient')
      else:
        fields = open_field_dose_each(target, spacing_mm, self.beams)
      x = jnp.concatenate([x, fields[..., None].astype(self.dtype)], axis=-1)
    skips = []
    for window, layers, (merging, _) in zip(
      self.windows, self.encoder, self.decoder
    ):
      for layer in layers:
        x = layer(x, None, train=train)
      skips.append(merging.skip(x))
      x = max_pool(x, window)
    for layer in self.bottleneck:
      x = layer(x, None, train=train)
    return tuple(skips), x

  def decode(
    self, features: Features, desired_dvh: jax.Array, *, train: bool
  ) -> jax.Array:
    """Dose for a wish, given the anatomy's features.

    Args:
      features: of `encode`, for `[B]` or for one patient.
      desired_dvh: `[B, S, K]`; zeros for a structure without a wish.
      train: as for `encode`.

    Returns:
      `[B, X, Y, Z]` float32 dose in fractions of the reference dose.
    """
    skips, x = features
    batch = desired_dvh.shape[0]
    skips, x = jax.tree.map(
      lambda a: jnp.broadcast_to(a, (batch, *a.shape[1:])), (skips, x)
    )
    wish = None
    if self.conditioning == 'bottleneck':
      x = self._concatenate(x, self._wish(desired_dvh))
    elif self.conditioning == 'film':
      # Whether a wish asks for more or less than usual is for the anatomy to
      # say.
      anatomy = x[:, 0, 0, 0].astype(jnp.float32)
      wish = jnp.concatenate([self._wish(desired_dvh), anatomy], axis=-1)
      for layer in self.wish_layers:
        wish = nn.relu(layer(wish))
    levels = list(zip(self.windows, skips, self.decoder))
    for window, skip, (merging, last) in reversed(levels):
      x = merging.merge(x, skip, window, wish, train=train)
      x = last(x, wish, train=train)
    return self.dose(x)[..., 0].astype(jnp.float32)

  def _concatenate(self, x: jax.Array, wish: jax.Array) -> jax.Array:
    """The wish as further channels of the one bottleneck voxel."""
    vector = wish.astype(x.dtype)[:, None, None, None]
    return jnp.concatenate([x, vector], axis=-1)

  def _wish(self, desired_dvh: jax.Array) -> jax.Array:
    """The stacked DVH, `[B, S * K]`, standardised if so configured."""
    if self.standardise_dvh:
      wished = jnp.any(desired_dvh != 0, axis=-1, keepdims=True)
      desired_dvh = (desired_dvh - self.dvh_mean.value) / self.dvh_spread.value
      desired_dvh = jnp.where(wished, desired_dvh, 0)
    return desired_dvh.reshape(desired_dvh.shape[0], -1)

  def __call__(
    self,
    masks: jax.Array,
    desired_dvh: jax.Array,
    spacing_mm: jax.Array | None = None,
    *,
    train: bool,
  ) -> jax.Array:
    """`[B, X, Y, Z]` dose for `[B, X, Y, Z, S]` masks and `[B, S, K]`."""
    if masks.shape[1:4] != tuple(self.grid):
      raise ValueError(f'masks {masks.shape} are not on grid {self.grid}')
    return self.decode(
      self.encode(masks, spacing_mm, train=train), desired_dvh, train=train
    )
