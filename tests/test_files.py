"""Files and locks of processes that share a file system."""

import os
import signal
import subprocess
import sys

import pytest

from dvhflax import files, locks


def test_writers_of_one_process_id_do_not_meet(tmp_path, monkeypatch):
  """As on two hosts: each writes its own, the last one counts."""
  monkeypatch.setattr(os, 'getpid', lambda: 7)
  path = tmp_path / 'a.txt'
  with files.replacing(path) as one, files.replacing(path) as other:
    assert one != other
    one.write_text('one')
    other.write_text('other')
  assert path.read_text() == 'one'
  assert os.listdir(tmp_path) == ['a.txt']


def test_what_killed_writers_left_is_removed(tmp_path):
  for name in ('a.csv', '.hidden.csv', '.a.csv'):
    (tmp_path / name).write_text('')
  with files.replacing(tmp_path / 'a.csv') as aside:
    aside.write_text('1')
    files.remove_leftovers(tmp_path)
    assert not aside.exists()
    aside.write_text('2')
  assert sorted(os.listdir(tmp_path)) == ['.a.csv', '.hidden.csv', 'a.csv']


def test_a_lock_shuts_others_out_until_it_is_released(tmp_path):
  path = str(tmp_path / 'lock')
  first = locks.try_lock(path)
  assert locks.try_lock(path) is None
  first.release()
  with locks.try_lock(path):
    assert locks.try_lock(path) is None
  assert os.listdir(tmp_path) == []


HOLD = """
import sys
from dvhflax import locks
lock = locks.try_lock(sys.argv[1])
print('held', flush=True)
sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path):
  path = str(tmp_path / 'lock')
  process = subprocess.Popen(
    [sys.executable, '-c', HOLD, path],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  with process:
    assert process.stdout.readline() == b'held\n'
    assert locks.try_lock(path) is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Its file is still there, which must not matter.
    assert os.path.exists(path)
    locks.try_lock(path).release()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
  fcntl = pytest.importorskip('fcntl')

  def refuse(*_):
    raise OSError(38, 'Function not implemented')

  monkeypatch.setattr(fcntl, 'flock', refuse)
  locks.try_lock(str(tmp_path / 'lock')).release()
  locks.try_lock(str(tmp_path / 'lock')).release()
  assert capsys.readouterr().err.count('has no file locks') == 1
