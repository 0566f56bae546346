"""Training: resume after a kill, devices and processes, faults, hearing."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

from dvhflax import checkpoint as checkpoint_lib
from dvhflax import errors, history, parallel
from dvhflax.cohort import feed
from dvhflax.cohort.sampler import Sampler
from dvhflax.models.build import build_unet, data_item, dvh_statistics
from dvhflax.step import create_state, make_train_step
from dvhflax.train import _check_same_run as check_same_run
from dvhflax.train import train

ROOT = pathlib.Path(__file__).parents[1]


def assert_same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.slow
def test_a_run_in_two_parts_equals_one(config, cohort, tmp_path):
  config.model.dropout = 0.2
  config.model.norm = 'batch'
  whole = train(config, cohort, str(tmp_path / 'whole'))
  # Not at an epoch's end.
  config.max_steps = 4
  train(config, cohort, str(tmp_path / 'parts'))
  config.max_steps = 0
  parts = train(config, cohort, str(tmp_path / 'parts'))
  assert_same(whole, parts)
  rows = history.read(str(tmp_path / 'parts'))
  assert [r for r in rows if r['step'] != 4][-1]['step'] == int(whole.step)
  last = history.read(str(tmp_path / 'whole'))[-1]
  assert rows[-1]['train_loss'] == last['train_loss']
  assert rows[-1]['val_loss'] == last['val_loss']


COMMAND = """
import sys
sys.path.insert(0, 'tests')
import conftest
from dvhflax.cohort.store import Cohort
from dvhflax.train import train
config = conftest.make_config(sys.argv[1])
config.epochs = int(sys.argv[3])
train(config, Cohort.open(sys.argv[1]), sys.argv[2])
"""


def start(cohort_path, workdir, epochs):
  return subprocess.Popen(
    [sys.executable, '-c', COMMAND, cohort_path, workdir, str(epochs)],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def wait_for_epoch(workdir, process, epoch=2):
  deadline = time.monotonic() + 120
  while len(history.read(workdir)) < epoch:
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.05)


def test_sigkill_then_restart_ends_alike(config, cohort, cohort_path, tmp_path):
  workdir = str(tmp_path / 'killed')
  process = start(cohort_path, workdir, 400)
  wait_for_epoch(workdir, process)
  process.kill()
  process.communicate()
  config.epochs = len(history.read(workdir)) + 3
  killed = train(config, cohort, workdir)
  whole = train(config, cohort, str(tmp_path / 'whole'))
  assert_same(killed, whole)
  epochs = [row['epoch'] for row in history.read(workdir)]
  assert epochs == list(range(1, config.epochs + 1))


@pytest.mark.slow
def test_sigterm_saves_and_says_so(cohort_path, tmp_path):
  workdir = str(tmp_path / 'stopped')
  process = start(cohort_path, workdir, 400)
  wait_for_epoch(workdir, process)
  process.send_signal(signal.SIGTERM)
  out, _ = process.communicate(timeout=120)
  assert process.returncode == 128 + signal.SIGTERM
  step = checkpoint_lib.Checkpoints(workdir).latest
  assert f'saved step {step}' in out


def test_latest_and_best_are_kept(config, cohort, tmp_path):
  config.epochs = 4
  train(config, cohort, str(tmp_path))
  rows = history.read(str(tmp_path))
  best = min(rows, key=lambda row: row['val_loss'])['step']
  checkpoints = checkpoint_lib.Checkpoints(str(tmp_path))
  assert (checkpoints.best, checkpoints.latest) == (best, rows[-1]['step'])


def test_another_configuration_is_refused(config, cohort, tmp_path):
  train(config, cohort, str(tmp_path))
  config.model.base_channels = 8
  with pytest.raises(errors.CheckpointError, match='base_channels=4, now 8'):
    train(config, cohort, str(tmp_path))


def test_a_run_older_than_a_key_had_its_default(config):
  class Saved:
    latest = 1

    def json(self, step, item):
      values = config.to_dict()
      del values['cohort']['structures']
      return values

  other = config.copy_and_resolve_references()
  other.cohort.structures = ('body', 'PTV')
  check_same_run(Saved(), config, 'run')
  with pytest.raises(errors.CheckpointError, match='structures'):
    check_same_run(Saved(), other, 'run')


@pytest.mark.slow
def test_checkpoint_of_another_network_is_refused(config, cohort, tmp_path):
  train(config, cohort, str(tmp_path))
  checkpoints = checkpoint_lib.Checkpoints(str(tmp_path))
  config.model.base_channels = 8
  other = make_state(config, cohort)[1]
  with pytest.raises(errors.CheckpointError, match='another network'):
    checkpoints.restore(checkpoints.latest, 'model', other.model)


def test_non_finite_loss_names_step_rate_and_patients(config, cohort, tmp_path):
  config.optimizer.learning_rate = 1e30
  with pytest.raises(errors.UserError, match=r'step \d.*rate.*patients p'):
    train(config, cohort, str(tmp_path))


def make_state(config, cohort, **options):
  model = build_unet(config, data_item(cohort), parallel.AXIS)
  tx = optax.adam(1e-3)
  statistics = dvh_statistics(cohort.dvh, cohort.valid)
  state = parallel.replicate(
    lambda key: create_state(model, tx, statistics, key), jax.random.key(0)
  )
  return make_train_step(model, tx, 100, **options), state


def run_steps(config, cohort, steps=2, batch_size=8, options=()):
  """Loss and parameters after some updates, on all local devices."""
  sampler = Sampler(cohort, 'train', seed=0, own_wish_share=0.0)
  source = feed.Source(cohort, sampler.patients, 'device')
  step, state = make_state(config, cohort, **dict(options))
  losses = []
  for i in range(steps):
    draw = feed.local(sampler.draw(i, batch_size))
    batch = parallel.shard(source.batch(sampler, draw))
    state, loss = step(state, source.cohort, batch, jax.random.key(1))
    losses.append(float(loss))
  parallel.assert_replicated(state)
  return losses, jax.device_get(state.model)


DEVICES = """
import pickle, sys
sys.path.insert(0, 'tests')
import conftest, test_train
from dvhflax import parallel
if len(sys.argv) > 4:
  parallel.initialize(sys.argv[3], 2, int(sys.argv[4]))
from dvhflax.cohort.store import Cohort
config = conftest.make_config(sys.argv[1])
config.model.norm = sys.argv[-1]
config.model.dtype = 'float64'
result = test_train.run_steps(config, Cohort.open(sys.argv[1]))
with open(sys.argv[2], 'wb') as file:
  pickle.dump(result, file)
"""


def run_devices(cohort_path, output, devices, *extra):
  flags = os.environ.get('XLA_FLAGS', '')
  flags += f' --xla_force_host_platform_device_count={devices}'
  return subprocess.Popen(
    [sys.executable, '-c', DEVICES, cohort_path, str(output), *extra],
    cwd=ROOT,
    env={
      **os.environ,
      'PYTHONPATH': str(ROOT),
      'XLA_FLAGS': flags,
      'JAX_ENABLE_X64': '1',
    },
  )


def assert_close(ours, output):
  losses, model = load(output)
  np.testing.assert_allclose(losses, ours[0], rtol=1e-5)
  for a, b in zip(
    jax.tree.leaves(model['params']), jax.tree.leaves(ours[1]['params'])
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


# Computed in float64: the tiny grid leaves batch norm 8 values a channel at
# the bottom, where a float32 gradient has few digits on any number of devices,
# and Adam's first steps are of one length however small the gradient.
NORMS = pytest.mark.parametrize(
  'norm', ['mixed', pytest.param('batch', marks=pytest.mark.slow)]
)


def load(output):
  import pickle

  return pickle.loads(pathlib.Path(output).read_bytes())


@pytest.mark.parametrize(
  'options', [{'parts': 2}, {'remat': True}], ids=['parts', 'remat']
)
def test_less_memory_gives_the_same_update(config, cohort, options):
  config.model.dropout = 0.3 if 'remat' in options else 0.0
  losses, model = run_steps(config, cohort)
  other_losses, other = run_steps(config, cohort, options=options)
  np.testing.assert_allclose(losses, other_losses, rtol=1e-5)
  # A step of Adam is as long as the learning rate, 1e-3, however small the
  # gradient; where that is all rounding error the sign of it is free.
  far = [
    np.abs(a - b) > 1e-5
    for a, b in zip(
      jax.tree.leaves(model['params']), jax.tree.leaves(other['params'])
    )
  ]
  assert np.mean(np.concatenate([x.ravel() for x in far])) < 0.01


@NORMS
def test_eight_devices_equal_one(cohort_path, tmp_path, norm):
  for devices in (1, 8):
    output = tmp_path / str(devices)
    process = run_devices(cohort_path, output, devices, norm)
    assert process.wait(timeout=240) == 0
  assert_close(load(tmp_path / '1'), tmp_path / '8')


@pytest.mark.slow
@NORMS
def test_two_processes_equal_one(cohort_path, tmp_path, norm):
  import socket

  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{probe.getsockname()[1]}'
  processes = [
    run_devices(cohort_path, tmp_path / str(i), 1, address, str(i), norm)
    for i in range(2)
  ]
  one = run_devices(cohort_path, tmp_path / 'one', 1, norm)
  for process in [*processes, one]:
    assert process.wait(timeout=240) == 0
  for i in range(2):
    assert_close(load(tmp_path / 'one'), tmp_path / str(i))


def test_batch_that_does_not_split(monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 4)
  with pytest.raises(errors.ConfigError, match='use 4 or 8'):
    parallel.check_batch_size(6)
