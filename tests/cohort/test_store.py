"""The cohort store: round trip, resume, damage, validation."""

import dataclasses
import json
import os
import pathlib
import shutil
import time

from conftest import (
  GRID,
  SPLITS,
  make_patient,
  make_tiny_cohort,
  make_writer,
  write_cohort,
)
import numpy as np
import pytest

from dvhflax import dvh, errors
from dvhflax.cohort.schema import CohortMetadata
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.validate import validate_cohort


def test_round_trip(cohort):
  for i in (0, 1, 3):
    plans = 2 if i == 1 else 3 + i % 2
    patient = make_patient(i, plans, lacking=(1,) if i == 1 else ())
    np.testing.assert_array_equal(cohort.masks(i), patient.masks)
    np.testing.assert_allclose(cohort.doses(i), patient.dose, atol=1e-3)
    assert cohort.valid[i].sum() == plans
    np.testing.assert_array_equal(cohort.present[i], patient.present)
    curves = dvh.dvh_vectors(cohort.dose(i, 1), patient.masks, cohort.dvh_spec)
    np.testing.assert_array_equal(cohort.dvh[i, 1], curves)
  masks, dose = cohort.read([3, 0, 3], [2, 0, 1])
  np.testing.assert_array_equal(masks[0], cohort.masks(3))
  np.testing.assert_array_equal(dose[2], cohort.dose(3, 1))


def test_a_dose_that_is_gone_is_no_dose_of_0(tmp_path):
  path = pathlib.Path(make_tiny_cohort(tmp_path / 'c'))
  opened = Cohort.open(path)
  shutil.rmtree(path / 'dose/c/1')
  with pytest.raises(errors.CohortError, match='p1, plan 0 is damaged or miss'):
    opened.dose(1, 0)
  assert opened.dose(0, 0).any()
  path.rename(tmp_path / 'away')
  with pytest.raises(errors.CohortError, match=r'is gone.*bring it back'):
    opened.masks(1)


def test_index_out_of_range_fails_at_once(cohort):
  with pytest.raises(IndexError, match='no plan 2'):
    cohort.dose(1, 2)
  with pytest.raises(IndexError, match='no patient -1'):
    cohort.masks(-1)


def test_killed_build_goes_on(tmp_path):
  path = tmp_path / 'half'
  patients = [make_patient(i) for i in range(8)]
  make_writer(path, patients, SPLITS).write(2, patients[2])
  with pytest.raises(errors.CohortError, match='half-written, 1 of 8'):
    Cohort.open(str(path))
  again = make_writer(path, patients, SPLITS)
  assert again.missing() == [0, 1, 3, 4, 5, 6, 7]
  assert not again.finish()
  for i in again.missing():
    again.write(i, patients[i])
  assert again.finish()
  assert validate_cohort(str(path)) == []
  with pytest.raises(errors.CohortError, match='exists'):
    make_writer(path, patients, SPLITS)


def test_half_built_of_another_description_is_refused(tmp_path):
  patients = [make_patient(i) for i in range(8)]
  make_writer(tmp_path / 'c', patients, SPLITS, {'seed': 1})
  with pytest.raises(errors.CohortError, match='another provenance'):
    make_writer(tmp_path / 'c', patients, SPLITS, {'seed': 2})


@pytest.mark.parametrize(
  'fault, match',
  [
    ({'id': 'other'}, 'is not p0'),
    ({'dose': -np.ones((3, *GRID), 'f')}, 'negative'),
    ({'dose': np.full((3, *GRID), np.nan, 'f')}, 'not finite'),
    ({'masks': np.zeros((*GRID, 3), np.uint8)}, 'is empty'),
    ({'reference_gy': np.ones(1)}, 'an entry a plan'),
    ({'ct_hu': np.zeros(GRID, np.int32)}, 'int32.*wanted int16'),
    ({'ct_hu': np.zeros(GRID[:2], np.int16)}, 'wanted int16'),
    ({'ct_hu': np.full(GRID, -2000, np.int16)}, '-1024 to 3071'),
  ],
)
def test_faulty_patient_is_refused(tmp_path, fault, match):
  patients = [make_patient(i) for i in range(8)]
  writer = make_writer(tmp_path / 'c', patients, SPLITS)
  with pytest.raises(errors.CohortError, match=match):
    writer.write(0, dataclasses.replace(patients[0], **fault))
  assert 0 in writer.missing()


def with_ct(index):
  rng = np.random.default_rng(index)
  ct_hu = rng.integers(-1024, 3072, GRID).astype(np.int16)
  return dataclasses.replace(make_patient(index), ct_hu=ct_hu)


@pytest.fixture
def scanned(tmp_path):
  """Patients and store; all but the second have a CT."""
  patients = [make_patient(i) if i == 1 else with_ct(i) for i in range(8)]
  write_cohort(tmp_path / 'scanned', patients, SPLITS, ct=True)
  return patients, tmp_path / 'scanned'


def test_cts_are_kept_where_there_are_any(scanned):
  patients, path = scanned
  cohort = Cohort.open(str(path))
  for i, patient in enumerate(patients):
    assert cohort.patients[i].has_ct == (i != 1)
    if i == 1:
      assert cohort.ct(i) is None
    else:
      assert cohort.ct(i).dtype == np.int16
      np.testing.assert_array_equal(cohort.ct(i), patient.ct_hu)
  assert validate_cohort(str(path)) == []
  with pytest.raises(IndexError, match='no patient 8'):
    cohort.ct(8)


def test_a_cohort_without_cts_is_as_before(tmp_path, cohort, cohort_path):
  """Their metadata have no such key, and a CT is not written."""
  metadata = json.loads(pathlib.Path(cohort_path, 'metadata.json').read_text())
  assert 'ct' not in metadata and not cohort.metadata.ct
  assert cohort.ct(0) is None
  write_cohort(tmp_path / 'c', [with_ct(i) for i in range(8)], SPLITS)
  assert Cohort.open(str(tmp_path / 'c')).ct(0) is None
  assert validate_cohort(str(tmp_path / 'c')) == []


def test_a_build_does_not_go_on_with_cts(tmp_path):
  patients = [make_patient(i) for i in range(8)]
  for before, after in ((False, True), (True, False)):
    path = tmp_path / f'{before}'
    make_writer(path, patients, SPLITS, ct=before)
    with pytest.raises(errors.CohortError, match='another ct'):
      make_writer(path, patients, SPLITS, ct=after)


def test_faults_of_cts_are_found(scanned):
  _, path = scanned
  damage(path, 'ct', 3)
  name = path / 'metadata.json'
  values = json.loads(name.read_text())
  values['patients'][4]['checksums']['ct'] += 1
  name.write_text(json.dumps(values))
  with pytest.raises(errors.CohortError, match='ct of patient p3 is damaged'):
    Cohort.open(str(path)).ct(3)
  faults = '\n'.join(validate_cohort(str(path)))
  assert 'p3' in faults and 'p4: ct differs from its checksum' in faults
  del values['ct']
  name.write_text(json.dumps(values))
  assert 'the cohort keeps none' in '\n'.join(validate_cohort(str(path)))
  shutil.rmtree(path / 'ct')
  values['ct'] = True
  name.write_text(json.dumps(values))
  with pytest.raises(errors.CohortError, match='ct is missing'):
    Cohort.open(str(path))


# A digit, or a letter, for another one.
DIGITS = bytes.maketrans(b'5738ta', b'6849st')


def damage(path, array, patient):
  chunks = sorted(pathlib.Path(path, array, 'c', str(patient)).rglob('*'))
  chunk = next(c for c in chunks if c.is_file())
  content = bytearray(chunk.read_bytes())
  content[len(content) // 2] ^= 0xFF
  chunk.write_bytes(content)


@pytest.fixture
def copy(cohort_path, tmp_path):
  return shutil.copytree(cohort_path, tmp_path / 'copy')


def test_damaged_chunk_is_an_error(copy):
  damage(copy, 'dose', 3)
  with pytest.raises(errors.CohortError, match='p3, plan 0 is damaged'):
    Cohort.open(str(copy)).doses(3)


def test_validator_lists_all_faults(copy):
  damage(copy, 'dose', 3)
  damage(copy, 'masks', 5)
  name = os.path.join(copy, 'metadata.json')
  values = json.loads(pathlib.Path(name).read_text())
  values['patients'][0]['split'] = 'tset'
  values['patients'][2]['present'][1] = False
  values['patients'][4]['id'] = 'p6'
  pathlib.Path(name).write_text(json.dumps(values))
  faults = '\n'.join(validate_cohort(str(copy)))
  for part in (
    'p3: ',
    'p5: ',
    "'tset'",
    'p2: rectum is there',
    'p6 occurs 2 times',
  ):
    assert part in faults


@pytest.mark.parametrize(
  'content, match',
  [
    ('', 'metadata.json'),
    ('{"schema_version": 9}', 'schema_version 9'),
    (
      '{"schema_version": 1}',
      'json: .*missing required field `structures`',
    ),
  ],
)
def test_broken_metadata(copy, content, match):
  pathlib.Path(copy, 'metadata.json').write_text(content)
  with pytest.raises(errors.CohortError, match=match):
    Cohort.open(str(copy))


def test_a_mistyped_key_is_named(copy):
  name = pathlib.Path(copy, 'metadata.json')
  values = json.loads(name.read_text())
  values['patients'][3]['plans'] = 'two'
  name.write_text(json.dumps(values))
  with pytest.raises(errors.CohortError, match=r'patients\[3\]\.plans'):
    Cohort.open(str(copy))


@pytest.mark.parametrize('number', [b'78.0', b'85.0', b'3.0', b'"train"'])
def test_metadata_that_were_damaged_are_refused(copy, number):
  name = pathlib.Path(copy, 'metadata.json')
  text = name.read_bytes()
  assert Cohort.open(str(copy)).patients and number in text
  name.write_bytes(text.replace(number, number.translate(DIGITS), 1))
  with pytest.raises(errors.CohortError, match='its checksum does not fit'):
    Cohort.open(str(copy))


@pytest.mark.parametrize(
  'key, value',
  [
    ('present', [True]), ('plans', 0), ('plans', 99), ('reference_gy', [85.0]),
    ('reference_gy', [-1, 1, 1, 1]), ('prescription_gy', 0), ('id', ''),
    ('prescription_gy', 1e30), ('spacing_mm', [0, 1, 1]),
    ('spacing_mm', [float('nan'), 1, 1]), ('plan_weights', []),
    ('coverage_gy', [1.0]),
  ],
)  # fmt: skip
def test_impossible_records_are_named(copy, key, value):
  name = pathlib.Path(copy, 'metadata.json')
  values = json.loads(name.read_text())
  values['patients'][3][key] = value
  name.write_text(json.dumps(values))
  with pytest.raises(errors.CohortError, match=rf'{key} of patient \w* ?is'):
    Cohort.open(str(copy))


@pytest.mark.parametrize('text', ['[' * 100_000, '{"patients": ' + '[' * 10**5])
def test_metadata_that_are_nested_deeply_are_refused(copy, text):
  pathlib.Path(copy, 'metadata.json').write_text(text)
  with pytest.raises(errors.CohortError, match=r'metadata\.json: .*recursion'):
    Cohort.open(str(copy))


def test_missing_and_empty(tmp_path):
  with pytest.raises(errors.CohortError, match='there is no cohort'):
    Cohort.open(str(tmp_path / 'nothing'))
  with pytest.raises(errors.CohortError, match=r'no metadata\.json'):
    Cohort.open(str(tmp_path))
  patients = [make_patient(0)]
  write_cohort(tmp_path / 'c', patients, ['train'])
  with pytest.raises(errors.CohortError, match="no patient in split 'test'"):
    Cohort.open(str(tmp_path / 'c')).split('test')


def test_a_store_of_10000_patients_opens_at_once(tmp_path):
  """Without their DVHs, and with what their records share held once."""
  path = tmp_path / 'c'
  write_cohort(path, [make_patient(i) for i in range(8)], SPLITS)
  file = path / 'metadata.json'
  values = json.loads(file.read_text())
  first = values['patients'][0]
  first['provenance'] = {'protocol': {'beams': [{'angle': a} for a in [0, 9]]}}
  values['patients'] = [{**first, 'id': f'p{i}'} for i in range(10_000)]
  for name in ('masks', 'dose', 'dvh'):
    array = path / name / 'zarr.json'
    described = json.loads(array.read_text())
    described['shape'][0] = 10_000
    array.write_text(json.dumps(described))
  # Asked for, they would be damaged.
  for chunk in (path / 'dvh').rglob('c/**/*'):
    if chunk.is_file():
      chunk.write_bytes(b'')
  file.write_text(json.dumps(values))
  begun = time.process_time()
  cohort = Cohort.open(path)
  assert time.process_time() - begun < 2
  # As a reader of JSON without shortcuts has it.
  assert cohort.metadata == CohortMetadata.from_json(values, 'x')
  shared = {id(record.provenance['protocol']) for record in cohort.patients}
  assert len(shared) == 1
  with pytest.raises(errors.CohortError, match='dvh is damaged'):
    cohort.dvh  # noqa: B018


def test_metadata_with_a_nan_still_opens(tmp_path):
  path = tmp_path / 'c'
  write_cohort(path, [make_patient(i) for i in range(8)], SPLITS)
  file = path / 'metadata.json'
  values = json.loads(file.read_text())
  values['provenance']['gap'] = float('nan')
  file.write_text(json.dumps(values))
  assert np.isnan(Cohort.open(path).metadata.provenance['gap'])
