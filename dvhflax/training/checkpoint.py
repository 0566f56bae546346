"""Checkpoints: the one file that knows Orbax.

A checkpoint has four items: `model` (parameters, batch statistics, the DVH's
mean and spread: all that a prediction needs), `train` (optimiser and
counters), `config` and `data` (structures, grid, DVH vector) as JSON. A fifth
one, `sums`, has checksums of the first two, so that a value that the disk has
changed is an error; older checkpoints lack it.
"""

from collections.abc import Iterator
import contextlib
import glob
import json
import logging
import math
import os
import pathlib
import shutil
import sys
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import orbax.checkpoint.checkpoint_managers as managers

from dvhflax import errors
from dvhflax.checksum import checksum
from dvhflax.training import checkpoint_files, partners
from dvhflax.training.trees import first_not_finite, named

_DISCARDED = '.discarded'
_SUMS = 'sums'
# The saved metric that picks the best checkpoint.
METRIC = 'validation_loss'


class Checkpoints:
  """The checkpoints of one workdir: the latest two and the best are kept."""

  def __init__(self, workdir: str, *, create: bool = False):
    """Opens the workdir's checkpoints.

    Args:
      workdir: absolute path.
      create: make the folder; else there must be a checkpoint in it.

    Raises:
      CheckpointError: if there is none and `create` is False.
      DamagedCheckpoint: if there is one whose validation loss is damaged.
    """
    self._path = os.path.join(workdir, checkpoint_files.FOLDER)
    self._writes = create
    if not create and not os.path.isdir(self._path):
      raise errors.CheckpointError(
        f'{workdir} has no checkpoint: give the --workdir of a training run'
      )
    policy = managers.AnyPreservationPolicy(
      [
        # One to go on from if the newest is damaged.
        managers.LatestN(2),
        managers.BestN(get_metric_fn=_ranked, reverse=True, n=1),
      ]
    )
    self._check_losses()
    try:
      self._manager = ocp.CheckpointManager(
        self._path,
        options=ocp.CheckpointManagerOptions(
          create=create,
          preservation_policy=policy,
          best_fn=_ranked,
          best_mode='min',
          cleanup_tmp_directories=create,
          # Renamed first: a run that is killed meanwhile leaves no half of one.
          todelete_subdir=_DISCARDED if create else None,
        ),
        item_names=('model', 'train', 'config', 'data', _SUMS),
        item_handlers={
          'model': ocp.StandardCheckpointHandler(),
          'train': ocp.StandardCheckpointHandler(),
          'config': ocp.JsonCheckpointHandler(),
          'data': ocp.JsonCheckpointHandler(),
          _SUMS: ocp.JsonCheckpointHandler(),
        },
      )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
      # What Orbax makes of a damaged `_CHECKPOINT_METADATA`.
      raise errors.CheckpointError(
        f'{self._path} cannot be opened, one of its checkpoints is damaged '
        f'({_first_line(error)}): restore that folder, or remove it'
      ) from None
    self._folder = checkpoint_files.identity(self._path)
    if create:
      self._discard()
    if not create and self.latest is None:
      raise errors.CheckpointError(
        f'{workdir} has no checkpoint yet: train for an epoch first'
      )

  def _check_losses(self) -> None:
    """Orbax would open none of the checkpoints for one faulty file."""
    for path in sorted(glob.glob(f'{self._path}/*/metrics/metrics')):
      try:
        with open(path, encoding='utf-8') as file:
          json.load(file)
      except (ValueError, RecursionError):
        step = int(pathlib.Path(path).parents[1].name)
        raise errors.DamagedCheckpoint(
          f'{path} is damaged: remove it, and name a checkpoint in place of '
          'the best',
          step,
          max(
            (s for s in checkpoint_files.steps(self._path) if s != step),
            default=None,
          ),
        ) from None

  @property
  def path(self) -> str:
    """Folder of the checkpoints."""
    return self._path

  @property
  def latest(self) -> int | None:
    """The last saved step, None if there is none."""
    return self._manager.latest_step()

  @property
  def best(self) -> int | None:
    """The saved step of the least validation loss, None if there is none.

    Where none was validated, the run having been stopped before, it is the
    latest one.

    Raises:
      CheckpointError: if a checkpoint has lost its validation loss.
    """
    losses = {
      step: self._loss(step)
      for step in self._manager.all_steps()
      if not self._half_deleted(step)
    }
    lost = [step for step, loss in losses.items() if loss is None]
    if lost:
      raise errors.CheckpointError(
        f'{self._path}/{lost[0]} has lost its validation loss (metrics), so '
        'that the best checkpoint is not known: name one, --checkpoint=latest '
        f'or {_listed(losses, "--checkpoint=")}, or remove that folder'
      )
    # Versions that did not check have saved a loss of NaN.
    known = [(x, -step) for step, x in losses.items() if x is not None]
    known = [pair for pair in known if not math.isnan(pair[0])]
    return -min(known)[1] if known else None

  @property
  def sound(self) -> int | None:
    """The last step whose validation loss is a finite number, if any."""
    finite = [
      step
      for step in self._manager.all_steps()
      if (loss := self._loss(step)) is not None and math.isfinite(loss)
    ]
    return max(finite, default=None)

  def _half_deleted(self, step: int) -> bool:
    """Whether an earlier run was killed as it removed this checkpoint."""
    whole = os.path.join(self._path, str(step), checkpoint_files.MARKER)
    return (
      step != self.latest
      and self._loss(step) is None
      and not os.path.exists(whole)
    )

  def _discard(self) -> None:
    """Removes what was renamed for that."""
    if jax.process_index() == 0:
      path = os.path.join(self._path, _DISCARDED)
      shutil.rmtree(path, ignore_errors=True)

  def _loss(self, step: int) -> float | None:
    """A step's validation loss; None if it is lost."""
    try:
      return float(self._manager.metrics(step)[METRIC])
    except Exception:  # Whatever Orbax makes of a file that is damaged.
      return None

  def find(self, which: str) -> int:
    """The step that `best`, `latest` or a number stands for.

    Raises:
      CheckpointError: if no such step is saved, or the best is not known.
    """
    steps: dict[str, int | None] = {
      str(step): step for step in self._manager.all_steps()
    }
    steps['latest'] = self.latest
    if which == 'best':
      steps['best'] = self.best
      if steps['best'] is not None and self.sound is None:
        print(
          'note: there is no checkpoint that was validated; best is the '
          f'latest, step {self.latest}',
          file=sys.stderr,
        )
    found = steps.get(which)
    if found is None:
      raise errors.CheckpointError(
        f'{self._path} has no checkpoint {which!r}; there are '
        f'{", ".join(dict.fromkeys([*steps, "best"]))}'
      )
    return found

  def save(
    self,
    step: int,
    *,
    model: Any,
    train: Any,
    config: dict[str, Any],
    data: dict[str, Any],
    validation_loss: float,
  ) -> None:
    """Starts writing a checkpoint; `close` waits for it.

    Args:
      step: more than any saved step; one that is saved already is left.
      model: pytree of arrays.
      train: pytree of arrays.
      config: JSON-serialisable.
      data: JSON-serialisable.
      validation_loss: infinity where the step was not validated.

    Raises:
      CheckpointError: if a value is not finite, in which case nothing is
        saved, or the disk does not take it.
    """
    if step == self.latest:
      return
    # A host-local array of one process among several cannot be serialised.
    model, train = jax.device_get((model, train))
    name = first_not_finite({'model': model, 'train': train})
    if name is None and math.isnan(validation_loss):
      name = 'the validation loss'
    if name is not None:
      raise errors.CheckpointError(
        f'step {step} is not saved: {name} is not finite'
      )
    args = ocp.args.Composite(
      model=ocp.args.StandardSave(model),
      train=ocp.args.StandardSave(train),
      config=ocp.args.JsonSave(config),
      data=ocp.args.JsonSave(data),
      sums=ocp.args.JsonSave({'model': _sum(model), 'train': _sum(train)}),
    )
    metrics = {METRIC: float(validation_loss)}
    self.wait()
    with self._writing():
      saved = self._manager.save(step, args=args, metrics=metrics)
    if not saved:
      raise errors.CheckpointError(
        f'{self._path} holds a later step than {step}; nothing was saved'
      )

  def restore(self, step: int, item: str, target: Any) -> Any:
    """An item of a step, as numpy arrays in the structure of `target`.

    Raises:
      DamagedCheckpoint: if it is missing or damaged, or holds a value that is
        not finite.
      CheckpointError: if its arrays have other names, shapes or types.
    """
    wanted = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), target)
    args = ocp.args.Composite(**{item: ocp.args.StandardRestore(wanted)})
    self._require(step, item)
    try:
      with partners.noticed():
        self._check(step, item, wanted)
        restored = self._manager.restore(step, args=args)[item]
    except (errors.UserError, MemoryError):
      raise
    except Exception as error:  # Whatever Orbax makes of damaged files.
      raise self._unusable(step, item, 'damaged', error) from None
    summed = os.path.isdir(os.path.join(self._path, str(step), _SUMS))
    if summed and self.json(step, _SUMS).get(item) != _sum(restored):
      raise self._unusable(step, item, 'damaged', 'of another checksum')
    name = first_not_finite(restored)
    if name is not None:
      raise self._unusable(step, item, f'not finite in {name}')
    return restored

  def has(self, step: int, item: str, name: str) -> bool:
    """Whether an item of a step, if it can be read at all, has a part."""
    try:
      with partners.noticed():
        tree = self._manager.item_metadata(step)[item].tree
    except errors.UserError:
      raise
    except Exception:  # `restore` says what is wrong with it.
      return True
    return name in tree

  def _require(self, step: int, item: str) -> None:
    if not os.path.isdir(os.path.join(self._path, str(step), item)):
      raise self._unusable(step, item, 'missing')

  def _unusable(
    self, step: int, item: str, how: str, error: Exception | str = ''
  ) -> errors.DamagedCheckpoint:
    others = [s for s in self._manager.all_steps() if s != step]
    reason = _first_line(error) if isinstance(error, Exception) else error
    reason = f' ({reason})' if reason else ''
    return errors.DamagedCheckpoint(
      f'{self._path}/{step}: its {item!r} is {how}{reason}: '
      + (
        f'remove that folder to use step {max(others)} in its place'
        if others
        else 'restore that folder, or train in another --workdir'
      ),
      step,
      max(others, default=None),
    )

  def require_folder(self) -> None:
    """Raises a StorageError if the workdir is gone, as by an unmounted disk.

    Else files would be made where it was, apart from those of before.
    """
    # Orbax may have made another one as it saved.
    if (
      self._folder is None
      or checkpoint_files.identity(self._path) != self._folder
    ):
      raise errors.StorageError(
        f'{self._path} is gone, which this run was saving in: bring it back '
        '(what may lie there now was begun after that; remove it), and run the '
        'same command again; it resumes from the last checkpoint'
      )

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Raises an error of what the disk does not take."""
    try:
      with partners.noticed():
        yield
    except errors.UserError:
      raise
    except Exception as error:  # TensorStore's are of several kinds.
      self.require_folder()
      raise errors.CheckpointError(
        f'{self._path}: the checkpoint was not written: '
        f'{errors.storage(_first_line(error))}'
      ) from error

  def _check(self, step: int, item: str, wanted: Any) -> None:
    """Orbax would return a stored, wrong shape and cast types in silence."""
    stored, wanted = (
      {name: (tuple(x.shape), np.dtype(x.dtype)) for name, x in named(tree)}
      for tree in (self._manager.item_metadata(step)[item].tree, wanted)
    )
    for name in sorted(stored.keys() | wanted.keys()):
      if stored.get(name) != wanted.get(name):
        raise errors.CheckpointError(
          f'{self._path}/{step} is of another network: {name} is '
          f'{stored.get(name, "not stored")}, wanted '
          f'{wanted.get(name, "none")}; use another --workdir'
        )

  def json(self, step: int, item: str) -> dict[str, Any]:
    """The `config` or `data` item of a step.

    Raises:
      DamagedCheckpoint: if it is missing or damaged.
    """
    self._require(step, item)
    args = ocp.args.Composite(**{item: ocp.args.JsonRestore()})
    try:
      with partners.noticed():
        values = self._manager.restore(step, args=args)[item]
      if not isinstance(values, dict):
        raise ValueError('no JSON object')
    except errors.UserError:
      raise
    except Exception as error:  # Whatever Orbax makes of damaged files.
      raise self._unusable(step, item, 'damaged', error) from None
    return values

  def wait(self) -> None:
    """Waits until all is written; raises as `close`."""
    with self._writing():
      self._manager.wait_until_finished()
    self._discard()

  def close(self) -> None:
    """Waits until all is written.

    Raises:
      CheckpointError: if it was not.
    """
    with self._writing():
      self._manager.close()
    if self._writes:
      self._discard()


def quiet() -> None:
  """Keeps Orbax's log from the terminal: for a command, to call once.

  It reports every file, and an error with its whole trace, before it
  raises it; and of a damaged checkpoint, the arrays that come after its error
  find nobody to take them, which Python would report each.
  """
  before = sys.unraisablehook

  def unraisable(found: Any) -> None:
    if str(found.exc_value) != 'Event loop is closed':
      before(found)

  sys.unraisablehook = unraisable
  package = os.path.dirname(ocp.__file__)
  logging.getLogger('absl').addFilter(
    lambda record: not record.pathname.startswith(package)
  )


def _ranked(metrics: Any) -> float:
  """A validation loss for Orbax to compare; the worst where there is none."""
  try:
    loss = float(metrics[METRIC])
  except (KeyError, TypeError, ValueError):
    return math.inf
  return math.inf if math.isnan(loss) else loss


def _sum(tree: Any) -> str:
  """Of an item's arrays, whatever the containers."""
  return checksum(dict(named(tree)))


def _first_line(error: BaseException) -> str:
  text = (str(error).splitlines() or [type(error).__name__])[0]
  # TensorStore's tell the reason at their end.
  return text if len(text) <= 200 else f'{text[:80]} ... {text[-120:]}'


def _listed(steps: Any, prefix: str) -> str:
  return ' or '.join(f'{prefix}{step}' for step in sorted(steps))
