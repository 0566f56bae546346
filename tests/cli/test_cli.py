"""Every kind of bad input ends in one line and exit status 2."""

import os
import pathlib
import subprocess
import sys

import pytest

from dvhflax import errors

ROOT = pathlib.Path(__file__).parents[2]


def run(*command, cwd=ROOT):
  return subprocess.run(
    [sys.executable, *command],
    cwd=cwd,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
  )


SMALL = '--config=configs/prostate.py:small'


@pytest.mark.parametrize(
  'command, words',
  [
    (['run_train.py', SMALL, '--config.batchsize=3'], 'batchsize'),
    (['run_train.py', SMALL, '--config.batch_size=x'], 'batch_size'),
    (['run_train.py', SMALL, '--config.model.norm=layer'], 'model.norm'),
    (['run_train.py', '--config=configs/prostate.py:tiny'], 'tiny'),
    (['run_train.py', '--config=configs/openkbp.py'], 'cohort.raw'),
    (['run_train.py', '--config=configs/dicom.py'], 'cohort.raw'),
    (['run_train.py', '--config=configs/dicom.py', '--config.cohort.raw=none'],
     'no folder'),
    (['run_train.py', SMALL, "--config.cohort.structures=('body', 'liver')"],
     'cohort.structures'),
    (['run_train.py', SMALL, '--config.cohort.grid=(60, 64, 32)'], 'grid'),
    (['run_eval.py'], '--workdir'),
    (['run_eval.py', '--workdir=nothing'], 'no checkpoint'),
    (['-m', 'dvhflax', 'build', SMALL, '--shard=3/2'], '--shard'),
  ],
)  # fmt: skip
def test_one_line_and_no_traceback(command, words):
  result = run(*command)
  assert result.returncode == 2
  assert words in result.stderr and 'Traceback' not in result.stderr
  assert len(result.stderr.strip().splitlines()) == 1
  assert result.stderr.strip().isprintable()


def test_grid_of_the_cohort_and_of_the_config(cohort_path, tmp_path):
  result = run(
    'run_train.py', SMALL, f'--config.cohort.path={cohort_path}',
    f'--workdir={tmp_path}',
  )  # fmt: skip
  assert result.returncode == 2 and 'grid (8, 8, 4)' in result.stderr
  assert 'Traceback' not in result.stderr


# Each in a process of its own would take a second and more.
FORKING = """
import os, sys, traceback
from absl import flags
from dvhflax import config
from dvhflax.cli import program

for arguments in sys.argv[1:]:
  print('--', flush=True)
  if os.fork():
    status = os.waitstatus_to_exitcode(os.wait()[1])
    print(f'exit {status}', flush=True)
    continue
  os.dup2(1, 2)
  argv = ['train', *arguments.split('|')]
  status = 1
  try:
    program.run(
      lambda: program.define_config('prostate'),
      lambda: config.validate(flags.FLAGS.config),
      argv,
    )
  except SystemExit as left:
    status = left.code
  except BaseException:
    traceback.print_exc()
  sys.stderr.flush()
  os._exit(status)  # to take all of JAX down takes a while
"""
FILES = {
  'missing': (None, 'no such file'),
  'syntax': ('def get_config(:', 'line 1: invalid syntax'),
  'import': ('import not_there', 'line 1: ModuleNotFoundError: No module'),
  'other': ('x = 1', 'has no function get_config'),
  'five': (
    'def get_config(): return 5',
    'five.py: its get_config() returned 5',
  ),
  'dict': ('def get_config(): return {"seed": 1}', "returned {'seed': "),
  'none': (
    'def get_config(): return None',
    'none.py: its get_config() returned None',
  ),
  'key': ('\ndef get_config(): return {}["a"]', "line 2: KeyError: 'a'"),
  'deep': ('def get_config(): return get_config()', 'line 1: RecursionError'),
  'os': ('def get_config(): raise OSError("\\x1b[31m")', 'line 1: OSError'),
  'null': ('\x00', 'null bytes'),
}
FLAGS = {
  f'{SMALL}|--config.cohort.grid=words': 'cohort.grid',
  f'{SMALL}|--config.seed=-1': 'seed=-1',
  f'{SMALL}|--config.cohort.grid=(64.5, 64, 32)': 'cohort.grid',
  f'{SMALL}|--config.model.norm.x=3': '--config.model.norm.x',
  f'{SMALL}|--config.planning.gap=inf': 'planning.gap=inf',
  '--config.batchsize=3': '--config.batchsize',
  '--config=configs/dicom.py:small': 'leave out :small',
  '--config': 'Missing value',
  '--config|\x1b[31mno\n.py': 'no such file',
  '--config=': 'no such file',
  '--config=configs': "no configuration 'configs'",
  '--config=./configs': 'Is a directory',
  '--config|prostat:small': 'did you mean prostate? use one of dicom, openkbp',
  '--config=prostate:tiny': 'use one of anatomy, full, small',
  '--config=prostate|--config.seed=-1': 'seed=-1',
}


def test_configurations_that_cannot_be(tmp_path):
  expected = dict(FLAGS)
  for name, (text, words) in FILES.items():
    path = tmp_path / f'{name}.py'
    if text is not None:
      path.write_text(text)
    expected[f'--config={path}'] = words
    expected[f'--config|{path}|--config.seed=3'] = words
  result = run('-c', FORKING, *expected)
  outputs = result.stdout.split('--\n')[1:]
  assert len(outputs) == len(expected) and not result.stderr
  for (arguments, words), output in zip(expected.items(), outputs):
    *lines, status = output.splitlines()
    if 'none.py' in arguments:  # on which ml_collections remarks itself
      lines = [line for line in lines if line.startswith('error: ')]
    assert len(lines) == 1 and status == 'exit 2', (arguments, output)
    assert lines[0].startswith('error: ') and lines[0].isprintable()
    assert words in lines[0] or '--config.seed: ' in lines[0], (
      arguments,
      output,
    )


def test_a_folder_that_cannot_be_written(tmp_path, cohort_path):
  (tmp_path / 'file').write_text('')
  result = run(
    'run_train.py', SMALL, f'--config.cohort.path={cohort_path}',
    '--config.cohort.grid=(8, 8, 4)', '--config.cohort.dvh_points=16',
    '--config.cohort.normalisation=target_mean',
    f'--workdir={tmp_path}/file/run',
  )  # fmt: skip
  assert result.returncode == 2 and 'Traceback' not in result.stderr
  assert f'{tmp_path}/file/run: ' in result.stderr


def test_messages_are_printable_and_short():
  assert errors.plain('\x1b[2J\n\u202e', 9) == '\\x1b[2J\\n\\u202e'
  assert errors.shown("it's") == '"it\'s"'
  long = errors.shown('a' * 10**7)
  assert len(long) < 100 and long.startswith("'aaa") and '...' in long
  assert len(errors.shown([0] * 10**6)) < 100
  assert 'int' in errors.shown(10**5000)
