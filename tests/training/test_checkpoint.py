"""Checkpoints that are damaged, not finite, or of no known loss."""

import logging as std_logging
import pathlib
import shutil

from absl import logging
import jax.numpy as jnp
import numpy as np
import pytest

from dvhflax import errors
from dvhflax.training import checkpoint

MODEL = {'params': {'kernel': np.arange(3.0)}, 'batch_stats': {}}


def save(workdir, losses, model=MODEL, train=None):
  checkpoints = checkpoint.Checkpoints(str(workdir), create=True)
  for step, loss in losses.items():
    checkpoints.save(
      step,
      model=model,
      train={'count': np.ones(2)} if train is None else train,
      config={'seed': 0},
      data={'structures': []},
      validation_loss=loss,
    )
  checkpoints.close()
  return pathlib.Path(workdir, 'checkpoints')


@pytest.mark.parametrize(
  'loss, model, train, name',
  [
    (np.nan, MODEL, None, 'the validation loss'),
    (0.1, {'params': {'kernel': np.array([1, np.inf])}}, None, 'params/kernel'),
    (0.1, {'batch_stats': {'mean': jnp.full(2, jnp.nan, jnp.bfloat16)}}, None,
     'batch_stats/mean'),
    (np.inf, MODEL, {'opt_state': (np.array(np.nan, 'f'),)}, 'opt_state/0'),
  ],
)  # fmt: skip
def test_what_is_not_finite_is_not_saved(tmp_path, loss, model, train, name):
  save(tmp_path, {1: 0.5})
  with pytest.raises(errors.CheckpointError, match=f'step 2 .*{name} is not'):
    save(tmp_path, {2: loss}, model, train)
  assert checkpoint.Checkpoints(str(tmp_path)).latest == 1


def test_what_is_not_finite_is_not_restored(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint, 'first_not_finite', lambda tree: None)
  bad = {'params': {'kernel': np.array([1, np.nan, 2])}, 'batch_stats': {}}
  save(tmp_path, {1: 0.4, 2: 0.5}, bad)
  monkeypatch.undo()
  with pytest.raises(errors.CheckpointError, match=r'kernel.*use step 1'):
    checkpoint.Checkpoints(str(tmp_path)).restore(2, 'model', MODEL)


@pytest.mark.parametrize('item', ['model', 'train', 'config', 'data'])
@pytest.mark.parametrize('how', ['missing', 'damaged'])
def test_an_item_that_is_lost_is_named(tmp_path, item, how):
  folder = save(tmp_path, {1: 0.4, 2: 0.5}) / '2' / item
  if how == 'missing':
    shutil.rmtree(folder)
  elif item in ('model', 'train'):
    for name in folder.rglob('manifest.ocdbt'):
      name.write_bytes(b'\0' * 40)
  else:
    (folder / 'metadata').write_text('{')
  checkpoints = checkpoint.Checkpoints(str(tmp_path))
  with pytest.raises(
    errors.CheckpointError, match=f'{item!r} is {how}.*step 1'
  ):
    if item == 'model':
      checkpoints.restore(2, item, MODEL)
    elif item == 'train':
      checkpoints.restore(2, item, {'count': np.ones(2)})
    else:
      checkpoints.json(2, item)


@pytest.mark.parametrize('metrics', [None, '{}', '[]', '{"validation_loss": 0'])
def test_best_is_not_guessed(tmp_path, metrics):
  folder = save(tmp_path, {1: 0.4, 2: 0.5}) / '1' / 'metrics'
  if metrics is None:
    shutil.rmtree(folder)
  else:
    (folder / 'metrics').write_text(metrics)
  if metrics and metrics.startswith('{"'):
    with pytest.raises(errors.CheckpointError, match=r'/1/.*is damaged: '):
      checkpoint.Checkpoints(str(tmp_path))
    (folder / 'metrics').unlink()
  checkpoints = checkpoint.Checkpoints(str(tmp_path))
  with pytest.raises(
    errors.CheckpointError, match=r'/1 has lost.*checkpoint=2'
  ):
    checkpoints.find('best')
  assert checkpoints.find('latest') == checkpoints.find('2') == 2
  # The run goes on, and keeps what may be the best.
  save(tmp_path, {3: 0.6})
  if metrics is None:
    with pytest.raises(errors.CheckpointError, match='/1 has lost'):
      checkpoint.Checkpoints(str(tmp_path)).find('best')


def test_a_removed_checkpoint_is_never_half_there(tmp_path, monkeypatch):
  """A run that is killed as it removes one leaves it aside."""
  monkeypatch.setattr(checkpoint.shutil, 'rmtree', lambda *_, **__: None)
  folder = save(tmp_path, {1: 0.5, 2: 0.4, 3: 0.3})
  assert sorted(p.name for p in folder.iterdir()) == ['.discarded', '2', '3']
  monkeypatch.undo()
  assert checkpoint.Checkpoints(str(tmp_path)).find('best') == 3
  save(tmp_path, {4: 0.2})
  assert sorted(p.name for p in folder.iterdir()) == ['3', '4']


def test_half_of_a_removed_checkpoint_is_passed_over(tmp_path):
  """As versions left it that were killed as they removed one."""
  folder = save(tmp_path, {1: 0.4, 2: 0.5, 3: 0.6})
  for name in ('metrics', 'model', 'config'):
    shutil.rmtree(folder / '1' / name)
  (folder / '1' / '_CHECKPOINT_METADATA').unlink()
  assert checkpoint.Checkpoints(str(tmp_path)).find('best') == 2


def test_best_of_a_run_that_was_never_validated(tmp_path, capsys):
  save(tmp_path, {1: np.inf})
  checkpoints = checkpoint.Checkpoints(str(tmp_path))
  assert checkpoints.find('best') == 1 and checkpoints.sound is None
  assert 'no checkpoint that was validated' in capsys.readouterr().err
  save(tmp_path, {2: 0.5, 3: np.inf})
  checkpoints = checkpoint.Checkpoints(str(tmp_path))
  assert checkpoints.find('best') == checkpoints.sound == 2
  assert capsys.readouterr().err == ''


def test_a_loss_of_nan_of_before_is_not_the_best(tmp_path):
  folder = save(tmp_path, {1: 0.4, 2: 0.5})
  (folder / '2' / 'metrics' / 'metrics').write_text('{"validation_loss": NaN}')
  assert checkpoint.Checkpoints(str(tmp_path)).find('best') == 1


def test_a_full_disk_is_a_line(tmp_path, monkeypatch, caplog):
  """Orbax writes in a thread, whose error comes out later."""

  def refuse(*_, **__):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(std_logging.getLogger('absl'), 'filters', [])
  checkpoint.quiet()
  monkeypatch.setattr(
    checkpoint.ocp.JsonCheckpointHandler, 'async_save', refuse
  )
  with pytest.raises(errors.CheckpointError, match=r'not written: .*No space'):
    save(tmp_path, {1: 0.5})
  assert caplog.text == ''


def test_log_levels_are_left_alone(tmp_path):
  before = logging.get_verbosity(), std_logging.getLogger().level
  save(tmp_path, {1: 0.5})
  assert (logging.get_verbosity(), std_logging.getLogger().level) == before


def test_metadata_of_another_type_are_told(tmp_path):
  folder = save(tmp_path, {1: 0.4}) / '1'
  (folder / '_CHECKPOINT_METADATA').write_text('{"init_timestamp_nsecs": [1]}')
  with pytest.raises(
    errors.CheckpointError, match=r'cannot be opened.*damaged'
  ):
    checkpoint.Checkpoints(str(tmp_path))
