"""The 3D U-Net of figure 3: masks and a desired DVH in, a dose out.

The encoder sees the anatomy alone, so that a new wish for the same patient
needs the decoder only: `encode` once, `decode` for every wish.
"""

import functools
import math
import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dvhflax import schedules
from dvhflax.dvh import DVHSpec
from dvhflax.models.conditioning import WAYS, Entry, combine
from dvhflax.models.convolution import Convolution
from dvhflax.models.layer import ConvLayer
from dvhflax.models.norm import Norm, kind_of
from dvhflax.models.open_fields import open_field_dose, open_field_dose_each
from dvhflax.models.patches import depth_to_space, space_to_depth
from dvhflax.models.pooling import cells_of, max_pool, pooling_plan
from dvhflax.models.smoothing import smoothed

# Of the skip connections, the bottleneck, and the ways of conditioning; where
# the dose is smoothed, if it is.
Features = tuple[
  tuple[jax.Array, ...], jax.Array, tuple[Any, ...], jax.Array | None
]
# What is known of a patient before training: see `UNet.prepare`.
Prepared = dict[str, Any]


class UNet(nn.Module):
  """Modified 3D U-Net (figure 3 of Ma et al. 2021).

  Attributes:
    grid: voxels along each axis.
    dvh_shape: (S, K), structures and elements a structure.
    base_channels: channels at full size; they double with each level.
    max_channels: at most so many.
    conditioning: how the wish enters, a key of `conditioning.WAYS`; `none` is
      the anatomy-only network of the workflow's first step.
    dvh: elements of the DVH vector.
    standardise_dvh: subtract the training set's mean DVH and divide by its
      spread before use; see `dvh_statistics`.
    patch: voxels an axis that the network takes together as channels, and
      whose doses it gives together; 1 for voxel by voxel.
    smoothing: whether the dose is smoothed over neighbouring voxels, see
      `smoothing`.
    norm: `batch`, `group`, or `mixed`, batch norm but on small feature maps.
    dropout: rate of the deepest level, equation (7).
    beams: number of beams whose open fields are one more input, 0 for none;
      see `open_fields`.
    targets: mask channels of targets, in ascending order of prescription.
    body: mask channel of the body; None if there is none.
    spacing_mm: voxel size, where distances matter.
    own_spacing: whether it is every patient's own, which then comes with the
      masks.
    prior: what ranks voxels for the matched dose, see `conditioning.matched`.
    convolution: form of the convolution.
    axis_name: mapped axis that batch statistics are averaged over.
    dtype: of the computation; parameters are float32.
  """

  grid: tuple[int, int, int]
  dvh_shape: tuple[int, int]
  base_channels: int = 16
  max_channels: int = 128
  conditioning: str = 'bottleneck'
  dvh: DVHSpec = DVHSpec()
  patch: int = 1
  smoothing: bool = False
  standardise_dvh: bool = False
  norm: Norm = 'batch'
  dropout: float = 0.2
  beams: int = 0
  targets: tuple[int, ...] = ()
  body: int | None = None
  spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
  own_spacing: bool = False
  prior: str = 'geometry'
  convolution: Convolution = 'auto'
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @property
  def takes_wish(self) -> bool:
    """False for an anatomy-only network, which gives all wishes one dose."""
    return bool(WAYS[self.conditioning])

  def setup(self):
    cells = cells_of(self.grid, self.patch)
    self.windows = pooling_plan(cells)
    levels = len(self.windows)
    # Of the levels, from full size down.
    self.channels = channels = tuple(
      min(self.base_channels * 2**level, self.max_channels)
      for level in range(levels)
    )
    # A kernel of 3 needs more than the 2x2x1 or 1x1x1 voxels of the last two.
    kernels = [3] * (levels - 1) + [1] * 2

    voxels = np.prod(cells) / np.cumprod([1, *map(math.prod, self.windows)])

    def block(
      name: str,
      level: int,
      inputs: int,
      features: int,
      skip: int = 0,
      modulated: bool = False,
    ):
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
        modulated=modulated,
      )
      return [
        layer(channels=inputs, name=f'{name}_a', skip_channels=skip),
        layer(channels=features, name=f'{name}_b'),
      ]

    self.ways = [way() for way in WAYS[self.conditioning]]
    for way in self.ways:
      # Their parameters lie beside the network's own in checkpoints.
      nn.share_scope(self, way)
    inputs = self.dvh_shape[0] + (1 if self.beams else 0)
    inputs *= self.patch**3
    self.encoder = [
      block(f'encoder_{i}', i, below, c)
      for i, (below, c) in enumerate(zip([inputs, *channels], channels))
    ]
    self.bottleneck = block(
      'bottleneck', levels, channels[-1], self.max_channels
    )
    wish = sum(way.bottleneck_channels for way in self.ways)
    modulated = any(way.modulates for way in self.ways)
    below = [*channels[1:], self.max_channels + wish]
    self.decoder = [
      block(f'decoder_{i}', i, up + c, c, c, modulated)
      for i, (up, c) in enumerate(zip(below, channels))
    ]
    # Zero at the start: a first dose far off would fill Adam's memory of
    # squared gradients, which lasts for a thousand updates.
    self.dose = nn.Dense(self.patch**3, kernel_init=nn.initializers.zeros)
    if self.takes_wish:
      # The training set's mean and spread, set once before the first update:
      # not trained, but part of the model wherever it goes.
      self.dvh_mean = self.variable(
        'dvh_statistics', 'mean', jnp.zeros, self.dvh_shape
      )
      self.dvh_spread = self.variable(
        'dvh_statistics', 'spread', jnp.ones, self.dvh_shape
      )

  def prepare(
    self, masks: jax.Array, spacing_mm: jax.Array | None = None
  ) -> Prepared:
    """What is computed once for a patient, of no parameter that is trained.

    Args:
      masks: `[B, X, Y, Z, S]`, 0 or 1, of any type.
      spacing_mm: `[B, 3]` voxel size of each, where `own_spacing` asks for it.

    Returns:
      Arrays `[B, X, Y, Z, ...]`: `open_fields` of a network with beams, and
      `ways`, of each way of conditioning.
    """
    prepared: Prepared = {}
    target = masks[..., list(self.targets)].any(-1)
    if not self.own_spacing:
      if self.beams:
        fields = open_field_dose(target, self.spacing_mm, self.beams)
      spacing_mm = jnp.tile(jnp.asarray(self.spacing_mm), (len(masks), 1))
    elif spacing_mm is None:
      raise ValueError('the network needs the voxel size of each patient')
    elif self.beams:
      fields = open_field_dose_each(target, spacing_mm, self.beams)
    if self.beams:
      prepared['open_fields'] = fields
    prepared['ways'] = tuple(
      way.prepare(masks, spacing_mm, prepared.get('open_fields'))
      for way in self.ways
    )
    return prepared

  def encode(
    self,
    masks: jax.Array,
    spacing_mm: jax.Array | None = None,
    prepared: Prepared | None = None,
    *,
    train: bool,
  ) -> Features:
    """Anatomy features of every level.

    Args:
      masks: `[B, X, Y, Z, S]`, 0 or 1, of any type.
      spacing_mm: `[B, 3]` voxel size of each, where `own_spacing` asks for it.
      prepared: of `prepare`; None to compute it here.
      train: whether dropout acts and batch statistics are of this batch.

    Returns:
      What the skip connections add to the decoder's levels, from full size
      down, the `[B, 1, 1, 1, C]` bottleneck, what each way of conditioning
      prepares, and where the dose is smoothed.
    """
    if prepared is None:
      prepared = self.prepare(masks, spacing_mm)
    inside = None
    if self.smoothing:
      inside = (
        masks if self.body is None else masks[..., self.body : self.body + 1]
      ).any(-1)
    x = masks.astype(self.dtype)
    if self.beams:
      fields = prepared['open_fields'][..., None]
      x = jnp.concatenate([x, fields.astype(self.dtype)], axis=-1)
    x = space_to_depth(x, self.patch)
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
    return tuple(skips), x, prepared['ways'], inside

  def first_dose(self, features: Features) -> jax.Array | None:
    """`[B, X, Y, Z]` dose of the anatomy-only network within, if any.

    Args:
      features: of `encode`.
    """
    doses = (way.dose_without_wish(x) for way, x in zip(self.ways, features[2]))
    return next((dose for dose in doses if dose is not None), None)

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
    batch = desired_dvh.shape[0]
    skips, x, prepared, inside = jax.tree.map(
      lambda a: jnp.broadcast_to(a, (batch, *a.shape[1:])), features
    )
    entry: Entry[jax.Array] = Entry()
    if self.takes_wish:
      wish = self._wish(desired_dvh)
      entry = combine(
        (
          way(desired_dvh, wish, x[:, 0, 0, 0], once)
          for way, once in zip(self.ways, prepared)
        ),
        functools.partial(jnp.concatenate, axis=-1),
        operator.add,
      )
    if entry.bottleneck is not None:
      vector = entry.bottleneck.astype(x.dtype)[:, None, None, None]
      x = jnp.concatenate([x, vector], axis=-1)
    levels = enumerate(zip(self.windows, skips, self.decoder))
    for i, (window, skip, (merging, last)) in reversed(list(levels)):
      x = merging.merge(x, skip, window, entry.modulation, train=train)
      if entry.levels:
        x += entry.levels[i].astype(x.dtype)
      x = last(x, entry.modulation, train=train)
    x = depth_to_space(self.dose(x), self.patch)
    dose = x[..., 0].astype(jnp.float32)
    if entry.dose is not None:
      dose += entry.dose
    if inside is not None:
      dose = smoothed(dose, inside)
    if entry.dose is None:
      return dose
    # Where little is, the sum may fall below 0, which no dose does; training
    # needs its gradient there.
    return dose if train else jnp.maximum(dose, 0)

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
    prepared: Prepared | None = None,
    *,
    train: bool,
  ) -> jax.Array:
    """`[B, X, Y, Z]` dose for `[B, X, Y, Z, S]` masks and `[B, S, K]`."""
    if masks.shape[1:4] != tuple(self.grid):
      raise ValueError(f'masks {masks.shape} are not on grid {self.grid}')
    features = self.encode(masks, spacing_mm, prepared, train=train)
    return self.decode(features, desired_dvh, train=train)
