"""`--distributed` alone: JAX reads the cluster's environment."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

COMMAND = """
import jax
import numpy as np
from dvhflax.cli import program
from dvhflax.training import parallel, partners

def main():
  parallel.initialize(None, None, None)
  with partners.parting():
    partners.meet()
    mine = np.full((jax.local_device_count(), 1), 1 + jax.process_index())
    total = parallel.pmap(parallel.psum)(mine)
    print(jax.process_index(), jax.process_count(), int(total[0, 0]))
    partners.meet()
    raise SystemExit(0)

program.run(lambda: None, main, ['x'])
"""


def port_of_job(job):
  """JAX's, of a number of a Slurm job."""
  return 65535 - 2**12 + 1 + job % 2**12


def a_job():
  """A number whose port is free."""
  for job in range(os.getpid(), os.getpid() + 100):
    with socket.socket() as probe:
      try:
        probe.bind(('127.0.0.1', port_of_job(job)))
      except OSError:
        continue
      return job
  raise AssertionError('no free port')


def slurm(job, process):
  return {
    'SLURM_JOB_ID': job,
    'SLURM_STEP_NODELIST': '127.0.0.1',
    'SLURM_STEP_NUM_NODES': 1,
    'SLURM_NTASKS': 2,
    'SLURM_PROCID': process,
    'SLURM_LOCALID': process,
  }


def open_mpi(job, process):
  return {
    'OMPI_MCA_orte_hnp_uri': f'{job * 2**12}.0;tcp://127.0.0.1:34911',
    'OMPI_COMM_WORLD_SIZE': 2,
    'OMPI_COMM_WORLD_RANK': process,
    'OMPI_COMM_WORLD_LOCAL_RANK': process,
  }


def start(environment):
  inherited = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(('SLURM_', 'OMPI_', 'KUBERNETES_', 'JAX_COORD'))
  }
  return subprocess.Popen(
    [sys.executable, '-c', COMMAND],
    cwd=ROOT,
    env={
      **inherited,
      'PYTHONPATH': str(ROOT),
      **{key: str(value) for key, value in environment.items()},
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.slow
@pytest.mark.parametrize('cluster', [slurm, open_mpi])
def test_processes_find_each_other_by_the_environment(cluster):
  job = a_job()
  processes = [start(cluster(job, process)) for process in range(2)]
  try:
    said = [process.communicate(timeout=120) for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [p.returncode for p in processes] == [0, 0], said
  # Gloo says hello first.
  last = sorted(out.splitlines()[-1] for out, _ in said)
  assert last == ['0 2 3', '1 2 3']


@pytest.mark.slow
def test_without_a_cluster_one_line_says_what_to_give():
  process = start({})
  _, err = process.communicate(timeout=60)
  assert process.returncode == 2
  (line,) = err.splitlines()
  assert line.startswith('error: --distributed: ')
  assert '--coordinator, --num_processes and --process_id' in line
