"""Axial planes however they are turned, and doses with a file a plane."""

import itertools

import numpy as np
import pydicom
import pytest
import synthetic_dicom as synthetic

from dvhflax import errors
from dvhflax.io import importing
from dvhflax.io.dicom import ct as dicom_ct
from dvhflax.io.dicom import reader as dicom
from dvhflax.io.dicom import rtdose
from dvhflax.patient import Structure

NAMES = ('body', 'bladder', 'rectum', 'PTV')
SETTINGS = importing.Settings(
  tuple(map(Structure.from_name, NAMES)), (32, 32, 16), (4.0, 4.0, 6.0)
)
ORIGIN, SPACING = np.array([-3.0, 4.0, -12.0]), np.array([2.0, 2.5, 3.0])
# Supine and prone, head and feet first, on either side.
AXIAL = [
  ((i, 0, 0), (0, j, 0)) for i, j in itertools.product((1, -1), repeat=2)
] + [((0, i, 0), (j, 0, 0)) for i, j in itertools.product((1, -1), repeat=2)]


def as_stored(values, row, column):
  """Planes, rows, columns of `[X, Y, Z]` values, and where the first pixel of
  the first plane lies.

  The patient's coordinates stay the same; the order of pixels follows from the
  directions that a row and a column of them run along.
  """
  across, down = (int(np.flatnonzero(one)[0]) for one in (row, column))
  stored = values.transpose(2, down, across)
  first = ORIGIN.copy()
  for axis, direction, place in ((across, row, 2), (down, column, 1)):
    if direction[axis] < 0:
      stored = np.flip(stored, place)
      first[axis] += SPACING[axis] * (values.shape[axis] - 1)
  if np.cross(row, column)[2] < 0:  # frames follow the normal
    stored = np.flip(stored, 0)
    first[2] += SPACING[2] * (values.shape[2] - 1)
  return stored, first, (SPACING[down], SPACING[across])


def assert_axes(axes, shape):
  for axis, first, step, n in zip(axes, ORIGIN, SPACING, shape):
    np.testing.assert_allclose(axis, first + step * np.arange(n))


@pytest.mark.parametrize('row, column', AXIAL)
def test_a_dose_in_every_axial_orientation(tmp_path, row, column):
  values = np.random.default_rng(0).random((4, 5, 6)) * 70
  stored, first, (row_mm, column_mm) = as_stored(values, row, column)
  path = synthetic.save(
    synthetic.dose(
      stored.transpose(2, 1, 0),
      origin=list(first),
      spacing=(column_mm, row_mm, SPACING[2]),
      ImageOrientationPatient=[*row, *column],
    ),
    tmp_path / 'dose',
  )
  dose = rtdose.read_dose(path)
  np.testing.assert_allclose(dose.values, values, atol=1e-5)
  assert_axes(dose.axes, values.shape)


@pytest.mark.parametrize('row, column', AXIAL)
def test_a_ct_in_every_axial_orientation(tmp_path, row, column):
  values = np.random.default_rng(0).integers(-1000, 3000, (4, 5, 6))
  stored, first, (row_mm, column_mm) = as_stored(values, row, column)
  slices = synthetic.ct(
    stored.transpose(2, 1, 0),
    origin=list(first),
    # Slices follow each other upwards or downwards, with the normal.
    spacing=(
      column_mm,
      row_mm,
      float(SPACING[2] * np.cross(row, column)[2]),
    ),
    ImageOrientationPatient=[*row, *column],
  )
  paths = [
    synthetic.save(one, tmp_path / str(i)) for i, one in enumerate(slices)
  ]
  scan, notes = dicom_ct.read_scan(paths)
  assert not notes
  np.testing.assert_array_equal(scan.values, values)
  assert_axes(scan.axes, values.shape)


@pytest.mark.parametrize(
  'turn',
  [
    (1, 0, 0, 0, 0, -1),  # coronal
    (0, 1, 0, 0, 0, -1),  # sagittal
    (0, 1, 0, 0, 1, 0),  # no plane
    (0.6, 0.8, 0, -0.8, 0.6, 0),
    (0, 0, 0, 0, 0, 0),
  ],
)
def test_other_planes_are_refused(tmp_path, turn):
  dataset = synthetic.dose(
    np.ones((4, 4, 4)), ImageOrientationPatient=list(turn)
  )
  path = synthetic.save(dataset, tmp_path / 'dose')
  with pytest.raises(errors.CohortError, match='not axial'):
    rtdose.read_dose(path)


def planar(folder, *, other_series=False, **options):
  """Replaces the dose of a patient by a file a plane, with its own scaling."""
  whole = pydicom.dcmread(folder / 'dose0')
  (folder / 'dose0').unlink()
  stored = np.frombuffer(whole.PixelData, '<u4').reshape(
    whole.NumberOfFrames, whole.Rows, whole.Columns
  )
  names = np.random.default_rng(0).permutation(len(stored))
  for k, (plane, name) in enumerate(zip(stored, names)):
    one = synthetic.dose(
      (plane * float(whole.DoseGridScaling)).T[..., None],
      uid=f'1.2.9.{k}',
      origin=[-60.0, -60.0, -60.0 + 3.0 * k],
      frame=whole.FrameOfReferenceUID,
      plan='1.2.3.4.7',
    )
    del one.NumberOfFrames, one.GridFrameOffsetVector
    one.SeriesInstanceUID = f'1.2.8.{k}' if other_series else '1.2.8'
    for keyword, value in options.items():
      setattr(one, keyword, value)
    synthetic.save(one, folder / f'plane{name}')
  return folder


def import_one(folder):
  (found,), skipped = dicom.find_patients(folder)
  return *importing.assemble(
    dicom.read_patient(found, NAMES), SETTINGS
  ), skipped


@pytest.mark.parametrize('other_series', [False, True])
def test_files_of_a_plane_each_are_one_dose(tmp_path, other_series):
  folder = synthetic.write_patient(tmp_path)
  wanted, _, _ = import_one(folder)
  planar(folder, other_series=other_series)
  patient, entry, skipped = import_one(folder)
  np.testing.assert_allclose(patient.dose, wanted.dose, atol=1e-6)
  np.testing.assert_array_equal(patient.reference_gy, [78])
  (plan,) = patient.provenance['plans']
  assert len(plan['uids']) == 41 and not skipped
  assert any('41 files of a plane each are one' in n for n in entry['notes'])


def why(folder):
  found, skipped = dicom.find_patients(folder)
  assert not found
  dose, structures = skipped
  assert 'no usable RTDOSE' in structures.why and '\n' not in dose.why
  return f'{dose.what}: {dose.why}'


def test_planes_that_make_no_dose_are_told_of_in_one_line(tmp_path):
  folder = planar(synthetic.write_patient(tmp_path))
  by_height = {
    pydicom.dcmread(path).ImagePositionPatient[2]: path
    for path in folder.glob('plane*')
  }
  by_height[0.0].unlink()
  text = why(folder)
  assert 'and 39 others' in text and 'planes are missing, from z=-3.00' in text
  again = pydicom.dcmread(by_height[3.0])
  again.SOPInstanceUID = '1.2.9.99'
  synthetic.save(again, folder / 'again')
  assert 'two of the planes lie at z=3.00 mm' in why(folder)
  for path in [folder / 'again', *by_height.values()]:
    if path != by_height[3.0]:
      path.unlink(missing_ok=True)
  assert 'only one plane of a dose' in why(folder)


def test_a_plane_that_lies_elsewhere_is_refused(tmp_path):
  folder = planar(synthetic.write_patient(tmp_path))
  path = folder / 'plane7'
  plane = pydicom.dcmread(path)
  plane.ImagePositionPatient[0] += 1
  synthetic.save(plane, path)
  with pytest.raises(errors.CohortError, match='do not lie above each other'):
    import_one(folder)


def test_dvhs_alone_are_no_dose(tmp_path):
  folder = synthetic.write_patient(tmp_path)
  dataset = pydicom.dcmread(folder / 'dose0')
  for keyword in ('PixelData', 'Rows', 'Columns', 'NumberOfFrames'):
    delattr(dataset, keyword)
  dataset.save_as(folder / 'dose0')
  with pytest.raises(errors.CohortError, match='no dose grid, only DVHs'):
    import_one(folder)


@pytest.mark.parametrize('units', ['Gy', 'gy'])
def test_units_in_small_letters(tmp_path, units):
  folder = synthetic.write_patient(tmp_path)
  content = (folder / 'dose0').read_bytes()
  written = content.replace(b'\x02\x00GY', b'\x02\x00' + units.encode())
  assert written != content
  (folder / 'dose0').write_bytes(written)
  patient, _, _ = import_one(folder)
  assert patient.dose.max() > 0.9


def test_other_units_are_refused(tmp_path):
  folder = synthetic.write_patient(tmp_path)
  dataset = pydicom.dcmread(folder / 'dose0')
  dataset.DoseUnits = 'CGY'
  dataset.save_as(folder / 'dose0')
  with pytest.raises(errors.CohortError, match=r"'CGY'; expected GY"):
    import_one(folder)
