"""SIGKILL at any moment: the same command ends with the same bytes."""

import os

import numpy as np
import pytest

from faults import commands, killing


def kill_builds(nursery, command, tmp_path, kills, rng):
  """Kills builds; returns what was done.

  Args:
    nursery: of commands.
    command: given a path, of a build.
    tmp_path: to work in.
    kills: wanted.
    rng: of the moments.
  """
  first = tmp_path / 'whole'
  first.mkdir()
  life = killing.measure(nursery, command(first / 'c'), first)
  whole = commands.content(first / 'c')
  tally = killing.Tally()
  while tally.kills < kills:
    folder = tmp_path / f'killed-{tally.runs}'
    folder.mkdir()
    path = folder / 'c'
    killing.until_done(
      nursery,
      command(path),
      folder,
      life,
      lambda path=path: commands.records(path),
      path.exists,
      rng,
      tally,
      kills - tally.kills,
    )
    assert commands.content(path) == whole
    # Beside it the report of an import, and nothing else.
    assert sorted(os.listdir(folder)) == sorted(os.listdir(first))
    assert commands.litter(folder) == []
  return tally


def kill_trainings(nursery, raw, tmp_path, kills, rng):
  """Kills trainings that begin with the build of their cohort."""
  first = tmp_path / 'whole'
  first.mkdir()
  life = killing.measure(
    nursery, commands.train(raw, first / 'c', first / 'run'), first
  )
  cohort, whole = commands.content(first / 'c'), commands.trained(first / 'run')
  tally = killing.Tally()
  while tally.kills < kills:
    folder = tmp_path / f'killed-{tally.runs}'
    folder.mkdir()
    killing.until_done(
      nursery,
      commands.train(raw, folder / 'c', folder / 'run'),
      folder,
      life,
      lambda folder=folder: commands.steps(folder / 'run'),
      lambda folder=folder: (
        int(whole['step']) in commands.steps(folder / 'run')
      ),
      rng,
      tally,
      kills - tally.kills,
    )
    ended = commands.trained(folder / 'run')
    assert [k for k in whole if whole[k] != ended.get(k)] == []
    assert commands.content(folder / 'c') == cohort
    assert commands.litter(folder) == []
  return tally


def test_a_build_that_is_killed_goes_on(nursery, raw, tmp_path):
  """The sample of the suite: one kill."""
  rng = np.random.default_rng([killing.seed(), 0])
  kill_builds(nursery, lambda path: commands.build(raw, path), tmp_path, 1, rng)


@pytest.mark.slow
def test_builds_that_import_are_killed(nursery, raw, tmp_path, capsys):
  rng = np.random.default_rng([killing.seed(), 1])
  kills = killing.wanted(6)
  tally = kill_builds(
    nursery, lambda path: commands.build(raw, path), tmp_path, kills, rng
  )
  with capsys.disabled():
    print(f'\n{tally.words("builds that import")}')


@pytest.mark.slow
def test_builds_that_plan_are_killed(nursery, tmp_path, capsys):
  """A tenth as often: it takes longer to plan than to write."""
  rng = np.random.default_rng([killing.seed(), 2])
  tally = kill_builds(
    nursery, commands.plan, tmp_path, max(killing.wanted(6) // 10, 1), rng
  )
  with capsys.disabled():
    print(f'\n{tally.words("builds that plan")}')


@pytest.mark.slow
def test_trainings_are_killed(nursery, raw, tmp_path, capsys):
  rng = np.random.default_rng([killing.seed(), 3])
  tally = kill_trainings(nursery, raw, tmp_path, killing.wanted(6), rng)
  with capsys.disabled():
    print(f'\n{tally.words("trainings")}')
