"""Patients to import, and what undisturbed commands make of them."""

import pathlib

import pytest

from faults import commands, killing, patients


@pytest.fixture(scope='session')
def raw(tmp_path_factory) -> pathlib.Path:
  """Six patients as files."""
  return patients.write(tmp_path_factory.mktemp('raw'), 6)


@pytest.fixture(scope='session')
def nursery(tmp_path_factory):
  """Where the commands to be killed come from."""
  with killing.Nursery(tmp_path_factory.mktemp('nursery')) as made:
    yield made


@pytest.fixture(scope='session')
def built(raw, tmp_path_factory) -> pathlib.Path:
  """The cohort of an undisturbed build, to read only."""
  path = tmp_path_factory.mktemp('built') / 'c'
  commands.done(commands.build(raw, path))
  return path


@pytest.fixture(scope='session')
def whole(raw, built, tmp_path_factory):
  """What an undisturbed training leaves; see `commands.trained`."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  commands.done(commands.train(raw, built, workdir))
  return commands.trained(workdir)
