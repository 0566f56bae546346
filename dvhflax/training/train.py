"""Training: the loop, the end of an epoch, and stopping.

`setup.py` has what comes before the loop, `step.py` the update itself.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
import os
import sys
import time
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm

from dvhflax import config as config_lib
from dvhflax import errors, locks
from dvhflax.cohort.store import Cohort
from dvhflax.losses import Loss
from dvhflax.models import build as models_build
from dvhflax.models.convolution import describe
from dvhflax.sources import build
from dvhflax.training import feed, first_dose, parallel, partners, remote
from dvhflax.training.bundle import is_bundle
from dvhflax.training.checkpoint_files import has_checkpoint
from dvhflax.training.history import History
from dvhflax.training.sampler import Sampler
from dvhflax.training.setup import Run, begin
from dvhflax.training.step import (
  TrainState,
  make_eval_step,
  make_train_step,
  term_names,
)
from dvhflax.training.stopping import Stopping
from dvhflax.training.watch import LAG, LossWatch


def validation_loss(
  eval_step: Callable[..., Loss],
  variables: Any,
  source: feed.Source,
  sampler: Sampler,
  wishes: int,
  batch_size: int,
) -> tuple[float, dict[str, float]]:
  """Mean loss over samples; a last batch is padded with samples of weight 0.

  Args:
    eval_step: of `make_eval_step`.
    variables: of the network.
    source: of the sampler's cohort.
    sampler: of the validation split.
    wishes: samples a patient, the same every time.
    batch_size: global batch, a multiple of the devices.

  Returns:
    The loss, and each of its terms by name.
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
  means = jax.tree.map(
    lambda *x: float(np.sum(x, dtype=np.float64) / number),
    *jax.device_get(sums),
  )
  return means.total, means.terms


def train(
  config: ml_collections.ConfigDict,
  cohort: Cohort,
  workdir: str | os.PathLike[str],
) -> TrainState:
  """Trains, from the workdir's last checkpoint if there is one.

  Args:
    config: such as `config.default()`; `config/defaults.py` lists its keys.
    cohort: that of `open_or_build_cohort(config)`.
    workdir: path of a folder, made if missing, or a URL; gets `checkpoints/`,
      `history.csv`, `terms.csv`, `speed.csv` and `tensorboard/`.

  Returns:
    The last state.

  Raises:
    ConfigError: for an impossible key of the configuration, or a batch that
      does not split over the devices, or a URL that can only be read or that
      several processes train in.
    CheckpointError: if the workdir holds a run of another configuration, or is
      a bundle.
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
  workdir = remote.absolute(workdir)
  if is_bundle(workdir):
    raise errors.CheckpointError(
      f'{workdir} is a bundle, which is not trained on: use another --workdir'
    )
  parallel.check_batch_size(config.batch_size, config.batch_parts)
  if first_dose.needed(config) and not _is_begun(workdir):
    anatomy = first_dose.workdir_of(workdir)
    print(
      f'the first dose: its network is trained in {anatomy}', file=sys.stderr
    )
    train(first_dose.config_of(config), cohort, anatomy)
  partners.meet()
  with (
    remote.training(workdir) as there,
    partners.noticed(),
    _only_one(there.path),
  ):
    run, state = begin(config, cohort, there.path, there)
    try:
      if there.send is not None:
        there.send()
      state = _train(run, state, there)
    except (errors.UserError, errors.Interrupted):
      run.checkpoints.close()
      raise
    except BaseException:
      # It would wait for a process that is gone.
      if jax.process_count() == 1:
        run.checkpoints.close()
      raise
    run.checkpoints.close()
    if there.send is not None:
      there.send()
  partners.meet()
  return state


def _is_begun(workdir: str) -> bool:
  with remote.opened(workdir) as there:
    return has_checkpoint(there.path)


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


def _train(run: Run, state: TrainState, there: remote.Workdir) -> TrainState:
  first = int(state.step)
  history = History(
    run.workdir, first, term_names(run.loss), write=jax.process_index() == 0
  )
  with contextlib.closing(history):
    if first >= run.total:
      print(
        f'{there.name} is trained already: {first} updates', file=sys.stderr
      )
      return state
    return _loop(run, state, history)


def _loop(run: Run, state: TrainState, history: History) -> TrainState:
  """Trains from a state to the end of the run, or until a signal."""
  first, batch_size = int(state.step), run.config.batch_size
  prepare = functools.partial(
    models_build.prepare(run.model), _constants(state)
  )
  source = feed.Source(
    run.cohort, run.sampler.patients, run.config.data.placement, prepare
  )
  update = _make_update(run, source)
  # A few samples, once an epoch, of patients that may have hundreds of plans.
  held_out = feed.Source(run.cohort, run.validation.patients, 'store', prepare)
  validate = _make_validate(run, held_out)
  print(
    f'{run.total - first} updates on {jax.device_count()} '
    f'{jax.default_backend()} device(s), convolution '
    f'{describe(run.config.model.convolution)}, samples from '
    f'{source.placement}',
    file=sys.stderr,
  )
  watch = LossWatch(run)
  batches = feed.Feed(
    lambda step: run.sampler.draw(step, batch_size),
    lambda draw: parallel.shard(source.batch(run.sampler, feed.local(draw))),
    range(first, run.total),
    run.config.data.read_ahead,
  )
  bar = _bar(first, run.total)
  partners.meet()
  speed = _Speed(batches, batch_size)
  with (
    Stopping(LAG) as stopping,
    bar,
    contextlib.closing(iter(batches)) as steps,
  ):
    for step, (drawn, batch) in enumerate(steps, first):
      state, loss = update(state, batch, stopping)
      watch.add(step, loss, drawn)
      bar.update()
      if watch.last is not None:
        bar.set_postfix_str(f'loss {watch.last:.2e}', refresh=False)
      done = step + 1
      if done % run.steps_per_epoch == 0 or done == run.total:
        watch.flush()
        measured = speed.measure(done - first)
        _end_epoch(run, state, history, validate(state), measured)
        bar.write(history.line(), file=sys.stderr)
        speed.start(done - first)
      if stopping.now():
        break
    # Within the handlers: a second process's signal must not end the saving.
    if stopping.signal and int(state.step) < run.total:
      watch.flush()
      _save_and_stop(run, state, stopping.signal)
    run.checkpoints.wait()
  return state


def _constants(state: TrainState) -> Any:
  """The network's variables that no update changes."""
  trained = ('params', 'batch_stats')
  kept = {k: v for k, v in state.model.items() if k not in trained}
  # Copied: an update takes the state's own arrays away.
  return jax.device_get(kept)


def _make_update(
  run: Run, source: feed.Source
) -> Callable[[TrainState, Any, Stopping], tuple[TrainState, jax.Array]]:
  """`update(state, batch, stopping) -> state, loss`."""
  several = jax.process_count() > 1
  step = make_train_step(
    run.model,
    run.tx,
    run.steps_per_epoch,
    run.loss,
    parts=run.config.batch_parts,
    remat=run.config.model.remat,
    votes=several,
    average=run.config.optimizer.average,
  )
  rng = jax.random.key(run.config.seed + 1)

  def update(
    state: TrainState, batch: Any, stopping: Stopping
  ) -> tuple[TrainState, jax.Array]:
    if not several:
      state, loss = step(state, source.cohort, batch, rng)
      return state, loss
    state, loss, votes = step(state, source.cohort, batch, rng, stopping.vote())
    stopping.count(votes)
    return state, loss

  return update


def _make_validate(
  run: Run, source: feed.Source
) -> Callable[[TrainState], tuple[float, dict[str, float]]]:
  """`validate(state) -> loss, terms`, of the validation patients."""
  step = make_eval_step(run.model, run.loss)
  return lambda state: validation_loss(
    step,
    state.predicting,
    source,
    run.validation,
    run.config.data.validation_wishes,
    run.config.batch_size,
  )


def _bar(first: int, total: int) -> tqdm.tqdm:
  return tqdm.tqdm(
    total=total,
    initial=first,
    unit='step',
    file=sys.stderr,
    desc='training',
    disable=jax.process_index() != 0,
    mininterval=1,
  )


class _Speed:
  """Samples a second, and the share of time that waited for data."""

  def __init__(self, batches: feed.Feed, batch_size: int):
    self._batches, self._batch_size = batches, batch_size
    self.start(0)

  def start(self, updates: int) -> None:
    """Measures from here, after so many updates."""
    self._since, self._updates = time.monotonic(), updates
    self._waited_s = self._batches.waited_s

  def measure(self, updates: int) -> dict[str, float]:
    """Since the start, of a row of the history."""
    seconds = time.monotonic() - self._since
    samples = (updates - self._updates) * self._batch_size
    return {
      'samples_per_s': samples / seconds,
      'waiting_share': (self._batches.waited_s - self._waited_s) / seconds,
    }


def _end_epoch(
  run: Run,
  state: TrainState,
  history: History,
  held_out: tuple[float, dict[str, float]],
  speed: dict[str, float],
) -> None:
  """Checks the state, writes the history's row, and saves when it is time."""
  loss, terms = held_out
  run.check(state, loss)
  run.checkpoints.require_folder()
  done, sums = int(state.step), state
  seen = (done - 1) % run.steps_per_epoch + 1
  history.add(
    epoch=-(-done // run.steps_per_epoch),
    step=done,
    train_loss=float(sums.loss_sum) / (seen * run.config.batch_size),
    val_loss=loss,
    learning_rate=float(run.schedule(done)),
    **speed,
    **{
      f'train_{name}': float(x) / int(sums.term_samples)
      for name, x in sums.term_sums.items()
    },
    **{f'val_{name}': x for name, x in terms.items()},
  )
  epoch = done // run.steps_per_epoch
  if done == run.total or epoch % run.config.checkpoint_every_epochs == 0:
    run.save(state, loss)


def _save_and_stop(run: Run, state: TrainState, signal: int) -> None:
  """Saves, then raises Interrupted."""
  step = int(state.step)
  run.check(state)
  run.checkpoints.require_folder()
  run.save(state)
  run.checkpoints.wait()
  raise errors.Interrupted(
    f'saved step {step} in {run.workdir}; run the same command to resume',
    signal,
    step,
  )
