"""Disks that are full or read-only, and folders that vanish.

What cannot go on says so in one line, and loses nothing: once there is room,
the same command ends as if nothing had been.
"""

import os
import shutil

import pytest

from faults import commands, disk

pytestmark = pytest.mark.slow
FULL = ('No space left', 'make room, and run the same command again')
READ_ONLY = ('Read-only file system: make it writable', 'run the same command')
LONG = '--config.epochs=100000'


# Room for no report, for the report alone, and for some patients.
@pytest.mark.parametrize('size', ['4k', '64k', '120k'])
def test_a_build_on_a_full_disk(raw, built, tmp_path, size):
  with disk.Disk(tmp_path, size) as small:
    build = commands.build(raw, small.path / 'c')
    ended = commands.run(build, within=small.enter)
    commands.assert_one_line(ended, *FULL, str(small.path / 'c'))
    kept = commands.records(small.seen / 'c')
    assert bool(kept) == (size == '120k')
    small.remount('size=64m')
    commands.done(build, within=small.enter)
    assert commands.content(small.seen / 'c') == commands.content(built)
    assert commands.litter(small.seen) == []


# Room for no history, and for one checkpoint.
@pytest.mark.parametrize('size', ['12k', '600k'])
def test_a_training_on_a_full_disk(raw, built, whole, tmp_path, size):
  with disk.Disk(tmp_path, size) as small:
    train = commands.train(raw, built, small.path / 'run')
    ended = commands.run(train, within=small.enter)
    commands.assert_one_line(ended, *FULL, str(small.path / 'run'))
    kept = commands.steps(small.seen / 'run')
    assert bool(kept) == (size == '600k')
    small.remount('size=64m')
    ended = commands.done(train, within=small.enter)
    assert commands.trained(small.seen / 'run') == whole
    assert commands.litter(small.seen) == []


def test_read_only_disks(raw, built, whole, tmp_path):
  with disk.Disk(tmp_path, '64m') as locked:
    shutil.copytree(built, locked.seen / 'c')
    locked.remount('ro')
    for command in (
      commands.build(raw, locked.path / 'other'),
      commands.train(raw, built, locked.path / 'run'),
    ):
      ended = commands.run(command, within=locked.enter)
      commands.assert_one_line(ended, *READ_ONLY, str(locked.path))
    # To read from, it is enough.
    elsewhere = tmp_path.parent / f'{tmp_path.name}-run'
    commands.done(
      commands.train(raw, locked.path / 'c', elsewhere), within=locked.enter
    )
    assert commands.trained(elsewhere) == whole


def test_a_workdir_that_vanishes(raw, built, whole, tmp_path):
  run, away = tmp_path / 'run', tmp_path / 'away'
  process = commands.start(commands.train(raw, built, run, LONG))
  commands.wait_until(lambda: commands.steps(run), process)
  os.rename(run, away)
  commands.assert_one_line(commands.end(process), str(run), 'bring it back')
  # What Orbax may have made at that moment is none of the run's.
  assert not (run / 'history.csv').exists()
  shutil.rmtree(run, ignore_errors=True)
  os.rename(away, run)
  step = max(commands.steps(run))
  epochs = -(-step // 4) + 1
  commands.done(commands.train(raw, built, run, f'--config.epochs={epochs}'))
  assert max(commands.steps(run)) == 4 * epochs


def test_a_build_whose_folder_vanishes(raw, built, tmp_path):
  half = tmp_path / 'c.building'
  build = commands.build(raw, tmp_path / 'c')
  process = commands.start(build)
  commands.wait_until(lambda: commands.records(tmp_path / 'c'), process)
  os.rename(half, tmp_path / 'away')
  ended = commands.end(process)
  commands.assert_one_line(ended, str(half), 'bring it back')
  # What TensorStore may have made at that moment is no part of the build.
  assert not commands.records(tmp_path / 'c')
  shutil.rmtree(half, ignore_errors=True)
  os.rename(tmp_path / 'away', half)
  commands.done(build)
  assert commands.content(tmp_path / 'c') == commands.content(built)
  assert commands.litter(tmp_path) == []


def test_a_cohort_that_vanishes(raw, built, whole, tmp_path):
  cohort, run = tmp_path / 'c', tmp_path / 'run'
  shutil.copytree(built, cohort)
  train = commands.train(raw, cohort, run, '--config.data.placement=store')
  process = commands.start([*train, LONG])
  commands.wait_until(lambda: commands.steps(run), process)
  os.rename(cohort, tmp_path / 'away')
  commands.assert_one_line(commands.end(process), str(cohort))
  kept = commands.steps(run)
  assert kept
  commands.assert_one_line(commands.run([*train, LONG]), str(cohort))
  assert commands.steps(run) == kept
