"""Training: the validation, the run from its start or from a save."""

import collections
from collections.abc import Callable
import dataclasses
import functools
import signal
import sys
import time
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
import tqdm

from dvhflax import config as config_lib
from dvhflax import errors, parallel
from dvhflax.checkpoint import Checkpoints
from dvhflax.cohort import feed
from dvhflax.cohort.sampler import Draw, Sampler
from dvhflax.cohort.store import Cohort
from dvhflax.history import History
from dvhflax.losses import dose_loss
from dvhflax.models.build import (
  build_unet,
  data_item,
  dvh_statistics,
)
from dvhflax.models.convolution import describe
from dvhflax.schedules import inverse_time_decay
from dvhflax.step import (
  TrainState,
  create_state,
  make_eval_step,
  make_train_step,
)

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


class _Interrupted:
  """SIGTERM and Ctrl-C set a flag, so that the run saves before it leaves."""

  signal: int | None = None

  def __enter__(self):
    def note(number, _):
      # A second one is not caught: it ends the run at once.
      signal.signal(number, self._before[number])
      self.signal = number

    self._before = {
      s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)
    }
    return self

  def __exit__(self, *_):
    for number, handler in self._before.items():
      signal.signal(number, handler)


class _LossWatch:
  """Raises once a loss is not finite, a few updates late, never waiting."""

  def __init__(self, schedule: optax.Schedule, cohort: Cohort):
    self._schedule = schedule
    self._cohort = cohort
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
        raise errors.UserError(
          f'the loss is {self.last} at step {step}, learning rate '
          f'{float(self._schedule(step)):.3g}, patients {", ".join(names)}; '
          'the last checkpoint is sound: lower optimizer.learning_rate, or '
          'look at these patients with dvhflax.cohort.validate'
        )


@dataclasses.dataclass(frozen=True)
class _Run:
  """What stays the same during a run."""

  config: ml_collections.ConfigDict
  data: dict[str, Any]
  checkpoints: Checkpoints

  def save(self, state: TrainState, loss: float = float('inf')) -> None:
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


# A run may go on with another value of these.
_CHANGEABLE = (
  'epochs',
  'max_steps',
  'checkpoint_every_epochs',
  'cohort.path',
  'cohort.raw',
  'data.placement',
  'data.read_ahead',
  'model.convolution',
  'evaluation.wishes',
  'evaluation.batch_size',
)


def _check_same_run(
  checkpoints: Checkpoints, config: ml_collections.ConfigDict, workdir: str
) -> None:
  """Raises a CheckpointError if the workdir's run has another config."""
  if checkpoints.latest is None:
    return
  saved = ml_collections.ConfigDict(
    checkpoints.json(checkpoints.latest, 'config')
  )
  # A key that is newer than the run had the effect of its default.
  saved = config_lib.flatten(config_lib.default()) | config_lib.flatten(saved)
  wanted = config_lib.flatten(config)
  for key in sorted(wanted):
    if key not in _CHANGEABLE and saved.get(key) != wanted[key]:
      raise errors.CheckpointError(
        f'{workdir} was trained with {key}={saved.get(key)!r}, now '
        f'{wanted[key]!r}: use another --workdir or the former value'
      )


def _resume(checkpoints: Checkpoints, state: TrainState) -> TrainState:
  """The state as last saved, or as given if nothing is saved yet."""
  step = checkpoints.latest
  if step is None:
    return state
  model = checkpoints.restore(step, 'model', state.model)
  train = checkpoints.restore(
    step,
    'train',
    {
      'step': state.step,
      'opt_state': state.opt_state,
      'loss_sum': state.loss_sum,
    },
  )
  return parallel.replicate(lambda s: s, TrainState(model=model, **train))


def train(
  config: ml_collections.ConfigDict, cohort: Cohort, workdir: str
) -> TrainState:
  """Trains, from the workdir's last checkpoint if there is one.

  Args:
    config: validated; see `config.py`.
    cohort: fits the config.
    workdir: absolute path; gets `checkpoints/`, `history.csv` and
      `tensorboard/`.

  Returns:
    The last state.

  Raises:
    ConfigError: if the batch does not split over the devices.
    CheckpointError: if the workdir holds a run of another configuration.
    UserError: if the loss is not finite.
    SystemExit: after SIGTERM or Ctrl-C, once the state is saved.
  """
  parallel.check_batch_size(config.batch_size, config.batch_parts)
  checkpoints = Checkpoints(workdir, create=True)
  _check_same_run(checkpoints, config, workdir)
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
  data = data_item(cohort, before)
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
  state = _resume(checkpoints, state)
  first = int(state.step)
  run = _Run(config, data, checkpoints)
  history = History(workdir, first, write=jax.process_index() == 0)
  if first >= total:
    print(f'{workdir} is trained already: {first} updates')
    checkpoints.close()
    return state

  source = feed.Source(
    cohort,
    np.concatenate([sampler.patients, validation.patients]),
    config.data.placement,
  )
  loss_fn = functools.partial(dose_loss, **config.loss)
  train_step = make_train_step(
    model,
    tx,
    steps_per_epoch,
    loss_fn,
    parts=config.batch_parts,
    remat=config.model.remat,
  )
  eval_step = make_eval_step(model, loss_fn)
  print(
    f'{total - first} updates on {jax.device_count()} '
    f'{jax.default_backend()} device(s), convolution '
    f'{describe(config.model.convolution)}, samples from {source.placement}',
    flush=True,
  )
  rng = jax.random.key(config.seed + 1)
  watch = _LossWatch(schedule, cohort)
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
  epoch_start, epoch_first = time.monotonic(), first
  waited_before = 0.0
  with _Interrupted() as interrupted, bar:
    for step, (drawn, batch) in enumerate(batches, first):
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
      if interrupted.signal is not None:
        break
  watch.flush()
  if interrupted.signal is not None and int(state.step) < total:
    run.save(state)
    checkpoints.close()
    print(f'saved step {int(state.step)} in {workdir}; run again to go on')
    sys.exit(128 + interrupted.signal)
  checkpoints.close()
  history.close()
  return state
