"""Training: resume after a kill, devices and processes, faults, hearing."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

from dvhflax import errors, locks
from dvhflax.cohort.store import Cohort
from dvhflax.config import saved as config_saved
from dvhflax.models.build import build_unet, dvh_statistics
from dvhflax.training import checkpoint as checkpoint_lib
from dvhflax.training import feed, history, parallel, setup
from dvhflax.training import runs as networks
from dvhflax.training import train as train_lib
from dvhflax.training.checkpoint_files import has_checkpoint
from dvhflax.training.resuming import check_same_run, counters, open_cohort
from dvhflax.training.runs import data_item
from dvhflax.training.sampler import Sampler
from dvhflax.training.step import create_state, make_train_step
from dvhflax.training.train import train

ROOT = pathlib.Path(__file__).parents[2]


def assert_same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def read_terms(workdir):
  lines = (workdir / 'terms.csv').read_text().splitlines()
  names, *rows = (line.split(',') for line in lines)
  return [dict(zip(names, map(float, row), strict=True)) for row in rows]


def test_terms_add_up_to_the_loss(config, cohort, tmp_path):
  config.loss.structure_weight, config.loss.mean_dose_weight = 0.5, 3.0
  config.batch_parts = 2
  # Stopped within the second epoch: the sums go on from the checkpoint.
  for config.max_steps in (4, 6):
    train(config, cohort, str(tmp_path))
  losses, terms = history.read(str(tmp_path)), read_terms(tmp_path)
  assert [row['step'] for row in terms] == [3, 4, 6]
  for loss, row in zip(losses, terms, strict=True):
    for of in ('train', 'val'):
      total = row[f'{of}_voxel'] + 0.5 * row[f'{of}_structure']
      total += 3 * row[f'{of}_mean_dose']
      assert total == pytest.approx(loss[f'{of}_loss'], rel=1e-4)


def test_a_run_older_than_the_terms_goes_on(
  config, cohort, tmp_path, monkeypatch
):
  def older(state):
    kept = counters(state)
    del kept['term_sums'], kept['term_samples']
    return kept

  whole = train(config, cohort, str(tmp_path / 'whole'))
  config.max_steps = 4
  with monkeypatch.context() as patch:
    patch.setattr(setup, 'counters', older)
    train(config, cohort, str(tmp_path / 'old'))
  config.max_steps = 0
  (tmp_path / 'old' / 'terms.csv').unlink()
  state = train(config, cohort, str(tmp_path / 'old'))
  assert_same(
    (state.model, state.opt_state, state.loss_sum),
    (whole.model, whole.opt_state, whole.loss_sum),
  )
  # Of the two updates since, of the epoch's three.
  assert int(state.term_samples) == 2 * config.batch_size
  (row,) = read_terms(tmp_path / 'old')
  assert row['train_voxel'] == pytest.approx(
    float(state.term_sums['voxel']) / int(state.term_samples)
  )


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


@pytest.mark.slow
def test_an_averaged_run_resumes_alike(config, cohort, tmp_path):
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 1
  config.optimizer.clip_norm = 1.0
  config.optimizer.average = 0.9
  workdir = str(tmp_path)
  whole = train(config, cohort, workdir)
  last = int(whole.step)
  # What predicts is the average, and what goes on is not.
  kept = networks.restore(workdir, 'latest')[1]
  assert_same(kept['params'], whole.averaged['params'])
  assert not np.allclose(
    kept['params']['dose']['kernel'], whole.model['params']['dose']['kernel']
  )
  shutil.rmtree(tmp_path / 'checkpoints' / str(last))
  assert_same(train(config, cohort, workdir), whole)
  # Another length would be another curve of the learning rate.
  config.epochs += 1
  with pytest.raises(
    errors.CheckpointError, match='epochs=2, now 3, which the cosine'
  ):
    train(config, cohort, workdir)


COMMAND = """
import sys
sys.path.insert(0, 'tests')
import conftest
from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.training.train import train
config = conftest.make_config(sys.argv[1])
config.epochs = int(sys.argv[3])
config.optimizer.learning_rate = float(sys.argv[4])
try:
  train(config, Cohort.open(sys.argv[1]), sys.argv[2])
except errors.Interrupted as stopped:
  print(stopped)
  sys.exit(128 + stopped.signal)
except errors.UserError as error:
  sys.exit(f'error: {error}')
"""


def start(cohort_path, workdir, epochs, rate=1e-3):
  arguments = [cohort_path, workdir, str(epochs), str(rate)]
  return subprocess.Popen(
    [sys.executable, '-c', COMMAND, *arguments],
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


@pytest.mark.slow
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
  for name in ('history.csv', 'terms.csv'):
    assert (tmp_path / 'killed' / name).read_bytes() == (
      tmp_path / 'whole' / name
    ).read_bytes()


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


def test_the_latest_two_and_the_best_are_kept(config, cohort, tmp_path):
  config.epochs = 4
  train(config, cohort, str(tmp_path))
  rows = history.read(str(tmp_path))
  best = min(rows, key=lambda row: row['val_loss'])['step']
  checkpoints = checkpoint_lib.Checkpoints(str(tmp_path))
  assert (checkpoints.best, checkpoints.latest) == (best, rows[-1]['step'])
  kept = {int(p.name) for p in (tmp_path / 'checkpoints').iterdir()}
  assert kept == {best, *(row['step'] for row in rows[-2:])}


def test_another_configuration_is_refused(config, cohort, run_copy):
  config.model.base_channels = 8
  with pytest.raises(errors.CheckpointError, match='base_channels=4, now 8'):
    train(config, cohort, run_copy)


def test_a_run_older_than_a_key_had_its_default(config):
  class Saved:
    latest = 1

    def json(self, step, item):
      values = config.to_dict()
      for key in config_saved.LATER[-1]:
        group, name = key.split('.')
        del values[group][name]
      return values

  config.cohort.contour_ends = 'half_slice'
  other = config.copy_and_resolve_references()
  other.cohort.normalisation = 'prescription'
  check_same_run(Saved(), config, 'run')
  with pytest.raises(errors.CheckpointError, match='normalisation'):
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
  match = r'step \d.*rate.*patients p.*no sound checkpoint.*another --workdir'
  with pytest.raises(errors.UserError, match=match):
    train(config, cohort, str(tmp_path))
  assert not has_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
  'fault, match',
  [
    # By the last update, whose loss was computed before it.
    ('parameter', r'model/params/.* is not finite after step 6; .* is step 3'),
    pytest.param(
      'validation',
      r'validation loss is nan after step 6; .* is step 3',
      marks=pytest.mark.slow,
    ),
  ],
  ids=['parameter', 'validation'],
)
def test_what_is_not_finite_is_neither_latest_nor_best(
  config, cohort, tmp_path, monkeypatch, fault, match
):
  """At the end of the second epoch."""
  validations = iter([0.5, np.nan if fault == 'validation' else 0.4])
  monkeypatch.setattr(
    train_lib,
    'validation_loss',
    lambda *_, **__: (next(validations), {'voxel': 0.1}),
  )
  make = train_lib.make_train_step

  def make_step(*arguments, **options):
    step = make(*arguments, **options)

    def faulty(state, *rest):
      last = int(state.step) == 5 and fault == 'parameter'
      state, loss = step(state, *rest)
      if last:
        bad = jax.tree.map(lambda x: x * np.nan, state.model['params'])
        state = state.replace(model={**state.model, 'params': bad})
      return state, loss

    return faulty

  monkeypatch.setattr(train_lib, 'make_train_step', make_step)
  with pytest.raises(errors.UserError, match=match):
    train(config, cohort, str(tmp_path))
  checkpoints = checkpoint_lib.Checkpoints(str(tmp_path))
  assert (checkpoints.best, checkpoints.latest) == (3, 3)
  assert [row['step'] for row in history.read(str(tmp_path))] == [3]


@pytest.mark.slow
@pytest.mark.parametrize('rate', [1e30, 3e5, 1e3])
def test_a_training_that_diverges_ends_in_a_line(cohort_path, tmp_path, rate):
  """No thread is left to say that it cannot go on."""
  process = start(cohort_path, str(tmp_path), 40, rate)
  _, err = process.communicate(timeout=240)
  lines = [x for x in err.replace('\r', '\n').splitlines() if x.strip()]
  said = [
    x
    for x in lines
    if not x.startswith(('training:', 'epoch ')) and ' updates on ' not in x
  ]
  assert process.returncode != 0
  assert len(said) == 1 and said[0].startswith('error: ')
  assert 'Traceback' not in err
  if has_checkpoint(str(tmp_path)):
    checkpoints = checkpoint_lib.Checkpoints(str(tmp_path))
    assert f'checkpoint is step {checkpoints.sound}' in said[0]


@pytest.fixture
def run_copy(trained_run, tmp_path):
  return str(shutil.copytree(trained_run, tmp_path / 'run'))


@pytest.fixture
def other_path(cohort_path, tmp_path):
  """The same cohort, but for two patients who changed their splits."""
  path = shutil.copytree(cohort_path, tmp_path / 'other' / 'tiny')
  values = json.loads((path / 'metadata.json').read_text())
  patients = values['patients']
  patients[0]['split'], patients[-1]['split'] = 'test', 'train'
  (path / 'metadata.json').write_text(json.dumps(values))
  return str(path)


def test_a_run_does_not_go_on_with_another_cohort(
  config, run_copy, other_path, cohort_path
):
  match = rf'other splits.*--config\.cohort\.path \(it was at {cohort_path}\)'
  with pytest.raises(errors.CohortError, match=match):
    train(config, Cohort.open(other_path), run_copy)
  config.cohort.path = other_path
  with pytest.raises(errors.CohortError, match=match):
    open_cohort(config, run_copy)


def test_a_network_goes_with_its_own_cohort(trained_run, other_path):
  with pytest.raises(errors.CohortError, match=r'other splits.*--cohort'):
    networks.load_model(trained_run, 'best', other_path)
  with pytest.raises(errors.CohortError, match=r'no cohort at.*--cohort'):
    networks.load_model(trained_run, 'best', other_path + '-none')


def test_a_cohort_elsewhere_is_found_where_it_was(
  config, run_copy, cohort_path, tmp_path, monkeypatch
):
  """The configured path is relative, and not to this working directory."""
  monkeypatch.chdir(tmp_path)
  config.cohort.path = 'cohorts/tiny'
  found = open_cohort(config, run_copy)
  assert found.path == cohort_path
  assert not os.path.exists('cohorts')
  os.makedirs('cohorts')
  shutil.copytree(cohort_path, 'cohorts/tiny')
  assert open_cohort(config, run_copy).path == 'cohorts/tiny'


def test_a_cohort_that_is_nowhere_is_not_built_anew(config, run_copy, tmp_path):
  for name in pathlib.Path(run_copy, 'checkpoints').glob('*/data/metadata'):
    values = json.loads(name.read_text())
    values['cohort_path'] = '/gone/tiny'
    name.write_text(json.dumps(values))
  config.cohort.path = str(tmp_path / 'none')
  match = r'nor at /gone/tiny.*--config\.cohort\.path'
  with pytest.raises(errors.CohortError, match=match):
    open_cohort(config, run_copy)


def test_a_run_older_than_the_identity_goes_with_any(
  config, run_copy, other_path
):
  for name in pathlib.Path(run_copy, 'checkpoints').glob('*/data/metadata'):
    values = json.loads(name.read_text())
    del values['cohort_identity'], values['cohort_path']
    name.write_text(json.dumps(values))
  assert networks.load_model(run_copy, 'best', other_path)[3].path == other_path
  config.cohort.path = other_path
  assert open_cohort(config, run_copy).path == other_path


def test_a_workdir_is_of_one_run(config, cohort, tmp_path):
  with locks.try_lock(str(tmp_path / '.lock')):
    with pytest.raises(errors.UserError, match='another process is training'):
      train(config, cohort, str(tmp_path))
    assert not has_checkpoint(str(tmp_path))


@pytest.mark.slow
def test_a_thread_may_train(config, cohort, run_copy):
  config.epochs = 3
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    assert int(pool.submit(train, config, cohort, run_copy).result().step) == 9


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
  # A loss of one term: their sums over all devices are the same.
  losses.append(float(state.term_sums['voxel']) / int(state.term_samples))
  assert losses[-1] == pytest.approx(np.mean(losses[:-1]), rel=1e-5)
  return losses, jax.device_get(state.model)


DEVICES = """
import pickle, sys
sys.path[:0] = ['tests', 'tests/training']
import conftest, test_train
from dvhflax.training import parallel
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
  'options',
  [
    pytest.param({'parts': 2}, marks=pytest.mark.slow),
    pytest.param({'remat': True}, marks=pytest.mark.slow),
  ],
  ids=['parts', 'remat'],
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
  processes = [
    run_devices(cohort_path, tmp_path / str(devices), devices, norm)
    for devices in (1, 8)
  ]
  for process in processes:
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
