"""Builders of one cohort at once share the work, or wait for each other."""

from concurrent import futures
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

from conftest import STRUCTURES, make_config, make_patient
import pytest

from dvhflax import errors
from dvhflax.cohort import writer
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.validate import validate_cohort
from dvhflax.sources import build

ROOT = pathlib.Path(__file__).parents[2]
PATIENTS = 12


class Source:
  """Patients that take a while, and the order they were asked for."""

  structures = STRUCTURES
  max_plans = 3
  provenance = {'source': 'test'}

  def __init__(self):
    self.ids = [f'p{i}' for i in range(PATIENTS)]
    self.read_by = []
    self.failing = None

  def read(self, index):
    self.read_by.append((index, threading.get_ident()))
    time.sleep(0.02)
    if index == self.failing:
      self.failing = None
      raise errors.CohortError(f'p{index} is faulty')
    return make_patient(index)


@pytest.fixture
def source(monkeypatch):
  made = Source()
  monkeypatch.setitem(build._SOURCES, 'simulated', lambda *_: made)
  return made


@pytest.fixture
def building(tmp_path, source):
  config = make_config(str(tmp_path / 'cohorts' / 'c'))
  config.cohort.plans = 3
  config.cohort.validation_patients = config.cohort.test_patients = 2
  return config


def at_once(function, *arguments):
  with futures.ThreadPoolExecutor(len(arguments)) as pool:
    return list(pool.map(function, *zip(*arguments)))


def content(path):
  return {
    str(f.relative_to(path)): f.read_bytes()
    for f in sorted(pathlib.Path(path).rglob('*'))
    if f.is_file()
  }


def test_builders_share_the_patients(building, source, tmp_path):
  """Threads, which a process id does not tell apart, nor two hosts."""
  shards = [(0, 1), (0, 1), (1, 2)]
  done = at_once(build.build_cohort, *((building, shard) for shard in shards))
  path = pathlib.Path(building.cohort.path)
  assert done[:2] == [True, True]
  assert validate_cohort(str(path)) == []
  assert sorted(i for i, _ in source.read_by) == list(range(PATIENTS))
  assert len({thread for _, thread in source.read_by}) > 1
  # No lock and no file aside is left.
  assert os.listdir(path.parent) == ['c']
  alone = building.copy_and_resolve_references()
  alone.cohort.path = str(tmp_path / 'alone')
  assert build.build_cohort(alone)
  assert content(path) == content(alone.cohort.path)


def test_shards_build_what_is_theirs(building, source):
  assert not build.build_cohort(building, (0, 2))
  assert {i for i, _ in source.read_by} == set(range(0, PATIENTS, 2))
  assert build.build_cohort(building, (1, 2))
  assert validate_cohort(building.cohort.path) == []


def test_of_trainings_one_builds_and_the_others_wait(building, source, capsys):
  cohorts = at_once(build.open_or_build_cohort, *[(building,)] * 3)
  assert [len(c.patients) for c in cohorts] == [PATIENTS] * 3
  assert len(source.read_by) == PATIENTS
  assert len({thread for _, thread in source.read_by}) == 1
  assert 'which another process builds' in capsys.readouterr().err
  assert os.listdir(pathlib.Path(building.cohort.path).parent) == ['c']


def test_one_that_waits_takes_over(building, source):
  """The builder fails; who waited goes on where it stopped."""
  source.failing = 5
  with futures.ThreadPoolExecutor(2) as pool:
    runs = [pool.submit(build.open_or_build_cohort, building) for _ in range(2)]
  failures = [run.exception() for run in runs if run.exception()]
  (failure,) = map(str, failures)
  assert failure.startswith('1 of 12 patients not built')
  assert failure.endswith('p5 is faulty')
  assert validate_cohort(building.cohort.path) == []
  assert len(source.read_by) == PATIENTS + 1


def test_what_killed_builders_left_does_not_block(building, source):
  """Locks and half-written files, of no living process."""
  with pytest.raises(errors.CohortError):
    source.failing = 2
    build.build_cohort(building)
  half = pathlib.Path(writer.building_path(building.cohort.path))
  aside = half / 'patients' / f'.000007.{"0" * 32}.part.json'
  aside.write_text('{"id": ')
  (half / 'patients' / '000007.json.lock').write_text('')
  (half / 'masks' / 'zarr.json.__lock').write_text('')
  for what in ('build', 'folder'):
    pathlib.Path(writer.lock_path(building.cohort.path, what)).write_text('')
  with pytest.raises(errors.CohortError, match='half-written, 11 of 12'):
    Cohort.open(building.cohort.path)
  assert len(build.open_or_build_cohort(building).patients) == PATIENTS
  names = content(pathlib.Path(building.cohort.path).parent)
  assert not [n for n in names if 'lock' in n or '.part.' in n]


@pytest.mark.parametrize('name', ['build.json', 'patients/000001.json'])
def test_a_damaged_file_of_a_build_is_named(building, source, name):
  with pytest.raises(errors.CohortError):
    source.failing = 3
    build.build_cohort(building)
  half = pathlib.Path(writer.building_path(building.cohort.path))
  (half / name).write_text('{')
  with pytest.raises(errors.CohortError, match=f'{name} is damaged: remove'):
    build.build_cohort(building)


def test_a_faulty_patient_costs_no_other(building, source, capsys):
  def read(index):
    if index % 4 == 1:
      raise errors.PlanningError(f'no plan {"x" * index}')
    return make_patient(index)

  source.read = read
  with pytest.raises(errors.PlanningError) as caught:
    build.build_cohort(building)
  assert str(caught.value) == (
    '3 of 12 patients not built, the others are kept: patient p1: no plan x; '
    'patient p5: no plan xxxxx; patient p9: no plan xxxxxxxxx'
  )
  assert 'not built: patient p5: no plan xxxxx\n' in capsys.readouterr().err
  assert writer.written(building.cohort.path) == (9, 12)


def test_what_is_no_patients_fault_stops_a_build_at_once(building, source):
  def read(index):
    source.read_by.append(index)
    if index == 2:
      raise errors.ConfigError('impossible')
    return make_patient(index)

  source.read = read
  with pytest.raises(errors.ConfigError, match=r'^impossible$'):
    build.build_cohort(building)
  assert source.read_by == [0, 1, 2]
  # What was being written is finished.
  assert writer.written(building.cohort.path) == (2, 12)


def test_identity_is_of_content_not_of_place(building, tmp_path):
  build.build_cohort(building)
  cohort = Cohort.open(building.cohort.path)
  moved = tmp_path / 'moved'
  os.rename(cohort.path, moved)
  assert Cohort.open(str(moved)).identity == cohort.identity
  metadata = moved / 'metadata.json'
  for key, change in (
    ('content', lambda v: v['patients'][0]['checksums'].update(dose=1)),
    ('content', lambda v: v['patients'][3].update(prescription_gy=60.0)),
    ('description', lambda v: v['provenance'].update(seed=1)),
    ('description', lambda v: v['patients'][0].update(split='other')),
  ):
    before = metadata.read_text()
    values = json.loads(before)
    change(values)
    metadata.write_text(json.dumps(values))
    changed = Cohort.open(str(moved)).identity
    assert {k for k in changed if changed[k] != cohort.identity[k]} == {key}
    metadata.write_text(before)


SMALL = [
  '--config=configs/prostate.py:small',
  '--config.cohort.patients=4',
  '--config.cohort.plans=2',
  '--config.cohort.validation_patients=1',
  '--config.cohort.test_patients=1',
  '--config.cohort.grid=(32,32,16)',
  '--config.cohort.spacing_mm=(15.0,10.0,12.0)',
]


def start(path):
  return subprocess.Popen(
    [sys.executable, '-m', 'dvhflax', 'build', *SMALL,
     f'--config.cohort.path={path}'],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stderr=subprocess.PIPE,
  )  # fmt: skip


@pytest.mark.slow
def test_processes_that_are_killed_build_the_same(tmp_path):
  alone = tmp_path / 'alone'
  with start(alone) as process:
    assert process.wait(timeout=240) == 0
  shared = tmp_path / 'shared'
  processes = [start(shared) for _ in range(2)]
  while writer.written(str(shared))[0] < 1:
    assert all(p.poll() is None for p in processes)
    time.sleep(0.01)
  # At work on a patient, which the other then takes over.
  processes[0].kill()
  assert processes[1].wait(timeout=240) == 0
  for process in processes:
    process.wait()
    process.stderr.close()
  assert content(shared) == content(alone)
  assert sorted(os.listdir(tmp_path)) == ['alone', 'shared']
