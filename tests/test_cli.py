"""Every kind of bad input ends in one line and exit status 2."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run(*command):
  return subprocess.run(
    [sys.executable, *command],
    cwd=ROOT,
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
    (['-m', 'dvhflax.cohort.build', SMALL, '--shard=3/2'], '--shard'),
  ],
)  # fmt: skip
def test_one_line_and_no_traceback(command, words):
  result = run(*command)
  assert result.returncode == 2
  assert words in result.stderr and 'Traceback' not in result.stderr
  assert len(result.stderr.strip().splitlines()) == 1


def test_grid_of_the_cohort_and_of_the_config(cohort_path, tmp_path):
  result = run(
    'run_train.py', SMALL, f'--config.cohort.path={cohort_path}',
    f'--workdir={tmp_path}',
  )  # fmt: skip
  assert result.returncode == 2 and 'grid (8, 8, 4)' in result.stderr
  assert 'Traceback' not in result.stderr
