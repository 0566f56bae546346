"""A folder of DICOM-RT to a cohort: what is built, told and refused."""

import errno
import json
import sys
from unittest import mock

import pydicom
import pytest
import synthetic_dicom as synthetic

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.validate import validate_cohort
from dvhflax.io import dicom, importing
from dvhflax.sources import imported, kept
from dvhflax.sources.build import build_cohort
from dvhflax.tuning.external import ExternalPatients


def make_config(raw, path):
  config = config_lib.default()
  config.cohort.source, config.cohort.plans = 'dicom', 0
  config.cohort.normalisation = 'prescription'
  config.cohort.raw = str(raw)
  config.cohort.path = str(path)
  config.cohort.grid = (16, 16, 8)
  config.cohort.spacing_mm = (8.0, 8.0, 12.0)
  config.cohort.validation_patients = 1
  config.cohort.test_patients = 1
  return config


def test_a_broken_patient_does_not_stop_the_others(tmp_path):
  for i in range(4):
    synthetic.write_patient(
      tmp_path / 'in' / f'{i}', patient=f'p{i}', prefix=f'1.2.{i}', plans=1 + i
    )
  broken = tmp_path / 'in' / '2' / 'a'
  broken.write_bytes(broken.read_bytes()[:3000])
  config = make_config(tmp_path / 'in', tmp_path / 'cohort')
  config_lib.validate(config)
  assert build_cohort(config)
  cohort = Cohort.open(str(tmp_path / 'cohort'))
  assert [p.id for p in cohort.patients] == ['p0', 'p1', 'p3']
  assert [p.plans for p in cohort.patients] == [1, 2, 4]
  assert not validate_cohort(str(tmp_path / 'cohort'))
  report = json.loads((tmp_path / 'cohort.import.json').read_text())
  assert [p['id'] for p in report['patients']] == ['p0', 'p1', 'p3']
  assert any('in/2/a' in one['why'] + one['what'] for one in report['skipped'])
  assert 'skipped' in (tmp_path / 'cohort.import.txt').read_text()


@pytest.mark.parametrize(
  'disk_is_full', [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_build_reads_patients_once(tmp_path, monkeypatch, disk_is_full):
  for i in range(4):
    synthetic.write_patient(
      tmp_path / 'in' / f'{i}', patient=f'p{i}', prefix=f'1.2.{i}', plans=2
    )
  broken = tmp_path / 'in' / '1' / 'a'
  broken.write_bytes(broken.read_bytes()[:3000])
  calls = []

  def assemble(*args, **options):
    calls.append(args[0].id)
    return original(*args, **options)

  original = importing.assemble
  monkeypatch.setattr(importing, 'assemble', assemble)
  if disk_is_full:
    dump = mock.Mock(side_effect=OSError(errno.ENOSPC, 'No space left'))
    monkeypatch.setattr(kept.pickle, 'dump', dump)
  config = make_config(tmp_path / 'in', tmp_path / 'cohorts' / 'one')
  assert build_cohort(config) and not validate_cohort(config.cohort.path)
  checked = ['p0', 'p2', 'p3']
  assert calls == checked + disk_is_full * checked
  assert sorted(path.name for path in (tmp_path / 'cohorts').iterdir()) == [
    'one', 'one.import.json', 'one.import.txt',
  ]  # fmt: skip
  config.cohort.path = str(tmp_path / 'shared')
  for shard in range(2):
    calls.clear()
    assert build_cohort(config, (shard, 2)) == (shard == 1)
    own = checked[shard::2]
    assert calls == checked + disk_is_full * own
  assert not validate_cohort(config.cohort.path)
  one, shared = (
    Cohort.open(str(tmp_path / name)) for name in ('cohorts/one', 'shared')
  )
  assert one.patients == shared.patients


def test_phases_are_added_where_the_config_says_so(tmp_path, capsys):
  for i in range(3):
    folder = synthetic.write_patient(
      tmp_path / 'in' / f'{i}', patient=f'p{i}', prefix=f'1.2.{i}', plans=2
    )
    boost = synthetic.plan(
      15.0, uid=f'1.2.{i}.70', patient=f'p{i}', refers_to=f'1.2.{i}.6'
    )
    synthetic.save(boost, folder / 'boost')
    dose = pydicom.dcmread(folder / 'dose1')
    reference = dose.ReferencedRTPlanSequence[0]
    reference.ReferencedSOPInstanceUID = f'1.2.{i}.70'
    dose.save_as(folder / 'dose1')
  config = make_config(tmp_path / 'in', tmp_path / 'courses')
  imported.Imported(config.cohort)
  assert 'warning: plans of p0, p1, p2 differ' in capsys.readouterr().err
  config.cohort.sum_plans = True
  assert build_cohort(config)
  assert 'warning' not in capsys.readouterr().err
  cohort = Cohort.open(config.cohort.path)
  assert [p.plans for p in cohort.patients] == [1] * 3
  assert [p.prescription_gy for p in cohort.patients] == [93] * 3
  # External patients are read likewise.
  external = ExternalPatients('dicom', config.cohort.raw, cohort)
  assert external.read('p0')[0].prescription_gy == 93
  assert (
    'are added, 78 + 15 Gy' in (tmp_path / 'courses.import.txt').read_text()
  )


def test_only_doses_of_dicom_are_added(tmp_path):
  config = make_config(tmp_path, tmp_path / 'cohort')
  config.cohort.source, config.cohort.sum_plans = 'nifti', True
  with pytest.raises(errors.ConfigError, match=r'sum_plans.*source is nifti'):
    build_cohort(config)


def test_a_folder_without_a_usable_patient(tmp_path):
  (tmp_path / 'in').mkdir()
  config = make_config(tmp_path / 'in', tmp_path / 'cohort')
  with pytest.raises(errors.CohortError, match='no patient that can'):
    build_cohort(config)
  config.cohort.raw = str(tmp_path / 'nowhere')
  with pytest.raises(errors.CohortError, match='is no folder'):
    build_cohort(config)


def test_a_library_that_is_not_installed_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'pydicom', None)
  for module in ('reader', 'files'):
    monkeypatch.delitem(
      sys.modules, f'dvhflax.io.dicom.{module}', raising=False
    )
    monkeypatch.delattr(dicom, module, raising=False)
  with pytest.raises(errors.ConfigError, match=r'need pydicom: pip install'):
    build_cohort(make_config(tmp_path, tmp_path / 'cohort'))


@pytest.mark.parametrize(
  'key, value, match',
  [
    ('structures', ('body', 'bladder'), 'needs one body and a target'),
    ('structures', ('body', 'PTV', 'PTV'), 'names one twice'),
    ('prescription_gy', -1.0, 'a finite number from 0.1 up to'),
    ('source', 'dicomrt', 'simulated, openkbp, dicom, nifti'),
  ],
)
def test_impossible_configurations_are_refused(tmp_path, key, value, match):
  config = make_config(tmp_path, tmp_path / 'cohort')
  config.cohort[key] = value
  with pytest.raises(errors.ConfigError, match=match):
    config_lib.validate(config)
