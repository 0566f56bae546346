"""Training: the validation, the run from its start or from a save."""

import collections
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
import os
import sys
import time
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
import tqdm

from dvhflax import config as config_lib
from dvhflax import errors, locks
from dvhflax.cohort import identity
from dvhflax.cohort.store import Cohort
from dvhflax.losses import dose_loss
from dvhflax.models.build import (
  build_unet,
  dvh_statistics,
)
from dvhflax.models.convolution import describe
from dvhflax.schedules import inverse_time_decay
from dvhflax.sources import build
from dvhflax.training import feed, parallel, partners
from dvhflax.training.checkpoint import Checkpoints
from dvhflax.training.history import History
from dvhflax.training.resuming import COHORT_FLAG, resume
from dvhflax.training.resuming import check_same_run as _check_same_run
from dvhflax.training.runs import data_item
from dvhflax.training.sampler import Draw, Sampler
from dvhflax.training.step import (
  TrainState,
  create_state,
  make_eval_step,
  make_train_step,
)
from dvhflax.training.stopping import Stopping
from dvhflax.training.trees import first_not_finite

# Losses are looked at so many updates late: waiting for the newest would
# leave the device idle.
_LAG = 2


def validation_loss(
  eval_step: Callable[..., jax.Array],
  variables: Any,
  source: feed.Source,
  sampler: Sampler,
  wishes: int,
  batch_size: int,
) -> float:
  """Mean loss over samples; a last batch is padded with samples of weight 0.

  Args:
    eval_step: of `make_eval_step`.
    variables: of the network.
    source: of the sampler's cohort.
    sampler: of the validation split.
    wishes: samples a patient, the same every time.
    batch_size: global batch, a multiple of the devices.
  """
  draw = sampler.fixed(wishes)
  number = len(draw.patients)
  sums = []
  for start in range(0, number, batch_size):
    index = start + np.arange(batch_size)[parallel.local_slice(batch_size)]
    weight = (index < number).astype(np.float32)
    index = np.minimum(index, number - 1)
    part = jax.tree.map(lambda x, i=index: x[i], draw)
    batch = parallel.shard(source.batch(sampler, part))
    sums.append(
      eval_step(variables, source.cohort, batch, parallel.shard(weight))
    )
  return float(np.sum(jax.device_get(sums), dtype=np.float64) / number)


class _LossWatch:
  """Raises once a loss is not finite, a few updates late, never waiting."""

  def __init__(self, schedule: optax.Schedule, cohort: Cohort, run: '_Run'):
    self._schedule, self._cohort, self._run = schedule, cohort, run
    self._waiting: collections.deque[tuple[int, jax.Array, Draw]] = (
      collections.deque()
    )
    self.last: float | None = None

  def add(self, step: int, loss: jax.Array, draw: Draw) -> None:
    self._waiting.append((step, loss, draw))
    self._look(_LAG)

  def flush(self) -> None:
    self._look(0)

  def _look(self, keep: int) -> None:
    while len(self._waiting) > keep:
      step, loss, draw = self._waiting.popleft()
      self.last = float(loss)
      if not np.isfinite(self.last):
        names = [self._cohort.patients[i].id for i in draw.patients]
        raise self._run.unsound(
          f'the loss is {self.last} at step {step}, learning rate '
          f'{float(self._schedule(step)):.3g}, patients {", ".join(names)}'
        )


@dataclasses.dataclass(frozen=True)
class _Run:
  """What stays the same during a run."""

  config: ml_collections.ConfigDict
  data: dict[str, Any]
  checkpoints: Checkpoints

  def save(self, state: TrainState, loss: float = float('inf')) -> None:
    """Saves a state that `check` has let pass, or one of no validation."""
    self.checkpoints.save(
      int(state.step),
      model=state.model,
      train={
        'step': state.step,
        'opt_state': state.opt_state,
        'loss_sum': state.loss_sum,
      },
      config=self.config.to_dict(),
      data=self.data,
      validation_loss=loss,
    )

  def check(self, state: TrainState, loss: float | None = None) -> None:
    """Raises a UserError if a state, or its validation loss, is not finite."""
    name = first_not_finite(jax.device_get(state))
    if name is not None:
      raise self.unsound(f'{name} is not finite after step {int(state.step)}')
    if loss is not None and not np.isfinite(loss):
      raise self.unsound(
        f'the validation loss is {loss} after step {int(state.step)}'
      )

  def unsound(self, what: str) -> errors.UserError:
    """The error for a training that has left the finite numbers."""
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


def train(
  config: ml_collections.ConfigDict,
  cohort: Cohort,
  workdir: str | os.PathLike[str],
) -> TrainState:
  """Trains, from the workdir's last checkpoint if there is one.

  Args:
    config: such as `config.default()`; `config/defaults.py` tells its keys.
    cohort: that of `open_or_build_cohort(config)`.
    workdir: path of a folder; made if need be; gets `checkpoints/`,
      `history.csv`, `speed.csv` and `tensorboard/`.

  Returns:
    The last state.

  Raises:
    ConfigError: for an impossible key of the configuration, or a batch that
      does not split over the devices.
    CheckpointError: if the workdir holds a run of another configuration.
    CohortError: if it holds one of another cohort, or `cohort` is not as
      configured.
    PartnerError: if another process of the training is gone.
    UserError: if a loss or a value of the state is not finite, which is not
      saved, or another process trains in the workdir.
    Interrupted: after SIGTERM or Ctrl-C, once the state is saved. In a thread
      other than the main one these do not reach it.
  """
  config_lib.validate(config)
  build.require_fit(cohort, config)
  workdir = os.path.abspath(workdir)
  parallel.check_batch_size(config.batch_size, config.batch_parts)
  os.makedirs(workdir, exist_ok=True)
  partners.meet()
  with partners.noticed(), _only_one(workdir):
    checkpoints = Checkpoints(workdir, create=True)
    try:
      state = _train(config, cohort, workdir, checkpoints)
    except (errors.UserError, errors.Interrupted):
      checkpoints.close()
      raise
    except BaseException:
      # Of several processes one may be gone, whom it would wait for.
      if jax.process_count() == 1:
        checkpoints.close()
      raise
    checkpoints.close()
  partners.meet()
  return state


@contextlib.contextmanager
def _only_one(workdir: str) -> Iterator[None]:
  """Raises a UserError if another run is at work in a workdir."""
  if jax.process_index() != 0:
    yield
    return
  lock = locks.try_lock(os.path.join(workdir, '.lock'))
  if lock is None:
    raise errors.UserError(
      f'another process is training in {workdir}: wait for it, or use another '
      '--workdir'
    )
  with lock:
    yield


def _train(
  config: ml_collections.ConfigDict,
  cohort: Cohort,
  workdir: str,
  checkpoints: Checkpoints,
) -> TrainState:
  _check_same_run(checkpoints, config, workdir)
  if checkpoints.latest is not None:
    saved = checkpoints.json(checkpoints.latest, 'data')
    identity.require(cohort, saved, workdir, COHORT_FLAG)
  batch_size = config.batch_size
  options = {'seed': config.seed, 'own_wish_share': config.data.own_wish_share}
  sampler = Sampler(
    cohort, 'train', **options, mirrored_share=config.data.mirrored_share
  )
  validation = Sampler(cohort, 'validation', **options)
  steps_per_epoch = sampler.steps_per_epoch(batch_size)
  total = config.epochs * steps_per_epoch
  if config.max_steps:
    total = min(total, config.max_steps)

  before = None
  if checkpoints.latest is not None:
    before = checkpoints.json(checkpoints.latest, 'data')
  data = data_item(cohort, before) | identity.item(cohort)
  model = build_unet(config, data, parallel.AXIS)
  schedule = inverse_time_decay(
    config.optimizer.learning_rate, config.optimizer.decay
  )
  tx = optax.adam(schedule)
  statistics = dvh_statistics(
    cohort.dvh[sampler.patients], cohort.valid[sampler.patients]
  )
  state = parallel.replicate(
    lambda key: create_state(model, tx, statistics, key),
    jax.random.key(config.seed),
  )
  state = resume(checkpoints, state)
  first = int(state.step)
  run = _Run(config, data, checkpoints)
  history = History(workdir, first, write=jax.process_index() == 0)
  if first >= total:
    print(f'{workdir} is trained already: {first} updates', file=sys.stderr)
    history.close()
    return state

  source = feed.Source(
    cohort,
    np.concatenate([sampler.patients, validation.patients]),
    config.data.placement,
  )
  loss_fn = functools.partial(dose_loss, **config.loss)
  several = jax.process_count() > 1
  train_step = make_train_step(
    model,
    tx,
    steps_per_epoch,
    loss_fn,
    parts=config.batch_parts,
    remat=config.model.remat,
    votes=several,
  )
  eval_step = make_eval_step(model, loss_fn)
  print(
    f'{total - first} updates on {jax.device_count()} '
    f'{jax.default_backend()} device(s), convolution '
    f'{describe(config.model.convolution)}, samples from {source.placement}',
    file=sys.stderr,
  )
  rng = jax.random.key(config.seed + 1)
  watch = _LossWatch(schedule, cohort, run)
  batches = feed.Feed(
    lambda step: sampler.draw(step, batch_size),
    lambda draw: parallel.shard(source.batch(sampler, feed.local(draw))),
    range(first, total),
    config.data.read_ahead,
  )
  bar = tqdm.tqdm(
    total=total,
    initial=first,
    unit='step',
    file=sys.stderr,
    desc='training',
    disable=jax.process_index() != 0,
    mininterval=1,
  )
  partners.meet()
  epoch_start, epoch_first = time.monotonic(), first
  waited_before = 0.0
  with (
    Stopping(_LAG) as stopping,
    bar,
    contextlib.closing(history),
    contextlib.closing(iter(batches)) as steps,
  ):
    for step, (drawn, batch) in enumerate(steps, first):
      if several:
        state, loss, votes = train_step(
          state, source.cohort, batch, rng, stopping.vote()
        )
        stopping.count(votes)
      else:
        state, loss = train_step(state, source.cohort, batch, rng)
      watch.add(step, loss, drawn)
      bar.update()
      if watch.last is not None:
        bar.set_postfix_str(f'loss {watch.last:.2e}', refresh=False)
      done = step + 1
      epoch_ends = done % steps_per_epoch == 0
      if epoch_ends or done == total:
        watch.flush()
        seconds = time.monotonic() - epoch_start
        seen = (done - 1) % steps_per_epoch + 1
        held_out = validation_loss(
          eval_step,
          state.model,
          source,
          validation,
          config.data.validation_wishes,
          batch_size,
        )
        run.check(state, held_out)
        history.add(
          epoch=-(-done // steps_per_epoch),
          step=done,
          train_loss=float(state.loss_sum) / (seen * batch_size),
          val_loss=held_out,
          learning_rate=float(schedule(done)),
          samples_per_s=(done - epoch_first) * batch_size / seconds,
          waiting_share=(batches.waited_s - waited_before) / seconds,
        )
        bar.write(history.line(), file=sys.stderr)
        epoch = done // steps_per_epoch
        if done == total or epoch % config.checkpoint_every_epochs == 0:
          run.save(state, held_out)
        epoch_start, epoch_first = time.monotonic(), done
        waited_before = batches.waited_s
      if stopping.now():
        break
    # Within the handlers: a second process's signal must not end the saving.
    step = int(state.step)
    if stopping.signal and step < total:
      watch.flush()
      run.check(state)
      run.save(state)
      checkpoints.wait()
      raise errors.Interrupted(
        f'saved step {step} in {workdir}; run again to go on',
        stopping.signal,
        step,
      )
    checkpoints.wait()
  return state
