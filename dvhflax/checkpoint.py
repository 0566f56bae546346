"""Checkpoints: the one file that knows Orbax.

A checkpoint has four items: `model` (parameters, batch statistics, the DVH's
mean and spread: all that a prediction needs), `train` (optimiser and
counters), `config` and `data` (structures, grid, DVH vector) as JSON.
"""

import os
from typing import Any

from absl import logging
import jax
import numpy as np
import orbax.checkpoint as ocp
import orbax.checkpoint.checkpoint_managers as managers

from dvhflax import errors

_FOLDER = 'checkpoints'
# The saved metric that picks the best checkpoint.
METRIC = 'validation_loss'


class Checkpoints:
  """The checkpoints of one workdir: the latest and the best are kept."""

  def __init__(self, workdir: str, *, create: bool = False):
    """Opens the workdir's checkpoints.

    Args:
      workdir: absolute path.
      create: make the folder; else there must be a checkpoint in it.

    Raises:
      CheckpointError: if there is none and `create` is False.
    """
    logging.set_verbosity(logging.ERROR)  # Orbax tells every file it writes.
    self._path = os.path.join(workdir, _FOLDER)
    if not create and not os.path.isdir(self._path):
      raise errors.CheckpointError(
        f'{workdir} has no checkpoint: give the --workdir of a training run'
      )
    policy = managers.AnyPreservationPolicy(
      [
        managers.LatestN(1),
        managers.BestN(
          get_metric_fn=lambda metrics: metrics[METRIC], reverse=True, n=1
        ),
      ]
    )
    self._manager = ocp.CheckpointManager(
      self._path,
      options=ocp.CheckpointManagerOptions(
        create=create,
        preservation_policy=policy,
        best_fn=lambda metrics: metrics[METRIC],
        best_mode='min',
        cleanup_tmp_directories=create,
      ),
      item_names=('model', 'train', 'config', 'data'),
      item_handlers={
        'model': ocp.StandardCheckpointHandler(),
        'train': ocp.StandardCheckpointHandler(),
        'config': ocp.JsonCheckpointHandler(),
        'data': ocp.JsonCheckpointHandler(),
      },
    )
    if not create and self.latest is None:
      raise errors.CheckpointError(
        f'{workdir} has no checkpoint yet: train for an epoch first'
      )

  @property
  def latest(self) -> int | None:
    """The last saved step, None if there is none."""
    return self._manager.latest_step()

  @property
  def best(self) -> int | None:
    """The saved step of the least validation loss, None if there is none."""
    return self._manager.best_step()

  def find(self, which: str) -> int:
    """The step that `best`, `latest` or a number stands for.

    Raises:
      CheckpointError: if no such step is saved.
    """
    steps = {str(step): step for step in self._manager.all_steps()}
    steps |= {'best': self.best, 'latest': self.latest}
    if steps.get(which) is None:
      raise errors.CheckpointError(
        f'{self._path} has no checkpoint {which!r}; there are '
        f'{", ".join(steps)}'
      )
    return steps[which]

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
    """
    if step == self.latest:
      return
    # A host-local array of one process among several cannot be serialised.
    model, train = jax.device_get((model, train))
    saved = self._manager.save(
      step,
      args=ocp.args.Composite(
        model=ocp.args.StandardSave(model),
        train=ocp.args.StandardSave(train),
        config=ocp.args.JsonSave(config),
        data=ocp.args.JsonSave(data),
      ),
      metrics={METRIC: float(validation_loss)},
    )
    if not saved:
      raise errors.CheckpointError(
        f'{self._path} holds a later step than {step}; nothing was saved'
      )

  def restore(self, step: int, item: str, target: Any) -> Any:
    """An item of a step, as numpy arrays in the structure of `target`.

    Raises:
      CheckpointError: if its arrays have other names, shapes or types.
    """
    wanted = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), target)
    self._check(step, item, wanted)
    args = ocp.args.Composite(**{item: ocp.args.StandardRestore(wanted)})
    return self._manager.restore(step, args=args)[item]

  def _check(self, step: int, item: str, wanted: Any) -> None:
    """Orbax would return a stored, wrong shape and cast types in silence."""

    def describe(tree):
      return {
        _name(path): (tuple(x.shape), np.dtype(x.dtype))
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
      }

    stored = self._manager.item_metadata(step)[item]
    stored, wanted = describe(stored.tree), describe(wanted)
    for name in sorted(stored.keys() | wanted.keys()):
      if stored.get(name) != wanted.get(name):
        raise errors.CheckpointError(
          f'{self._path}/{step} is of another network: {name} is '
          f'{stored.get(name, "not stored")}, wanted '
          f'{wanted.get(name, "none")}; use another --workdir'
        )

  def json(self, step: int, item: str) -> dict[str, Any]:
    """The `config` or `data` item of a step."""
    args = ocp.args.Composite(**{item: ocp.args.JsonRestore()})
    return self._manager.restore(step, args=args)[item]

  def close(self) -> None:
    """Waits until all is written."""
    self._manager.wait_until_finished()
    self._manager.close()


def _name(path: Any) -> str:
  """`params/encoder_0_a/kernel`, whatever containers the leaf lies in."""
  keys = [
    getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k))) for k in path
  ]
  return '/'.join(map(str, keys))
