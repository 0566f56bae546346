"""The network of a configuration and of a checkpoint."""

from collections.abc import Callable
import dataclasses
import os
from typing import Any, get_args

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dvhflax import config_saved, errors
from dvhflax.checkpoint import Checkpoints
from dvhflax.cohort.spacing import own_spacings
from dvhflax.cohort.store import Cohort
from dvhflax.dvh import DVHSpec
from dvhflax.models.unet import UNet
from dvhflax.patient import Role, Structure

# Added in quadrature to the spread of a DVH element: volume fractions that
# hardly differ in the training set are not blown up.
SPREAD_FLOOR = 0.02


def data_item(
  cohort: Cohort, before: dict[str, Any] | None = None
) -> dict[str, Any]:
  """What a network must know of its data; JSON, kept in the checkpoint.

  Args:
    cohort: of the training.
    before: the item of the run that goes on; None at its start. One that began
      with open fields on the median voxel size keeps to them.
  """
  spacing = np.median([p.spacing_mm for p in cohort.patients], axis=0)
  own_spacing = own_spacings(cohort) is not None
  if before is not None:
    own_spacing = before.get('own_spacing', False)
  return {
    **({'own_spacing': True} if own_spacing else {}),
    'structures': [dataclasses.asdict(s) for s in cohort.structures],
    'spacing_mm': spacing.tolist(),
    'dvh': dataclasses.asdict(cohort.dvh_spec),
    'normalisation': cohort.normalisation.to_json(),
    'cohort': os.path.basename(os.path.normpath(cohort.path)),
    'provenance': cohort.metadata.provenance,
  }


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
  return UNet(
    grid=tuple(config.cohort.grid),
    dvh_shape=(len(structures), config.cohort.dvh_points),
    base_channels=model.base_channels,
    max_channels=model.max_channels,
    conditioning=model.conditioning,
    standardise_dvh=model.standardise_dvh,
    norm=model.norm,
    dropout=model.dropout,
    beams=model.beams,
    targets=tuple(i for i, s in enumerate(structures) if s['role'] == 'target'),
    spacing_mm=tuple(data['spacing_mm']),
    own_spacing=model.beams > 0 and data.get('own_spacing', False),
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


def halves(model: UNet) -> tuple[Callable[..., Any], Callable[..., jax.Array]]:
  """A network's jitted halves: a patient is encoded once for all wishes.

  Returns:
    `encode(variables, masks [X, Y, Z, S], spacing_mm [3])` -> features, of
    which the last matters to a model with `own_spacing` only, and
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


def restore(
  workdir: str, which: str = 'best'
) -> tuple[UNet, Any, ml_collections.ConfigDict, dict[str, Any], int]:
  """The network of a training run.

  Args:
    workdir: absolute path of the run.
    which: `best`, `latest`, or a saved step's number.

  Returns:
    The network, its variables, the run's config, its `data` item (structures
    and DVH vector), and the step.

  Raises:
    CheckpointError: if there is no such checkpoint, or it lacks something.
  """
  checkpoints = Checkpoints(workdir)
  step = checkpoints.find(which)
  data = checkpoints.json(step, 'data')
  try:
    config = config_saved.read(checkpoints.json(step, 'config'))
    _check_data(data)
    model = build_unet(config, data)
  except errors.ConfigError as error:
    raise errors.CheckpointError(
      f'{workdir}: checkpoint {step} is damaged or of another version: {error}'
    ) from None
  target = jax.eval_shape(lambda: initial_variables(model, jax.random.key(0)))
  variables = checkpoints.restore(step, 'model', target)
  checkpoints.close()
  return model, jax.tree.map(jnp.asarray, variables), config, data, step


def _check_data(data: Any) -> None:
  """Raises a ConfigError unless it is a `data_item`, also one of before."""
  try:
    structures = [Structure(s['name'], s['role']) for s in data['structures']]
    spec = DVHSpec(**data['dvh'])
    faulty = (
      not structures
      or any(s.role not in get_args(Role) for s in structures)
      or len(data['spacing_mm']) != 3
      or not min(data['spacing_mm']) > 0
      or spec.points < 2
    )
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    why = 'lacks' if isinstance(error, KeyError) else 'is faulty:'
    raise errors.ConfigError(f'its data item {why} {error}') from None
  if faulty:
    raise errors.ConfigError('its data item has impossible values')
