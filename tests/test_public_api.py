"""The public names: cheap to import, documented, and safe in a notebook."""

import asyncio
import inspect
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import warnings

import jax
import matplotlib
import numpy as np
import pytest

import dvhflax
from dvhflax.errors import (
  CheckpointError,
  CohortError,
  ConfigError,
  PlanningError,
  UserError,
  WishError,
)

_IMPORT = """
import sys, time
before, start = set(sys.modules), time.perf_counter()
import dvhflax
seconds = time.perf_counter() - start
new = {name.partition('.')[0] for name in set(sys.modules) - before}
print(seconds, *sorted(new - set(sys.stdlib_module_names)))
"""


def test_the_import_is_cheap():
  # The fastest of three: the machine may have other work.
  seconds = []
  for _ in range(3):
    command = [sys.executable, '-c', _IMPORT]
    said = subprocess.check_output(command, text=True).split()
    assert said[1:] == ['dvhflax']  # no JAX, no numpy
    seconds.append(float(said[0]))
  assert min(seconds) < 0.2


def test_every_public_name_is_there_and_documented():
  for name in dvhflax.__all__:
    value = getattr(dvhflax, name)
    assert inspect.getdoc(value), name
    if not inspect.ismodule(value):
      assert value.__name__ == name  # clear without its module, too
  assert set(dvhflax.__all__) < set(dir(dvhflax))
  with pytest.raises(AttributeError, match='Cohorts'):
    dvhflax.Cohorts  # noqa: B018


def _plain(value):
  return inspect.isfunction(value) or inspect.ismethod(value)


def _public_functions():
  for name in dvhflax.__all__:
    value = getattr(dvhflax, name)
    if inspect.isfunction(value):
      yield name, value
    elif inspect.isclass(value):
      for method, function in inspect.getmembers(value, _plain):
        if method in vars(value) and not method.startswith('_'):
          yield f'{name}.{method}', getattr(function, '__func__', function)


def test_public_functions_are_typed_and_their_arguments_documented():
  for name, function in _public_functions():
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty, name
    documented = inspect.getdoc(function) or ''
    for argument in signature.parameters.values():
      if argument.name in ('self', 'cls'):
        continue
      assert argument.annotation is not inspect.Parameter.empty, name
      if '.' not in name:
        assert argument.name in documented, f'{name}: {argument.name}'


def _process():
  """All of a process that a library must leave as it is."""
  loggers = [logging.root, *logging.root.manager.loggerDict.values()]
  return {
    'loggers': {
      logger.name: (
        logger.level,
        tuple(logger.handlers),
        tuple(logger.filters),
        logger.propagate,
        logger.disabled,
      )
      for logger in loggers
      if isinstance(logger, logging.Logger)
    },
    'logging off': logging.root.manager.disable,
    'signals': [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
    'hooks': (sys.excepthook, threading.excepthook),
    'warnings': list(warnings.filters),
    'environment': dict(os.environ),
    'folder': os.getcwd(),
    'jax': dict(jax.config.values),
    'figures': dict(matplotlib.rcParams),
  }


def _unchanged(before, after):
  loggers, of_after = before.pop('loggers'), after.pop('loggers')
  # Those that are new come from libraries that were imported meanwhile.
  assert {name: of_after[name] for name in loggers} == loggers
  assert after == before


def _notebook(config, workdir):
  cohort = dvhflax.open_or_build_cohort(config)
  state = dvhflax.train(config, cohort, workdir)
  text = dvhflax.evaluate(workdir)
  session = dvhflax.Session.open(workdir, 'p0')
  session.first_dose()
  step = session.tune('rectum mean <= 30 Gy')
  return int(state.step), text, step.dose_gy


def test_a_workflow_in_a_thread_leaves_the_process_as_it_is(
  config, tmp_path, capsys
):
  config.epochs = 2
  found = []
  before = _process()
  thread = threading.Thread(
    target=lambda: found.append(_notebook(config, tmp_path / 'run'))
  )
  thread.start()
  thread.join()
  ((step, text, dose_gy),) = found
  assert step == 6 and 'rectum' in text and np.isfinite(dose_gy).all()
  _unchanged(before, _process())
  # What functions return, they do not print.
  assert capsys.readouterr().out == ''


def test_a_workflow_under_a_running_loop(
  config, cohort_path, tmp_path, monkeypatch
):
  # As in Jupyter, with a relative path, in the main thread.
  config.epochs = 1
  monkeypatch.chdir(tmp_path)

  async def cell():
    cohort = dvhflax.Cohort.open(pathlib.Path(cohort_path))
    return dvhflax.train(config, cohort, 'run')

  before = _process()
  assert int(asyncio.run(cell()).step) == 3
  _unchanged(before, _process())


BOX = np.pad(np.ones((4, 4, 4), np.uint8), 4)
MASKS = {'body': np.ones_like(BOX), 'PTV': BOX}
PROTOCOL = dvhflax.Protocol('box', 3, {'PTV': 60.0}, {})
SPACING = (5.0, 5.0, 5.0)


def _config(**changes):
  config = dvhflax.config.default()
  config.update_from_flattened_dict(changes)
  return config


MISTAKES = {
  'no cohort': (
    lambda: dvhflax.Cohort.open('nowhere'), CohortError, 'no cohort at nowhere'
  ),
  'no run': (
    lambda: dvhflax.Session.open('nowhere', 'p0'), CheckpointError, 'nowhere'
  ),
  'no run to evaluate': (
    lambda: dvhflax.evaluate('nowhere'), CheckpointError, 'nowhere'
  ),
  'no network': (
    lambda: dvhflax.load_network('nowhere'), CheckpointError, 'nowhere'
  ),
  'a config that is none': (
    lambda: dvhflax.open_or_build_cohort({'seed': 1}), ConfigError, 'ConfigDict'
  ),
  'a key that cannot be': (
    lambda: dvhflax.build_cohort(_config(batch_size=0)),
    ConfigError,
    'batch_size',
  ),
  'no body': (
    lambda: dvhflax.plan_patient({'PTV': BOX}, SPACING, 2, PROTOCOL),
    PlanningError,
    'body is missing',
  ),
  'no mask': (
    lambda: dvhflax.plan_patient({}, SPACING, 2, PROTOCOL),
    PlanningError,
    'body is missing',
  ),
  'masks of two shapes': (
    lambda: dvhflax.plan_patient(
      {'body': BOX, 'PTV': BOX[1:]}, SPACING, 2, PROTOCOL
    ),
    PlanningError,
    'shapes',
  ),
  'two numbers for the voxel size': (
    lambda: dvhflax.plan_patient(MASKS, (5.0, 5.0), 2, PROTOCOL),
    PlanningError,
    'spacing_mm',
  ),
  'no plan': (
    lambda: dvhflax.plan_patient(MASKS, SPACING, 0, PROTOCOL),
    PlanningError,
    'at least 1',
  ),
  'a dose of another shape': (
    lambda: dvhflax.mimic(np.ones((2, 2, 2)), MASKS, SPACING, PROTOCOL),
    PlanningError,
    'shape',
  ),
  'a protocol without a target': (
    lambda: dvhflax.Protocol('none', 3, {}, {}), PlanningError, 'target'
  ),
  'a DVH of an unknown kind': (
    lambda: dvhflax.DVHSpec('dose_volume'), ValueError, 'volume_at_dose'
  ),
  'a dose and masks of two shapes': (
    lambda: dvhflax.dvh_vectors(
      np.ones((2, 2, 2)), np.ones((3, 3, 3, 1)), dvhflax.DVHSpec()
    ),
    ValueError,
    'masks',
  ),
  'curves of two lengths': (
    lambda: dvhflax.project(
      np.ones((2, 32)), np.ones((2, 9, 16)), np.ones((2, 9), bool)
    ),
    ValueError,
    r'pareto \[B, N, K\]',
  ),
}  # fmt: skip


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_told_in_a_line(mistake, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  call, kind, words = MISTAKES[mistake]
  with pytest.raises(kind, match=words) as raised:
    call()
  assert '\n' not in str(raised.value)
  assert not list(tmp_path.iterdir())  # a wrong path leaves nothing behind


def test_mistakes_with_a_cohort(config, cohort, trained_run, tmp_path):
  config.cohort.grid = (16, 16, 8)
  with pytest.raises(CohortError, match=r'grid \(8, 8, 4\).*cohort\.grid'):
    dvhflax.train(config, cohort, tmp_path)
  with pytest.raises(CohortError, match="no patient 'p99'; there are p0"):
    dvhflax.Session.open(trained_run, 'p99')
  with pytest.raises(CheckpointError, match="no checkpoint 'worst'; there are"):
    dvhflax.load_network(trained_run, 'worst')
  session = dvhflax.Session.open(trained_run, 'p0')
  with pytest.raises(UserError, match='first_dose'):
    session.tune('rectum mean <= 30 Gy')
  session.first_dose()
  with pytest.raises(WishError, match='rectum'):
    session.tune('rectum at most 30')
  with pytest.raises(CohortError, match='nowhere'):
    dvhflax.ExternalPatients('nifti', 'nowhere', cohort)
  with pytest.raises(ConfigError, match='dicom'):
    dvhflax.ExternalPatients('dicon', trained_run, cohort)
