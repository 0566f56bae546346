"""`history.csv`: the same after a kill, and readable after damage."""

import pathlib

import pytest

from dvhflax import errors
from dvhflax.training import history

TERMS = ('voxel', 'structure')


def add(log, epoch, step):
  log.add(
    epoch=epoch,
    step=step,
    train_loss=0.5 / epoch,
    val_loss=0.7 / epoch,
    learning_rate=1e-3,
    samples_per_s=3.0,
    waiting_share=0.25,
    train_voxel=0.1 / epoch,
    train_structure=0.2 / epoch,
    val_voxel=0.3 / epoch,
    val_structure=0.4 / epoch,
  )


def whole(folder):
  folder.mkdir()
  log = history.History(str(folder), 0, TERMS, write=True)
  for epoch in (1, 2, 3):
    add(log, epoch, 4 * epoch)
  log.close()
  return folder / 'history.csv'


def test_a_run_that_was_killed_has_the_same_file(tmp_path):
  expected = whole(tmp_path / 'a').read_bytes()
  path = whole(tmp_path / 'b')
  # Killed after the row of step 12, before its checkpoint.
  log = history.History(str(tmp_path / 'b'), 8, TERMS, write=True)
  assert [row['step'] for row in history.read(str(tmp_path / 'b'))] == [4, 8]
  add(log, 3, 12)
  log.close()
  assert path.read_bytes() == expected
  assert b'samples' not in expected
  speeds = (tmp_path / 'b' / 'speed.csv').read_text().splitlines()
  assert speeds[-1] == '3,12,3.0,0.25'
  terms, same = (tmp_path / name / 'terms.csv' for name in 'ab')
  assert terms.read_bytes() == same.read_bytes()
  assert terms.read_text().splitlines()[:2] == [
    'epoch,step,train_voxel,train_structure,val_voxel,val_structure',
    '1,4,0.1,0.2,0.3,0.4',
  ]


@pytest.mark.parametrize(
  'damage, line',
  [
    (lambda text: text[:-30], 4),
    # What is left of a number is a number.
    (lambda text: text[:-3], 4),
    (lambda text: text.replace('2,8', '2,x8'), 3),
    (lambda text: text.replace('2,8,', '2,8,,'), 3),
    (lambda text: text.replace('2,8', '2,99'), 4),
    (lambda text: text.replace('2,8', '\0\0\xff'), 3),
    (lambda text: text.replace('2,8', '2,1e999'), 3),
    (lambda text: '', 1),
    (lambda text: text.replace('epoch', 'epcoh'), 1),
  ],
)
def test_a_damaged_line_is_left_out(tmp_path, capsys, damage, line):
  path = whole(tmp_path / 'a')
  text = damage(path.read_bytes().decode())
  path.write_bytes(text.encode('latin-1'))
  before = path.read_bytes()
  with pytest.raises(errors.UserError, match=rf'csv, line {line} is damaged'):
    history.read(str(tmp_path / 'a'))
  log = history.History(str(tmp_path / 'a'), 12, TERMS, write=True)
  add(log, 4, 120)
  log.close()
  assert f'left out: line {line}' in capsys.readouterr().err
  assert (tmp_path / 'a' / 'history.damaged.csv').read_bytes() == before
  rows = history.read(str(tmp_path / 'a'))
  assert rows[-1]['step'] == 120
  assert all(row['train_loss'] == 0.5 / row['epoch'] for row in rows)


def test_a_history_with_speeds_in_it_goes_on(tmp_path):
  path = pathlib.Path(tmp_path, 'history.csv')
  path.write_text(
    'epoch,step,train_loss,val_loss,learning_rate,samples_per_s,waiting_share\n'
    '1.0,4.0,0.5,0.7,0.001,3.5,0.125\n'
  )
  log = history.History(str(tmp_path), 4, TERMS, write=True)
  add(log, 2, 8)
  log.close()
  assert path.read_text().splitlines()[1] == '1,4,0.5,0.7,0.001'
  speeds = pathlib.Path(tmp_path, 'speed.csv').read_text().splitlines()
  assert speeds[1:] == ['1,4,3.5,0.125', '2,8,3.0,0.25']
