"""What a run needs before its first update."""

from collections.abc import Callable
import dataclasses
import functools
import sys
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from dvhflax import errors
from dvhflax.cohort import identity
from dvhflax.cohort.store import Cohort
from dvhflax.losses import dose_loss
from dvhflax.models.build import build_unet, dvh_statistics
from dvhflax.models.unet import UNet
from dvhflax.schedules import learning_rate
from dvhflax.training import first_dose, parallel, partners, remote
from dvhflax.training.checkpoint import Checkpoints
from dvhflax.training.checkpoint_files import set_aside
from dvhflax.training.resuming import (
  COHORT_FLAG,
  check_same_run,
  counters,
  resume,
)
from dvhflax.training.runs import data_item
from dvhflax.training.sampler import Sampler
from dvhflax.training.step import LossFn, TrainState, create_state
from dvhflax.training.trees import first_not_finite


@dataclasses.dataclass(frozen=True)
class Run:
  """What stays the same during a run.

  Attributes:
    config: validated.
    cohort: of the run.
    workdir: absolute path.
    checkpoints: of the workdir.
    data: of `data_item`, with the cohort's identity.
    sampler: of the training patients.
    validation: of the validation patients.
    total: updates of the whole run.
    model: network with `axis_name=parallel.AXIS`.
    schedule: learning rate after so many updates.
    tx: optimiser.
    loss: of a batch.
    send: sends a workdir at a URL what is saved; None for a folder.
  """

  config: ml_collections.ConfigDict
  cohort: Cohort
  workdir: str
  checkpoints: Checkpoints
  data: dict[str, Any]
  sampler: Sampler
  validation: Sampler
  total: int
  model: UNet
  schedule: optax.Schedule
  tx: optax.GradientTransformation
  loss: LossFn
  send: Callable[[], None] | None = None

  @property
  def steps_per_epoch(self) -> int:
    """Updates of an epoch."""
    return self.sampler.steps_per_epoch(self.config.batch_size)

  def initial_state(self) -> TrainState:
    """The state as last saved, or before the first update."""
    patients = self.sampler.patients
    statistics = dvh_statistics(
      self.cohort.dvh[patients], self.cohort.valid[patients]
    )
    anatomy = None
    if first_dose.needed(self.config) and self.checkpoints.latest is None:
      anatomy = first_dose.variables(self.workdir)
    state = parallel.replicate(
      lambda key: create_state(
        self.model,
        self.tx,
        statistics,
        key,
        self.loss,
        anatomy,
        averages=self.config.optimizer.average > 0,
      ),
      jax.random.key(self.config.seed),
    )
    return resume(self.checkpoints, state)

  def save(self, state: TrainState, loss: float = float('inf')) -> None:
    """Saves a state that `check` has let pass, or one of no validation."""
    self.checkpoints.save(
      int(state.step),
      model=state.predicting,
      train=counters(state),
      config=self.config.to_dict(),
      data=self.data,
      validation_loss=loss,
    )
    if self.send is not None:
      self.checkpoints.wait()
      self.send()

  def check(self, state: TrainState, loss: float | None = None) -> None:
    """Raises a UserError if a state, or its validation loss, is not finite."""
    name = first_not_finite(jax.device_get(state))
    if name is not None:
      raise self.not_finite(
        f'{name} is not finite after step {int(state.step)}'
      )
    if loss is not None and not np.isfinite(loss):
      raise self.not_finite(
        f'the validation loss is {loss} after step {int(state.step)}'
      )

  def not_finite(self, what: str) -> errors.UserError:
    """The error for a training in which a value is not finite."""
    self.checkpoints.wait()
    step, path = self.checkpoints.sound, self.checkpoints.path
    return errors.UserError(
      f'{what}; '
      + (
        'no sound checkpoint was saved'
        if step is None
        else f'the last sound checkpoint is step {step}, {path}/{step}'
      )
      + ': train with a lower optimizer.learning_rate in another --workdir, or '
      'look at the patients with dvhflax validate'
    )


def begin(
  config: ml_collections.ConfigDict,
  cohort: Cohort,
  workdir: str,
  there: remote.Workdir | None = None,
) -> tuple[Run, TrainState]:
  """The run of a workdir, and its state as last saved.

  A damaged checkpoint is set aside, which is said, and the one before it taken:
  the run ends alike, for each update follows from the configuration alone.

  Args:
    config: validated.
    cohort: of the run.
    workdir: absolute path, which no other run is at work in.
    there: of it, if it stands for a URL.

  Raises:
    CheckpointError: if the workdir holds a run of another configuration, or
      damaged checkpoints only.
    CohortError: if it holds one of another cohort.
  """
  there = there or remote.Workdir(workdir, workdir)
  while True:
    checkpoints = fault = None
    try:
      checkpoints = Checkpoints(workdir, create=True)
      run = set_up(config, cohort, workdir, checkpoints)
      state = run.initial_state()
    except errors.UserError as error:
      if (
        not isinstance(error, errors.DamagedCheckpoint) or error.before is None
      ):
        if checkpoints is not None:
          checkpoints.close()
        raise
      fault = error
    # A file may be unreadable on one host alone.
    step = partners.greatest(-1 if fault is None else fault.step)
    if step < 0:
      return dataclasses.replace(run, send=there.send), state
    if checkpoints is not None:
      checkpoints.close()
    if jax.process_index() == 0:
      aside = set_aside(workdir, step)
      why = f'step {step} is damaged' if fault is None else f'{fault}'
      note = (
        f'note: {why.partition(": remove")[0]}: set aside as {aside}; the run '
        'goes on from the checkpoint before'
      )
      print(there.shown(note), file=sys.stderr)
    partners.meet()


def set_up(
  config: ml_collections.ConfigDict,
  cohort: Cohort,
  workdir: str,
  checkpoints: Checkpoints,
) -> Run:
  """The run that a configuration describes, or that the workdir holds.

  Raises:
    CheckpointError: if the workdir holds a run of another configuration.
    CohortError: if it holds one of another cohort.
  """
  check_same_run(checkpoints, config, workdir)
  before = None
  if checkpoints.latest is not None:
    before = checkpoints.json(checkpoints.latest, 'data')
    identity.require(cohort, before, workdir, COHORT_FLAG)
  data = data_item(cohort, before) | identity.item(cohort)
  sampler = Sampler(
    cohort,
    'train',
    seed=config.seed,
    own_wish_share=config.data.own_wish_share,
    bent_wish_share=config.data.bent_wish_share,
    mirrored_share=config.data.mirrored_share,
  )
  total = config.epochs * sampler.steps_per_epoch(config.batch_size)
  total = min(total, config.max_steps or total)
  optimizer = config.optimizer
  schedule = learning_rate(
    optimizer.schedule,
    optimizer.learning_rate,
    decay=optimizer.decay,
    warmup=optimizer.warmup_steps,
    total=total,
  )
  tx = optax.adam(schedule)
  if optimizer.clip_norm:
    tx = optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), tx)
  return Run(
    config=config,
    cohort=cohort,
    workdir=workdir,
    checkpoints=checkpoints,
    data=data,
    sampler=sampler,
    validation=Sampler(
      cohort,
      'validation',
      seed=config.seed,
      own_wish_share=config.data.validation_own_wish_share,
      bent_wish_share=config.data.validation_bent_wish_share,
    ),
    total=total,
    model=build_unet(config, data, parallel.AXIS),
    schedule=schedule,
    tx=tx,
    loss=functools.partial(dose_loss, **config.loss),
  )
