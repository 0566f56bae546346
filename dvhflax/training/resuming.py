"""Goes on with a run: is it the same one, and what was saved of it."""

import dataclasses
from typing import Any

import ml_collections

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.cohort import identity
from dvhflax.cohort.store import Cohort
from dvhflax.config import saved as config_saved
from dvhflax.sources import build
from dvhflax.training import parallel, partners, remote
from dvhflax.training.checkpoint import Checkpoints
from dvhflax.training.checkpoint_files import has_checkpoint, newest_data
from dvhflax.training.step import TrainState

COHORT_FLAG = '--config.cohort.path'

# A run may be resumed with another value of these, and of all of `evaluation`.
_CHANGEABLE = (
  'checkpoint_every_epochs',
  'cohort.path',
  'cohort.raw',
  'data.placement',
  'data.read_ahead',
  'model.convolution',
)
# And of these, unless the learning rate depends on the last update.
_LENGTH = ('epochs', 'max_steps')


def check_same_run(
  checkpoints: Checkpoints, config: ml_collections.ConfigDict, workdir: str
) -> None:
  """Raises a CheckpointError if the workdir's run has another config."""
  if checkpoints.latest is None:
    return
  saved = config_lib.flatten(
    config_saved.read(checkpoints.json(checkpoints.latest, 'config'))
  )
  wanted = config_lib.flatten(config)
  cosine = wanted['optimizer.schedule'] == 'cosine'
  for key in sorted(wanted):
    length = key in _LENGTH
    free = key in _CHANGEABLE or key.startswith('evaluation.')
    if (length and not cosine) or free or saved.get(key) == wanted[key]:
      continue
    why = ', which the cosine of the learning rate follows' if length else ''
    raise errors.CheckpointError(
      f'{workdir} was trained with {key}={saved.get(key)!r}, now '
      f'{wanted[key]!r}{why}: use another --workdir or the former value'
    )


def resume(checkpoints: Checkpoints, state: TrainState) -> TrainState:
  """The state as last saved, or as given if nothing is saved yet."""
  step = checkpoints.latest
  if step is None:
    return state
  model = checkpoints.restore(step, 'model', state.predicting)
  target = counters(state)
  # Versions that kept the sum of the loss alone.
  if not checkpoints.has(step, 'train', 'term_sums'):
    del target['term_sums'], target['term_samples']
  train = checkpoints.restore(step, 'train', target)
  if int(train['step']) != step:
    raise errors.CheckpointError(
      f'{checkpoints.path}/{step} holds step {int(train["step"])}: it was '
      'renamed; give it its name back'
    )
  averaged = {name: model[name] for name in state.averaged}
  model = {**model, **train.pop('last', {})}
  state = dataclasses.replace(state, model=model, averaged=averaged, **train)
  return parallel.replicate(lambda s: s, state)


def counters(state: TrainState) -> dict[str, Any]:
  """What a checkpoint keeps of a state beside the variables that predict.

  Where these are a moving average, the `last` ones are among it.
  """
  kept = {
    field.name: getattr(state, field.name)
    for field in dataclasses.fields(state)
    if field.name not in ('model', 'averaged')
  }
  if state.averaged:
    kept['last'] = {name: state.model[name] for name in state.averaged}
  return kept


def open_cohort(config: ml_collections.ConfigDict, workdir: str) -> Cohort:
  """The cohort to train on: a run's own, or the configured, built if missing.

  Args:
    config: validated; see `config.py`.
    workdir: of `remote.absolute`; may hold a run, which keeps its cohort.

  Raises:
    CohortError: if the run's cohort is not found, or the one at its place is
      another.
  """
  partners.meet()
  with remote.opened(workdir) as there:
    if not has_checkpoint(there.path):
      return build.open_or_build_cohort(config)
    data = newest_data(there.path)
    if data is None:
      checkpoints = Checkpoints(there.path)
      data = checkpoints.json(checkpoints.find('latest'), 'data')
  path = identity.find(config.cohort.path, data, COHORT_FLAG)
  identity.require(Cohort.open(path), data, workdir, COHORT_FLAG)
  found = config.copy_and_resolve_references()
  found.cohort.path = path
  return build.open_checked(found)
