"""The matched dose: the wish enters as a dose, on this patient.

Figure 1 of Ma et al. 2021 made literal: the first dose, its histogram matched
to the tuned DVH, structure by structure (`models/matching.py`); the network
has only to make it physical and Pareto-optimal.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dvhflax.models import onnx_matching
from dvhflax.models.conditioning.way import Conditioning, Entry
from dvhflax.models.matching import doses_of_ranks, matched_dose, places
from dvhflax.models.patches import mean_pool, space_to_depth
from dvhflax.models.pooling import cells_of
from dvhflax.models.prior import prior_fields

if TYPE_CHECKING:
  from dvhflax.models.unet import UNet

# Differences from the usual dose are small beside the dose itself.
_DIFFERENCE_SCALE = 4.0
# What ranks voxels, see `Matched`.
PRIORS = ('geometry', 'first_dose')


def anatomy_network(net: 'UNet') -> 'UNet':
  """The anatomy-only network of a network's kind and size."""
  fields = {
    field.name: getattr(net, field.name)
    for field in dataclasses.fields(net)
    if field.name not in ('parent', 'name')
  }
  alone = {'conditioning': 'none', 'axis_name': None, 'parent': None}
  return type(net)(**fields | alone)


def _initial(net: 'UNet') -> Any:
  """Its variables before training."""
  masks = jnp.zeros((1, *net.grid, net.dvh_shape[0]), jnp.uint8)
  wish, spacing_mm = jnp.zeros((1, *net.dvh_shape)), jnp.ones((1, 3))
  variables = net.init(jax.random.key(0), masks, wish, spacing_mm, train=False)
  return {'batch_stats': {}, **variables}


class Matched(Conditioning):
  """The matched dose at every level of the decoder, and under its output.

  Every level gets it, its difference from the patient's *usual* dose, and that
  one. `UNet.prior` says what ranks the voxels and what is usual:

  - `geometry`: the target blurred over several distances and the open fields;
    usual is the dose matched to the mean DVH of the training plans.
  - `first_dose`: the dose of an anatomy-only network, which is also the usual
    one. Its variables are the collection `first_dose`.

  A structure without a wish keeps the usual dose. Where structures overlap the
  target of the highest prescription decides, then other targets, organs, and
  the body last; voxels of no structure get 0.
  """

  def setup(self):
    net = self.net
    self.into_levels = [nn.Dense(c) for c in net.channels]
    if net.prior == 'first_dose':
      self.first_dose = self.variable(
        'first_dose', 'network', _initial, anatomy_network(net)
      )

  @property
  def _precedence(self) -> list[int]:
    """All structures; the later one decides on a voxel of several."""
    net = self.net
    organs = [
      s
      for s in range(net.dvh_shape[0])
      if s != net.body and s not in net.targets
    ]
    first = [] if net.body is None else [net.body]
    return [*first, *organs, *net.targets]

  def _usual_table(self) -> jax.Array:
    """`[1, S * RANKS + 1]` doses of the mean DVH of the training plans."""
    return doses_of_ranks(self.net.dvh_mean.value[None], self.net.dvh)

  def prepare(self, masks, spacing_mm, open_fields) -> Any:
    net = self.net
    if net.prior == 'first_dose':
      usual: Any = anatomy_network(net).apply(
        self.first_dose.value,
        masks,
        jnp.zeros((len(masks), *net.dvh_shape)),
        spacing_mm,
        {'open_fields': open_fields, 'ways': ()},
        train=False,
      )
      prior = usual
    else:
      fields = prior_fields(masks, net.targets, spacing_mm, open_fields)
      prior = fields.sum(-1)
    place = places(prior, masks, self._precedence)
    if net.prior != 'first_dose':
      table = jnp.tile(self._usual_table(), (len(masks), 1))
      usual = matched_dose(place, table)
    return {'place': place, 'usual': usual}

  def dose_without_wish(self, prepared) -> jax.Array | None:
    return prepared['usual'] if self.net.prior == 'first_dose' else None

  def __call__(self, desired_dvh, wish, anatomy, prepared) -> Entry[jax.Array]:
    net = self.net
    wished = jnp.any(desired_dvh != 0, axis=-1, keepdims=True)
    table = doses_of_ranks(jnp.where(wished, desired_dvh, jnp.nan), net.dvh)
    usual = prepared['usual']
    dose = matched_dose(prepared['place'], table)
    dose = jnp.where(jnp.isnan(dose), usual, dose)
    channels = jnp.stack(
      [dose, _DIFFERENCE_SCALE * (dose - usual), usual], axis=-1
    ).astype(net.dtype)
    levels = [space_to_depth(channels, net.patch)]
    pooled = mean_pool(channels, (net.patch,) * 3)
    for window in net.windows[:-1]:
      pooled = mean_pool(pooled, window)
      levels.append(pooled)
    added = [layer(x) for layer, x in zip(self.into_levels, levels)]
    return Entry(levels=added, dose=dose)

  def onnx(self, graph, params, wish, anatomy, patient) -> Entry[str]:
    g, net = graph, self.net
    if net.prior == 'first_dose':
      prior = patient.dose(anatomy_network(net), self.first_dose.value)
    else:
      prior = onnx_matching.geometry_prior(
        g, patient, net.targets, net.grid, net.spacing_mm
      )
    place = onnx_matching.places(g, prior, patient.masks, self._precedence)
    if net.prior == 'first_dose':
      usual = g('Flatten', prior)
    else:
      usual = g('Gather', np.asarray(self._usual_table())[0], place)
    table = onnx_matching.doses_of_ranks(g, 'desired_dvh', net.dvh)
    dose = g('GatherElements', table, place, axis=1)
    wished = onnx_matching.is_wished(g, place, 'desired_dvh')
    dose = g('Where', wished, dose, usual)
    difference = g('Mul', g('Sub', dose, usual), np.float32(_DIFFERENCE_SCALE))
    dose, difference, usual = (
      g('Reshape', x, [0, 1, *net.grid]) for x in (dose, difference, usual)
    )
    pooled = g('Concat', dose, difference, usual, axis=1)
    cells = cells_of(net.grid, net.patch)
    levels = [g.space_to_depth(pooled, net.patch, cells)]
    pooled = g.mean_pool(pooled, (net.patch,) * 3)
    for window in net.windows[:-1]:
      pooled = g.mean_pool(pooled, window)
      levels.append(pooled)
    added = [
      g.dense_of_voxels(x, params[layer.name])
      for layer, x in zip(self.into_levels, levels, strict=True)
    ]
    return Entry(levels=added, dose=g('Squeeze', dose, [1]))
