"""Trained networks, each with the cohort that it was trained on."""

from collections.abc import Callable
import dataclasses
import os
from typing import Any, get_args

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dvhflax import errors
from dvhflax.checksum import checksum
from dvhflax.cohort import identity
from dvhflax.cohort.store import Cohort
from dvhflax.config import saved as config_saved
from dvhflax.dvh import DVHSpec
from dvhflax.models.build import build_unet, halves, initial_variables
from dvhflax.models.unet import UNet
from dvhflax.normalisation import Normalisation
from dvhflax.patient import Role, Structure
from dvhflax.training import bundle, checkpoint_files, remote
from dvhflax.training.checkpoint import Checkpoints

# How another place of a cohort is named.
_COHORT_FLAG = '--cohort (in Python cohort_path)'
# Of a voxel; of a DVH, in fractions of the reference.
_MOST_MM, _MOST_DOSE = 1000.0, 10.0


def _none(features: Any) -> None:
  """The first dose of a network that has none of its own."""
  del features


@dataclasses.dataclass(frozen=True)
class Network:
  """A checkpoint, in two jitted halves.

  Attributes:
    encode: masks `[X, Y, Z, S]` -> features; with `own_spacing` their voxel
      size `[3]` in mm comes after the masks.
    decode: features, desired DVH `[S, K]` -> dose `[X, Y, Z]`.
    mean_dvh: `[S, K]` mean of its training plans; None of an anatomy-only one.
    identity: workdir's name, step, SHA-256 of the weights.
    own_spacing: see `UNet`.
    first_dose: features -> dose `[X, Y, Z]` of the anatomy-only network within;
      None without one.
  """

  encode: Callable[..., Any]
  decode: Callable[[Any, np.ndarray], np.ndarray]
  mean_dvh: np.ndarray | None
  identity: dict[str, Any]
  own_spacing: bool = False
  first_dose: Callable[[Any], np.ndarray | None] = _none

  def features(
    self, masks: np.ndarray, spacing_mm: tuple[float, float, float]
  ) -> Any:
    """Of a patient's `[X, Y, Z, S]` masks on voxels of a size."""
    if self.own_spacing:
      return self.encode(masks, spacing_mm)
    return self.encode(masks)


def data_item(
  cohort: Cohort, before: dict[str, Any] | None = None
) -> dict[str, Any]:
  """What a network must know of its data; JSON, kept in the checkpoint.

  Args:
    cohort: of the training.
    before: the item of the run that is resumed; None at its start. One that
      began with open fields on the median voxel size keeps to them.
  """
  spacing = np.median([p.spacing_mm for p in cohort.patients], axis=0)
  own_spacing = cohort.own_spacings is not None
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


def restore(
  workdir: str, which: str = 'best'
) -> tuple[UNet, Any, ml_collections.ConfigDict, dict[str, Any], int]:
  """The network of a training run, or of a bundle.

  Args:
    workdir: of the run or the bundle, as `remote.absolute` has it.
    which: `best`, `latest`, or a saved step's number.

  Returns:
    The network, its variables, the run's config, its `data` item (structures
    and DVH vector), and the step.

  Raises:
    CheckpointError: if there is no such checkpoint, or it lacks something.
  """
  with remote.opened(workdir) as there:
    return _restore(there, which)


def _restore(
  there: remote.Workdir, which: str
) -> tuple[UNet, Any, ml_collections.ConfigDict, dict[str, Any], int]:
  workdir = there.path
  checkpoints: Checkpoints | bundle.Bundle
  if bundle.is_bundle(workdir):
    checkpoints = bundle.Bundle(workdir)
  else:
    checkpoints = Checkpoints(workdir)
  step = checkpoints.find(which)
  there.bring(f'{checkpoint_files.FOLDER}/{step}/model/')
  data = checkpoints.json(step, 'data')
  try:
    config = config_saved.read(checkpoints.json(step, 'config'))
    _check_data(data, config.cohort.dvh_points)
    model = build_unet(config, data)
  except errors.ConfigError as error:
    raise errors.CheckpointError(
      f'{workdir}: checkpoint {step} is damaged or of another version: {error}'
    ) from None
  target = jax.eval_shape(lambda: initial_variables(model, jax.random.key(0)))
  variables = checkpoints.restore(step, 'model', target)
  checkpoints.close()
  return model, jax.tree.map(jnp.asarray, variables), config, data, step


def _check_data(data: Any, points: int) -> None:
  """Raises a ConfigError unless it is a `data_item`, perhaps an older one."""
  try:
    structures = [Structure(s['name'], s['role']) for s in data['structures']]
    spec = DVHSpec(**data['dvh'])
    # A default in the place of what is lost would be another curve.
    for field in dataclasses.fields(spec):
      _ = data['dvh'][field.name]
    normalisation = Normalisation.from_json(
      data.get('normalisation', {'kind': 'prescription'})
    )
    names = {s.name for s in structures}
    faulty = (
      not structures
      or len(names) != len(structures)
      or any(s.role not in get_args(Role) for s in structures)
      or len(data['spacing_mm']) != 3
      or not all(0 < x <= _MOST_MM for x in data['spacing_mm'])
      or spec.points != points
      or not 0 < spec.max_dose <= _MOST_DOSE
      # D95% and such of training plans, over the prescription.
      or not all(
        1 / _MOST_DOSE < mean < _MOST_DOSE and 0 <= spread < mean
        for mean, spread in normalisation.coverage.values()
      )
    )
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    why = 'lacks' if isinstance(error, KeyError) else 'is faulty:'
    raise errors.ConfigError(f'its data item {why} {error}') from None
  if faulty:
    raise errors.ConfigError('its data item has impossible values')


def load_model(
  workdir: str | os.PathLike[str],
  which: str,
  cohort_path: str | os.PathLike[str] | None,
) -> tuple[UNet, Any, ml_collections.ConfigDict, Cohort, int]:
  """A network and the cohort it was trained on, checked against each other.

  Args:
    workdir: path or URL of a training run, or path of a bundle.
    which: `best`, `latest` or a saved step.
    cohort_path: cohort store, if it moved since, or in place of a bundle's
      excerpt.

  Returns:
    The network, its variables, the run's config, the cohort, and the step.

  Raises:
    CheckpointError: if there is no such checkpoint.
    CohortError: if there is no such cohort, it does not fit, or is not the one
      that the network was trained on.
  """
  workdir = remote.absolute(workdir)
  model, variables, config, data, step = restore(workdir, which)
  # A path that is given replaces the recorded one.
  place = {} if cohort_path else data
  usual = config.cohort.path
  if bundle.is_bundle(workdir):
    usual = bundle.cohort_of(workdir)
  cohort = Cohort.open(
    identity.find(os.fspath(cohort_path or usual), place, _COHORT_FLAG)
  )
  stored = [(s.name, s.role) for s in cohort.structures]
  trained = [(s['name'], s['role']) for s in data['structures']]
  if stored != trained:
    raise errors.CohortError(
      f'{cohort.path} has structures {[n for n, _ in stored]}, but {workdir} '
      f'was trained on {[n for n, _ in trained]}'
    )
  if tuple(cohort.grid) != tuple(config.cohort.grid):
    raise errors.CohortError(
      f'{cohort.path} has grid {tuple(cohort.grid)}, but {workdir} was '
      f'trained on {tuple(config.cohort.grid)}'
    )
  if dataclasses.asdict(cohort.dvh_spec) != data['dvh']:
    raise errors.CohortError(
      f'{cohort.path} has {cohort.dvh_spec}, but {workdir} was trained on '
      f'{data["dvh"]}'
    )
  # Runs that are older than the notion do not tell; their cohort does.
  trained_on = cohort.normalisation
  if 'normalisation' in data:
    try:
      trained_on = Normalisation.from_json(data['normalisation'])
    except (KeyError, TypeError, ValueError, AttributeError):
      raise errors.CheckpointError(
        f'{workdir}: the normalisation in the data of step {step} is faulty: '
        'name another --checkpoint'
      ) from None
  if trained_on.kind != cohort.normalisation.kind:
    raise errors.CohortError(
      f'{cohort.path} has doses in fractions of {cohort.normalisation.words}, '
      f'but {workdir} was trained on fractions of {trained_on.words}'
    )
  identity.require(cohort, data, workdir, _COHORT_FLAG)
  return model, variables, config, cohort, step


def load_network(
  workdir: str | os.PathLike[str],
  which: str = 'best',
  cohort_path: str | os.PathLike[str] | None = None,
) -> tuple[Network, Cohort]:
  """A trained network and the cohort it was trained on, for `Session`.

  Args:
    workdir: path or URL of a training run, or path of a bundle, such as
      `dvhflax.pretrained('prostate')`.
    which: `best`, `latest` or a saved step.
    cohort_path: cohort store, if it moved since, or in place of a bundle's
      excerpt.

  Raises:
    CheckpointError: if there is no such checkpoint.
    CohortError: if there is no such cohort, or it is not the one that the
      network was trained on.
  """
  model, variables, _, cohort, step = load_model(workdir, which, cohort_path)
  statistics = variables['dvh_statistics']
  encode, decode = halves(model)

  def first_dose(features: Any) -> np.ndarray | None:
    dose = model.apply(variables, features, method=UNet.first_dose)
    return None if dose is None else np.asarray(dose)[0]

  network = Network(
    encode=lambda masks, *spacing_mm: encode(
      variables, jnp.asarray(masks), *spacing_mm
    ),
    decode=lambda features, desired: np.asarray(
      decode(variables, features, jnp.asarray(desired)[None])
    )[0],
    mean_dvh=np.asarray(statistics['mean']) if statistics else None,
    identity={
      'workdir': os.path.basename(os.path.normpath(workdir)),
      'step': int(step),
      'weights_sha256': checksum(variables),
      **bundle.identity_of(os.fspath(workdir)),
    },
    own_spacing=model.own_spacing,
    first_dose=first_dose,
  )
  return network, cohort


def load_networks(
  workdir: str | os.PathLike[str],
  which: str = 'best',
  cohort_path: str | os.PathLike[str] | None = None,
  anatomy_workdir: str | os.PathLike[str] | None = None,
) -> tuple[Network, Cohort, Network | None]:
  """The networks of a session, to share between patients.

  Args:
    workdir, which, cohort_path, anatomy_workdir: see `Session.open`.

  Returns:
    The network, its cohort, and the anatomy-only network if one is named.
  """
  network, cohort = load_network(workdir, which, cohort_path)
  anatomy = None
  if anatomy_workdir:
    anatomy, _ = load_network(
      anatomy_workdir, which, cohort_path or cohort.path
    )
  return network, cohort, anatomy
