"""A Dask cluster builds the same store, whatever becomes of its workers."""

import os
import pathlib
import pickle
import signal
import socket
import threading
import time

from conftest import STRUCTURES, make_config, make_patient
import pytest

from dvhflax import errors
from dvhflax.cohort import writer
from dvhflax.sources import build, dask_engine
from dvhflax.sources.kept import Kept

pytest.importorskip('distributed')
PATIENTS = 10


class Source:
  """Patients that take a while, one of which may be faulty or deadly."""

  structures = STRUCTURES
  max_plans = 3
  provenance = {'source': 'test'}

  def __init__(self, pause=0.3, faulty=None, deadly=None):
    self.ids = [f'p{i}' for i in range(PATIENTS)]
    self.pause, self.faulty, self.deadly = pause, faulty, deadly

  def read(self, index):
    time.sleep(self.pause)
    if index == self.faulty:
      raise errors.PlanningError('no plan')
    if index == self.deadly:
      os.kill(os.getpid(), signal.SIGKILL)
    return make_patient(index)


def configure(path):
  config = make_config(str(path))
  config.cohort.plans = 3
  config.cohort.validation_patients = config.cohort.test_patients = 2
  return config


def content(path):
  return {
    str(f.relative_to(path)): f.read_bytes()
    for f in sorted(pathlib.Path(path).rglob('*'))
    if f.is_file()
  }


@pytest.fixture
def cluster():
  import dask

  # Workers import this module and conftest, as this process does.
  with (
    dask.config.set({'distributed.scheduler.allowed-failures': 1}),
    dask_engine.Dask('local:2') as engine,
  ):
    yield engine


def kill_one(engine, path):
  """Once a patient is written, all workers being at others."""
  pids = engine.client.run(os.getpid)
  while writer.written(str(path))[0] < 1:
    time.sleep(0.01)
  os.kill(next(iter(pids.values())), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::ResourceWarning')
def test_a_cluster_whose_worker_dies_builds_the_same(
  cluster, tmp_path, monkeypatch
):
  alone = tmp_path / 'alone'
  assert build.build_cohort(configure(alone), source=Source(0))
  # A relative path, which is another one for the workers.
  monkeypatch.chdir(tmp_path)
  killer = threading.Thread(target=kill_one, args=(cluster, 'shared'))
  killer.start()
  assert build.build_cohort(
    configure('shared'), source=Source(), engine=cluster
  )
  killer.join()
  assert content('shared') == content(alone)
  assert sorted(os.listdir(tmp_path)) == ['alone', 'shared']
  assert cluster.dashboard.startswith('http://')


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::ResourceWarning')
def test_patients_that_fail_or_kill_cost_no_other(cluster, tmp_path):
  config = configure(tmp_path / 'c')
  source = Source(0, faulty=3, deadly=6)
  with pytest.raises(errors.UserError) as caught:
    build.build_cohort(config, source=source, engine=cluster)
  text = str(caught.value)
  assert text.startswith('2 of 10 patients not built, the others are kept: ')
  assert 'patient p3: no plan' in text
  assert 'patient p6: each of several workers died' in text
  assert writer.written(config.cohort.path) == (8, 10)
  # Here, and then with nothing left to do.
  assert build.build_cohort(config, source=Source(0))


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::ResourceWarning')
def test_a_worker_that_computes_something_else_is_refused(
  cluster, tmp_path, monkeypatch
):
  other = (('dvhflax', '0.0'), *dask_engine._VERSIONS[1:])
  monkeypatch.setattr(dask_engine, '_VERSIONS', other)
  with pytest.raises(errors.ConfigError, match=r'this process 0\.0'):
    build.build_cohort(
      configure(tmp_path / 'c'), source=Source(0), engine=cluster
    )


def test_no_scheduler_answers(monkeypatch, tmp_path):
  monkeypatch.setattr(dask_engine, '_CONNECT_S', 0.2)
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    address = f'tcp://127.0.0.1:{probe.getsockname()[1]}'
  for name in (address, 'nonsense://x', 'local:0', 'local:x',
               str(tmp_path / 'missing.json')):  # fmt: skip
    with pytest.raises(errors.ConfigError, match='--scheduler=') as caught:
      dask_engine.Dask(name)
    assert name in str(caught.value)


def test_what_travels_to_workers(tmp_path):
  """The writer, to where its folder is seen, and no imported patient."""
  config = configure(tmp_path / 'c')
  made = writer.CohortWriter(
    str(tmp_path / 'c'),
    structures=STRUCTURES,
    grid=tuple(config.cohort.grid),
    dvh=build.config_lib.dvh_spec(config),
    max_plans=3,
    patient_ids=['p0'],
    splits=['train'],
    provenance={},
  )
  pickled = pickle.dumps(made)
  assert pickle.loads(pickled).missing() == [0]
  os.rename(tmp_path / 'c.building', tmp_path / 'elsewhere')
  with pytest.raises(errors.ConfigError, match='does not see'):
    pickle.loads(pickled)
  kept = Kept(str(tmp_path))
  kept.keep(make_patient(0))
  assert kept.take('p0') is not None
  assert pickle.loads(pickle.dumps(kept)).take('p0') is None
