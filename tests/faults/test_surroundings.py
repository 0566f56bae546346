"""Clocks that jump, caches that are full or damaged, and no HOME."""

import os
import shutil
import subprocess
import sys
import warnings

import pytest

from dvhflax.cli import compiled
from faults import commands, disk, killing

READING = (
  "Error reading persistent compilation cache entry for 'jit_step': "
  'ZstdError: damaged'
)


@pytest.fixture
def clock(tmp_path_factory) -> dict[str, str]:
  """The environment of a clock that jumps."""
  if not shutil.which('cc'):
    pytest.skip('no C compiler')
  library = tmp_path_factory.mktemp('clock') / 'clock.so'
  subprocess.run(
    ['cc', '-shared', '-fPIC', '-O1', '-o', library,
     killing.PRELOAD / 'clock.c', '-ldl'],
    check=True,
  )  # fmt: skip
  return {'LD_PRELOAD': str(library)}


def test_the_clock_does_jump(clock):
  """Of Python, and not what counts from the start of the machine."""
  look = (
    'import time; x = [time.time() for _ in range(200)]; '
    'y = [time.monotonic() for _ in range(200)]; '
    'print(max(x) - min(x) > 86400, min(x) < x[0], max(y) - min(y) < 60)'
  )
  said = subprocess.check_output(
    [sys.executable, '-S', '-c', look], env={**os.environ, **clock}, text=True
  )
  assert said.split() == ['True', 'True', 'True']


@pytest.mark.slow
def test_a_clock_that_jumps(raw, built, whole, tmp_path, clock):
  path, run = tmp_path / 'c', tmp_path / 'run'
  commands.done(commands.build(raw, path), **clock)
  assert commands.content(path) == commands.content(built)
  # In two parts, so that it resumes in its own future or past.
  train = commands.train(raw, path, run)
  # By three minutes: Orbax measures its waits by the time of day, and gives up,
  # or waits for ever, if that jumps by more than it would wait.
  for flags in (['--config.epochs=2'], []):
    commands.done([*train, *flags], **clock, CLOCK_DIVISOR='1440')
  assert commands.trained(run) == whole
  # The events of both parts are kept.
  assert len(list((run / 'tensorboard').iterdir())) == 2


@pytest.mark.slow
def test_a_full_cache(raw, built, whole, tmp_path):
  """One note, and the same training; with room again, no note."""
  with disk.Disk(tmp_path, '100k') as small:
    cache = {'JAX_COMPILATION_CACHE_DIR': str(small.path)}
    run = tmp_path.parent / f'{tmp_path.name}-run'
    train = commands.train(raw, built, run)
    ended = commands.done(train, within=small.enter, **cache)
    (note,) = ended.said
    assert note.startswith(f'note: compiled programs are kept in {small.path}')
    assert 'No space left' in note
    assert commands.trained(run) == whole
    # What it left in part is replaced.
    small.remount('size=64m')
    shutil.rmtree(run)
    for notes in (1, 0):
      ended = commands.done(train, within=small.enter, **cache)
      assert len(ended.said) <= notes, ended.said
      assert commands.trained(run) == whole
      shutil.rmtree(run)


@pytest.mark.slow
@pytest.mark.parametrize('home', [None, '/proc/no-home'])
def test_no_home(raw, whole, tmp_path, home):
  """Nor a folder of the user's own."""
  here = tmp_path / 'here'
  here.mkdir()
  none = {'HOME': home, 'XDG_CACHE_HOME': None, 'MPLCONFIGDIR': None}
  ended = commands.done(
    commands.train(raw, tmp_path / 'c', tmp_path / 'run'),
    cwd=here,
    **none,
    JAX_COMPILATION_CACHE_DIR=None,
  )
  assert all(line.startswith('note: ') for line in ended.said[1:]), ended.said
  assert commands.trained(tmp_path / 'run') == whole
  assert os.listdir(here) == []


def test_without_a_home_nothing_is_kept_where_the_user_stands(monkeypatch):
  for name in ('HOME', 'XDG_CACHE_HOME', 'JAX_COMPILATION_CACHE_DIR'):
    monkeypatch.delenv(name, raising=False)
  # As of a user whom the system does not know.
  monkeypatch.setattr(compiled.os.path, 'expanduser', lambda path: path)
  compiled.keep()
  assert 'JAX_COMPILATION_CACHE_DIR' not in os.environ


def test_a_damaged_program_is_removed_and_said_once(
  tmp_path, monkeypatch, capsys
):
  damaged, other = tmp_path / 'jit_step-0f-cache', tmp_path / 'jit_x-0f-cache'
  for path in (damaged, other):
    path.write_bytes(b'cut')
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path))
  passed = []
  with warnings.catch_warnings():
    monkeypatch.setattr(
      warnings, 'showwarning', lambda *given, **_: passed.append(str(given[0]))
    )
    compiled.keep()
    warnings.simplefilter('always')
    for text in (READING, READING.replace('jit_step', 'jit_y'), 'another'):
      warnings.warn(text, stacklevel=1)
  assert passed == ['another']
  assert not damaged.exists() and other.exists()
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f'note: compiled programs are kept in {tmp_path}')
