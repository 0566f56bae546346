"""The network of a configuration and of a checkpoint."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dvhflax.dvh import DVHSpec
from dvhflax.models.conditioning import has_matched_dose
from dvhflax.models.conditioning.matched import anatomy_network
from dvhflax.models.unet import UNet

# Added in quadrature to the spread of a DVH element: volume fractions that
# hardly differ in the training set are not blown up.
SPREAD_FLOOR = 0.02


def build_unet(
  config: ml_collections.ConfigDict,
  data: dict[str, Any],
  axis_name: str | None = None,
) -> UNet:
  """The network that `config.model` describes.

  Args:
    config: see `config.py`.
    data: of `data_item`.
    axis_name: mapped axis to synchronise batch norm over.
  """
  model = config.model
  structures = data['structures']
  # Distances matter to open fields, and to the blurs that rank voxels.
  blurs = has_matched_dose(model.conditioning) and model.prior == 'geometry'
  return UNet(
    grid=tuple(config.cohort.grid),
    dvh_shape=(len(structures), config.cohort.dvh_points),
    base_channels=model.base_channels,
    max_channels=model.max_channels,
    conditioning=model.conditioning,
    dvh=DVHSpec(**data['dvh']),
    patch=model.patch,
    smoothing=model.smoothing,
    standardise_dvh=model.standardise_dvh,
    norm=model.norm,
    dropout=model.dropout,
    beams=model.beams,
    targets=tuple(i for i, s in enumerate(structures) if s['role'] == 'target'),
    body=next(
      (i for i, s in enumerate(structures) if s['role'] == 'body'), None
    ),
    spacing_mm=tuple(data['spacing_mm']),
    own_spacing=data.get('own_spacing', False) and (model.beams > 0 or blurs),
    prior=model.prior,
    convolution=model.convolution,
    axis_name=axis_name,
    dtype=jnp.dtype(model.dtype),
  )


def initial_variables(model: UNet, rng: jax.Array) -> Any:
  """`{'params': ..., 'batch_stats': ..., 'dvh_statistics': ...}`."""
  masks = jnp.zeros((1, *model.grid, model.dvh_shape[0]), jnp.uint8)
  desired_dvh = jnp.zeros((1, *model.dvh_shape))
  spacing_mm = jnp.ones((1, 3)) if model.own_spacing else None
  variables = model.init(rng, masks, desired_dvh, spacing_mm, train=False)
  return {'batch_stats': {}, 'dvh_statistics': {}, **variables}


def prepare(model: UNet) -> Callable[..., Any]:
  """Jitted `UNet.prepare` of one patient.

  Returns:
    `prepare(variables, masks [X, Y, Z, S], spacing_mm [3])` -> arrays without
    the axis of a batch.
  """

  @jax.jit
  def prepared(variables, masks, spacing_mm):
    found = model.apply(
      variables,
      masks[None],
      jnp.asarray(spacing_mm, jnp.float32)[None],
      method=UNet.prepare,
    )
    return jax.tree.map(lambda x: x[0], found)

  return prepared


def halves(model: UNet) -> tuple[Callable[..., Any], Callable[..., jax.Array]]:
  """A network's jitted halves: a patient is encoded once for all wishes.

  Returns:
    `encode(variables, masks [X, Y, Z, S], spacing_mm [3])` -> features; the
    voxel size matters to a model with `own_spacing` only; and
    `decode(variables, features, desired_dvh [M, S, K])` -> `[M, X, Y, Z]`.
  """

  @jax.jit
  def encode(variables, masks, spacing_mm=None):
    if spacing_mm is not None:
      spacing_mm = jnp.asarray(spacing_mm, jnp.float32)[None]
    return model.apply(
      variables, masks[None], spacing_mm, train=False, method=UNet.encode
    )

  @jax.jit
  def decode(variables, features, desired_dvh):
    return model.apply(
      variables, features, desired_dvh, train=False, method=UNet.decode
    )

  return encode, decode


def anatomy_only(model: UNet, variables: Any) -> tuple[UNet, Any] | None:
  """The anatomy-only network within one, and its variables; None without."""
  if 'first_dose' not in variables:
    return None
  return anatomy_network(model), variables['first_dose']['network']


def dvh_statistics(dvh: np.ndarray, valid: np.ndarray) -> dict[str, Any]:
  """Mean and spread of a training set's DVH vectors.

  Args:
    dvh: `[P, N, S, K]`; zeros for an absent structure.
    valid: `[P, N]`.

  Returns:
    `mean` and `spread`, each `[S, K]` float32, over the plans that have the
    structure.
  """
  curves = dvh[valid]
  counted = curves.any(-1, keepdims=True)
  number = np.maximum(counted.sum(0), 1)
  mean = (curves * counted).sum(0) / number
  variance = (np.square(curves - mean) * counted).sum(0) / number
  return {
    'mean': jnp.asarray(mean, jnp.float32),
    'spread': jnp.asarray(np.sqrt(variance + SPREAD_FLOOR**2), jnp.float32),
  }
