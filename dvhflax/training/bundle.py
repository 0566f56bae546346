"""A trained network that comes along: a folder that is read like a run.

`network.npz` has the variables by their names in checkpoints, the weights in
float16, all else as it was; `bundle.json` the configuration and the `data` item
of the checkpoint, and of which run it is; `cohort/` an excerpt of the cohort,
see `cohort/excerpt.py`; `card.md` what it is for; `SHA256SUMS` the sums of
these, which are compared before anything else is read.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import os
import shutil
from typing import Any, NoReturn
import uuid

import jax
import numpy as np

from dvhflax import errors, files, sha256sums
from dvhflax.training.trees import first_not_finite, named

_SCHEMA = 1
INFO = 'bundle.json'
_NETWORK = 'network.npz'
_COHORT = 'cohort'
CARD = 'card.md'


def is_bundle(path: str | os.PathLike[str]) -> bool:
  """Whether a folder is a bundle, be it damaged."""
  return any(
    os.path.isfile(os.path.join(path, name)) for name in (INFO, sha256sums.SUMS)
  )


def cohort_of(path: str) -> str:
  """Path of the excerpt of the cohort in a bundle."""
  return os.path.join(path, _COHORT)


class Bundle:
  """A bundle to restore from, as from `checkpoint.Checkpoints`.

  Attributes:
    path: of the folder.
    name: that it was given.
    step: the saved step of the run.
    run: of the run, `workdir` (its name), and `weights_sha256` before they were
      rounded.
  """

  def __init__(self, path: str):
    """Opens a bundle and compares all of its files with their sums.

    Raises:
      CheckpointError: for a file that is missing, damaged or another one, and
        for a bundle of a later version.
    """
    self.path = path
    fault = sha256sums.fault(path)
    if fault:
      self._refuse(fault)
    try:
      with open(os.path.join(path, INFO), encoding='utf-8') as file:
        values = json.load(file)
      schema = values['schema_version']
      if schema == _SCHEMA:
        self._json = {item: dict(values[item]) for item in ('config', 'data')}
        self.name, self.run = str(values['name']), dict(values['run'])
        self.step = int(values['step'])
    except (
      OSError, KeyError, TypeError, ValueError, RecursionError, OverflowError,
    ) as error:  # fmt: skip
      why = errors.plain(repr(error), 200)
      if isinstance(error, RecursionError):
        why = 'nested too deep'
      self._refuse(f'{INFO} is faulty ({why})')
    if schema != _SCHEMA:
      raise errors.CheckpointError(
        f'{path} has schema_version {errors.shown(schema)}; this version of '
        f'dvhflax reads {_SCHEMA}: install a later one'
      )

  def find(self, which: str) -> int:
    """Its only step, which `best`, `latest` and the number stand for.

    Raises:
      CheckpointError: for another step.
    """
    if which not in ('best', 'latest', str(self.step)):
      raise errors.CheckpointError(
        f'{self.path} has no checkpoint {which!r}: it has step {self.step} only'
      )
    return self.step

  def json(self, step: int, item: str) -> dict[str, Any]:
    """The `config` or `data` item of the step."""
    return self._json[item]

  def restore(self, step: int, item: str, target: Any) -> Any:
    """The variables (item `model`) as numpy arrays, in the types of `target`.

    Raises:
      CheckpointError: if they are of another network, or not finite.
    """
    with np.load(os.path.join(self.path, _NETWORK)) as stored:
      arrays = {name: stored[name] for name in stored.files}
    wanted = dict(named(target))
    for name in sorted(arrays.keys() | wanted.keys()):
      shapes = [
        tuple(found[name].shape) if name in found else None
        for found in (arrays, wanted)
      ]
      if shapes[0] != shapes[1]:
        raise errors.CheckpointError(
          f'{self.path} is of another network: {name} is {shapes[0]}, wanted '
          f'{shapes[1]}; use the version of dvhflax that it was made with'
        )
    names = iter(wanted)
    variables = jax.tree.map(
      lambda leaf: arrays[next(names)].astype(leaf.dtype), target
    )
    broken = first_not_finite(variables)
    if broken is not None:
      self._refuse(f'{_NETWORK} is not finite in {broken}')
    return variables

  def close(self) -> None:
    """Nothing is held open; as `Checkpoints` has it."""

  def _refuse(self, fault: str) -> NoReturn:
    raise errors.CheckpointError(
      f'{self.path}: {fault}: restore that file, or install or make the bundle '
      'again'
    )


def identity_of(path: str) -> dict[str, str]:
  """What of a bundle goes into the identity of its network; {} of a run.

  Returns:
    `workdir`, here the name of the bundle, and the SHA-256 of the run's weights
    before they were rounded, `unrounded_sha256`.
  """
  if not is_bundle(path):
    return {}
  opened = Bundle(path)
  return {
    'workdir': opened.name,
    'unrounded_sha256': opened.run['weights_sha256'],
  }


def rounded(variables: Any) -> Any:
  """Variables as they are after a round trip: weights as float16 has them."""
  return jax.tree.map(
    lambda stored, leaf: stored.astype(np.asarray(leaf).dtype),
    _halved(variables),
    variables,
  )


def _halved(variables: Any) -> Any:
  """Weights in float16, statistics and constants as they are.

  A network within is a constant too: voxels are ranked by its dose, and where
  that is flat, rounding would change the ranks of many.
  """

  def halve(leaf: Any) -> np.ndarray:
    leaf = np.asarray(leaf)
    if leaf.dtype != np.float32:
      return leaf
    with np.errstate(over='ignore'):
      half = leaf.astype(np.float16)
    return half if np.isfinite(half).all() else leaf

  return {
    name: jax.tree.map(halve if name == 'params' else np.asarray, collection)
    for name, collection in variables.items()
  }


def write_network(folder: str, variables: Any) -> None:
  """Writes `network.npz`."""
  arrays = dict(named(_halved(variables)))
  with open(os.path.join(folder, _NETWORK), 'wb') as file:
    np.savez_compressed(file, **arrays)


def write_info(
  folder: str,
  *,
  name: str,
  step: int,
  run: Mapping[str, str],
  config: Mapping[str, Any],
  data: Mapping[str, Any],
) -> None:
  """Writes `bundle.json`: attributes and items of `Bundle`."""
  values = {
    'schema_version': _SCHEMA,
    'use': 'for research, not for clinical use',
    'name': name,
    'step': step,
    'run': dict(run),
    'config': dict(config),
    'data': dict(data),
  }
  files.write_json(os.path.join(folder, INFO), values)


@contextlib.contextmanager
def making(path: str) -> Iterator[str]:
  """Yields a folder to write a bundle to; its sums, and its name, come last.

  Args:
    path: of the bundle.

  Raises:
    UserError: if there is something at the path.
  """
  path = os.path.normpath(path)
  if os.path.lexists(path):
    raise errors.UserError(
      f'{path} exists: remove it, or give another --output'
    )
  parent, name = os.path.split(path)
  aside = os.path.join(parent, f'.{name}.{uuid.uuid4().hex}.part')
  os.makedirs(aside)
  try:
    yield aside
    sha256sums.write(aside)
    os.rename(aside, path)
  finally:
    shutil.rmtree(aside, ignore_errors=True)
