"""A run whose newest checkpoint is damaged goes on from the one before."""

import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

from dvhflax import errors
from dvhflax.training import checkpoint, checkpoint_files, setup
from dvhflax.training.resuming import open_cohort
from dvhflax.training.train import train

# Of a checkpoint that cannot be read, TensorStore still brings arrays to
# Orbax's event loop, which is closed.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)
# Of the run of the fixtures.
NEWEST, BEFORE = 6, 3


@pytest.fixture
def run(trained_run, tmp_path):
  """A copy of a run that is done."""
  return pathlib.Path(shutil.copytree(trained_run, tmp_path / 'run'))


def step_of(run, step=NEWEST):
  return run / 'checkpoints' / str(step)


def largest(folder):
  """Its largest file, which has the values of the arrays."""
  files = [path for path in folder.rglob('*') if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def flip(path):
  """Flips a bit in the midst of a file."""
  values = bytearray(path.read_bytes())
  values[len(values) // 2] ^= 4
  path.write_bytes(values)


def cut(path):
  path.write_bytes(path.read_bytes()[:-7])


def another_value(folder):
  """A value that is well-formed and not what was saved."""
  sums = folder / 'sums' / 'metadata'
  values = json.loads(sums.read_text())
  values['model'] = '0' * 64
  sums.write_text(json.dumps(values))


QUICK = ('a bit', 'loss')
DAMAGES = {
  'no optimiser': lambda s: shutil.rmtree(s / 'train'),
  'a bit': lambda s: flip(largest(s / 'model')),
  'another value': another_value,
  'cut': lambda s: cut(largest(s / 'train')),
  'empty configuration': lambda s: (s / 'config/metadata').write_text(''),
  'no data': lambda s: (s / 'data' / 'metadata').unlink(),
  'loss': lambda s: (s / 'metrics' / 'metrics').write_text('{"validation'),
}


@pytest.mark.parametrize(
  'damage',
  [
    pytest.param(how, id=name, marks=() if name in QUICK else pytest.mark.slow)
    for name, how in DAMAGES.items()
  ],
)
def test_the_one_before_is_taken(config, cohort, run, capsys, damage):
  damage(step_of(run))
  left = sorted(p for p in step_of(run).rglob('*') if p.is_file())
  open_cohort(config, str(run))
  begun, state = setup.begin(config, cohort, str(run))
  begun.checkpoints.close()
  assert int(state.step) == BEFORE
  (line,) = capsys.readouterr().err.splitlines()
  aside = run / 'damaged' / str(NEWEST)
  assert line.startswith(f'note: {step_of(run)}') and 'damaged' in line
  assert line.endswith(
    f'set aside as {aside}; the run goes on from the checkpoint before'
  )
  # Nothing is lost that was there.
  assert [p.relative_to(step_of(run)) for p in left] == sorted(
    p.relative_to(aside) for p in aside.rglob('*') if p.is_file()
  )


@pytest.mark.slow
def test_the_run_ends_alike(config, cohort, run, trained_run):
  (step_of(run) / 'model' / 'manifest.ocdbt').unlink()
  state = train(config, cohort, str(run))
  assert int(state.step) == NEWEST
  for name in ('history.csv', 'terms.csv'):
    assert (run / name).read_bytes() == pathlib.Path(
      trained_run, name
    ).read_bytes()
  for item, target in (('model', state.predicting),):
    values = [
      checkpoint.Checkpoints(str(path)).restore(NEWEST, item, target)
      for path in (run, trained_run)
    ]
    for a, b in zip(*map(jax.tree.leaves, values), strict=True):
      np.testing.assert_array_equal(a, b)


def test_the_only_one_is_left_where_it_is(config, cohort, run):
  shutil.rmtree(step_of(run, BEFORE))
  shutil.rmtree(step_of(run) / 'train')
  with pytest.raises(
    errors.CheckpointError, match=f"/{NEWEST}: its 'train' is .*restore that"
  ):
    train(config, cohort, str(run))
  assert os.listdir(run / 'checkpoints') == [str(NEWEST)]


def test_one_without_checksums_is_read(config, cohort, run):
  """Of versions that did not keep any."""
  shutil.rmtree(step_of(run) / 'sums')
  begun, state = setup.begin(config, cohort, str(run))
  begun.checkpoints.close()
  assert int(state.step) == NEWEST


def test_no_place_aside_is_taken_twice(run):
  first = checkpoint_files.set_aside(str(run), NEWEST)
  shutil.copytree(first, step_of(run))
  assert checkpoint_files.set_aside(str(run), NEWEST) == f'{first}-1'
