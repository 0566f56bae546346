"""CT series: what is read, which is chosen, what is refused."""

import random
import re

import numpy as np
import pydicom
import pytest
import synthetic_dicom as synthetic

from dvhflax import errors
from dvhflax.grid import Grid
from dvhflax.io import importing, resample
from dvhflax.io.dicom import ct as dicom_ct
from dvhflax.io.dicom import reader as dicom
from dvhflax.patient import Structure

NAMES = ('body', 'bladder', 'rectum', 'PTV')
SETTINGS = importing.Settings(
  tuple(map(Structure.from_name, NAMES)),
  (32, 32, 16),
  (4.0, 4.0, 6.0),
  ct=True,
)


def write(folder, slices):
  """Saves slices under names that tell nothing."""
  slices = list(slices)
  numbers = random.Random(0).sample(range(10 * len(slices)), len(slices))
  return [
    synthetic.save(one, folder / f'{number}.bin')
    for number, one in zip(numbers, slices)
  ]


def import_one(folder, settings=SETTINGS):
  (found,), _ = dicom.find_patients(folder)
  return importing.assemble(dicom.read_patient(found, NAMES), settings)


@pytest.fixture
def folder(tmp_path):
  """A patient with a CT of a water phantom."""
  folder = synthetic.write_patient(tmp_path / 'in')
  write(folder / 'ct', synthetic.ct(synthetic.phantom()))
  return folder


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'signed': True, 'intercept': 0.0},
    {'slope': 0.5, 'intercept': -1000.0},
  ],
)
def test_round_trip(tmp_path, options):
  shape, spacing, origin = (5, 7, 6), (1.5, 2.0, 2.5), (-3.0, 4.0, -12.0)
  values = np.random.default_rng(0).integers(-1000, 3000, shape)
  paths = write(
    tmp_path, synthetic.ct(values, origin=origin, spacing=spacing, **options)
  )
  random.Random(1).shuffle(paths)
  scan, notes = dicom_ct.read_scan(paths)
  assert not notes and scan.values.dtype == np.int16
  np.testing.assert_array_equal(scan.values, values)
  for axis, first, step, n in zip(scan.axes, origin, spacing, shape):
    np.testing.assert_allclose(axis, first + step * np.arange(n))


def test_orientation_and_padding(tmp_path):
  values = np.arange(60).reshape(3, 4, 5) - 500
  paths = write(
    tmp_path,
    synthetic.ct(
      values,
      ImageOrientationPatient=[-1, 0, 0, 0, 1, 0],
      PixelPaddingValue=524,  # -500 HU
    ),
  )
  scan, _ = dicom_ct.read_scan(paths)
  wanted = np.where(values == -500, -1000, values)
  np.testing.assert_array_equal(scan.values, wanted[::-1])
  np.testing.assert_allclose(scan.axes[0], [-66, -63, -60])


def test_numbers_are_clipped_to_12_bits(tmp_path):
  values = np.array([-3000, -1024, 3071, 20000]).reshape(2, 2, 1)
  values = np.repeat(values, 2, 2)
  paths = write(tmp_path, synthetic.ct(values, signed=True, intercept=0.0))
  scan, _ = dicom_ct.read_scan(paths)
  assert scan.values[..., 0].ravel().tolist() == [-1024, -1024, 3071, 3071]


def test_a_ramp_on_the_grid_is_exact_and_air_around_it():
  x = np.arange(-30.0, 31.0, 1.5)
  y = np.arange(-20.0, 21.0, 2.0)
  z = np.array([-10.0, -7.0, -4.0, 2.0, 5.0, 8.0])  # one is missing
  values = 10 * x[:, None, None] + 5 * y[:, None] + 20 * z
  scan = resample.Scan(np.rint(values).astype(np.int16), (x, y, z))
  grid = Grid((32, 32, 8), (2.5, 2.5, 3.0), (1.0, 2.0, 0.0))
  got = resample.hu_on(grid, scan)
  gx, gy, gz = np.meshgrid(*grid.axes, indexing='ij')
  inner = (abs(gx) <= 30) & (abs(gy) <= 20) & (gz >= -10) & (gz <= 8)
  outer = (abs(gx) > 30.75) | (abs(gy) > 21) | (gz < -11.5) | (gz > 9.5)
  wanted = 10 * gx + 5 * gy + 20 * gz
  assert inner.sum() > 1000 and outer.sum() > 1000
  assert abs(got - wanted)[inner].max() <= 1
  assert (got[outer] == -1000).all() and got.dtype == np.int16


def test_the_ct_is_kept_if_it_is_asked_for(folder):
  patient, entry = import_one(folder)
  assert patient.ct_hu.shape == (32, 32, 16)
  assert patient.ct_hu.dtype == np.int16
  x = 4.0 * (np.arange(32) - 15.5)
  r = np.hypot(x[:, None], x)
  lung = np.hypot(x[:, None] + 30, x)
  assert (patient.ct_hu[(r < 52) & (lung > 16)] == 0).all()
  assert (patient.ct_hu[lung < 8] == -800).all()
  assert (patient.ct_hu[(r > 58) & (x < 50)] == -1000).all()
  assert not any('CT' in note for note in entry['notes'])
  unwanted = importing.Settings(
    SETTINGS.structures, SETTINGS.shape, SETTINGS.spacing_mm
  )
  assert import_one(folder, unwanted)[0].ct_hu is None


def change(folder, index, **attributes):
  """Changes one slice, the one at a place along z."""
  paths = sorted(
    (folder / 'ct').iterdir(),
    key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2],
  )
  dataset = pydicom.dcmread(paths[index])
  for keyword, value in attributes.items():
    if value is None:
      delattr(dataset, keyword)
    else:
      setattr(dataset, keyword, value)
  dataset.save_as(paths[index])


@pytest.mark.parametrize(
  'attributes, match',
  [
    ({'RescaleSlope': None}, 'RescaleSlope is missing'),
    ({'RescaleSlope': 0}, 'RescaleSlope=0.0 must be > 0'),
    ({'RescaleIntercept': None}, 'RescaleIntercept is missing'),
    ({'RescaleType': 'OD'}, "'OD'; expected HU"),
    ({'PixelSpacing': [3, 2.9]}, 'do not lie above each other'),
    ({'ImagePositionPatient': [-59, -60, 0]}, 'do not lie above'),
    (
      {'ImagePositionPatient': [-60, -60, 3], 'RescaleIntercept': -1000},
      r'two slices .* z=3\.00 mm and differ',
    ),
    ({'ImagePositionPatient': [-60, -60, 90]}, 'are missing, from z=60'),
    ({'ImageOrientationPatient': [1, 0, 0, 0, 0, 1]}, 'not axial'),
    ({'PixelData': b'\0' * 100}, 'truncated'),
    ({'Rows': 1, 'Columns': 1681}, 'too few for a CT slice'),
    ({'BitsAllocated': 8}, '16 or 32'),
  ],
)
def test_a_faulty_ct_is_left_out_and_the_patient_stays(
  folder, attributes, match
):
  change(folder, 20, **attributes)
  patient, entry = import_one(folder)
  assert patient.ct_hu is None and patient.present.all()
  (note,) = (note for note in entry['notes'] if 'CT left out' in note)
  assert re.search(match, note), note


def test_a_compressed_ct_is_left_out(folder):
  for path in (folder / 'ct').iterdir():
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.RLELossless
    dataset.PixelData = pydicom.encaps.encapsulate([b'0' * 100])
    dataset.save_as(path)
  _, entry = import_one(folder)
  assert any('is compressed' in note for note in entry['notes'])


def test_missing_slices_are_interpolated(tmp_path):
  ramp = np.broadcast_to(10 * np.arange(8), (4, 4, 8))
  slices = list(synthetic.ct(ramp))
  del slices[3:5]
  scan, notes = dicom_ct.read_scan(write(tmp_path, slices))
  assert notes == ['2 missing CT slices interpolated']
  grid = Grid((2, 2, 8), (3.0, 3.0, 3.0), (-55.5, -55.5, -49.5))
  np.testing.assert_array_equal(
    resample.hu_on(grid, scan)[0, 0], 10 * np.arange(8)
  )


def test_one_slice_is_no_ct(tmp_path):
  folder = synthetic.write_patient(tmp_path / 'in')
  (first, *_) = synthetic.ct(synthetic.phantom())
  synthetic.save(first, folder / 'ct' / '1')
  patient, entry = import_one(folder)
  assert patient.ct_hu is None
  assert any('the only slice' in note for note in entry['notes'])


def test_the_series_that_the_structures_refer_to(folder):
  """Not the longer one of the same frame, nor that of another frame."""
  write(
    folder / 'longer',
    synthetic.ct(
      np.full((41, 41, 50), 700), series='1.2.7', origin=(-60, -60, -75)
    ),
  )
  write(
    folder / 'other',
    synthetic.ct(np.full((41, 41, 60), 900), series='1.2.8', frame='7.7'),
  )
  patient, entry = import_one(folder)
  assert patient.ct_hu[15, 15, 8] == 700
  assert any(
    '2 CTs share' in note and 'series 1.2.7' in note for note in entry['notes']
  )
  dataset = pydicom.dcmread(folder / 'a')
  study, series = pydicom.Dataset(), pydicom.Dataset()
  series.SeriesInstanceUID = '1.2.3.4.9'
  study.RTReferencedSeriesSequence = [series]
  frame = dataset.ReferencedFrameOfReferenceSequence[0]
  frame.RTReferencedStudySequence = [study]
  dataset.save_as(folder / 'a')
  patient, entry = import_one(folder)
  assert patient.ct_hu[15, 15, 8] == 0
  assert not any('CTs share' in note for note in entry['notes'])


def test_a_ct_of_elsewhere_is_left_out(tmp_path):
  folder = synthetic.write_patient(tmp_path / 'in')
  write(
    folder / 'ct',
    synthetic.ct(synthetic.phantom(), origin=(-60.0, -60.0, 200.0)),
  )
  patient, entry = import_one(folder)
  assert patient.ct_hu is None
  assert any('100% of PTV lie outside' in note for note in entry['notes'])


def without_body(folder):
  dataset = pydicom.dcmread(folder / 'a')
  dataset.StructureSetROISequence[0].ROIName = 'Isodose'
  dataset.save_as(folder / 'a')


@pytest.mark.parametrize('ct', [False, True])
def test_the_body_is_derived_where_none_is_contoured(folder, ct):
  settings = importing.Settings(
    SETTINGS.structures, SETTINGS.shape, SETTINGS.spacing_mm, ct=ct
  )
  contoured, _ = import_one(folder, settings)
  without_body(folder)
  patient, entry = import_one(folder, settings)
  assert 'body derived from the CT' in entry['notes']
  assert patient.provenance['body'] == 'derived from the CT'
  assert (patient.ct_hu is not None) == ct
  body, wanted = patient.masks[..., 0], contoured.masks[..., 0]
  # Along z the phantom goes on to the end of the CT; the contours do not.
  body, wanted = body[..., 1:15], wanted[..., 1:15]
  assert (body != wanted).mean() < 0.03
  assert int(body.sum()) == pytest.approx(int(wanted.sum()), rel=0.03)
  np.testing.assert_array_equal(
    patient.masks[..., 1:], contoured.masks[..., 1:]
  )


def test_no_body_and_no_usable_ct_is_an_error(folder):
  without_body(folder)
  change(folder, 5, RescaleSlope=None)
  with pytest.raises(
    errors.CohortError, match=r'has no body: .*CT left out: .*RescaleSlope'
  ):
    import_one(folder)
  for path in (folder / 'ct').iterdir():
    path.unlink()
  with pytest.raises(errors.CohortError, match='has no body: unmapped'):
    import_one(folder)


def copied(folder, count):
  """Copies of slices under UIDs of their own."""
  for i, path in enumerate(sorted((folder / 'ct').iterdir())[:count]):
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID += '.7'
    yield synthetic.save(dataset, folder / 'ct' / f'copy{i}')


def test_identical_copies_of_slices_are_left_out(folder):
  """icometrix/dicom2nifti issue 21."""
  paths = list((folder / 'ct').iterdir())
  wanted, _ = dicom_ct.read_scan(paths)
  scan, notes = dicom_ct.read_scan([*copied(folder, 7), *paths])
  np.testing.assert_array_equal(scan.values, wanted.values)
  np.testing.assert_array_equal(scan.axes[2], wanted.axes[2])
  assert notes == ['7 identical copies of CT slices left out']


def test_copies_that_differ_in_one_pixel_are_refused(folder):
  (path,) = copied(folder, 1)
  dataset = pydicom.dcmread(path)
  pixels = bytearray(dataset.PixelData)
  pixels[1000] ^= 1
  dataset.PixelData = bytes(pixels)
  synthetic.save(dataset, path)
  patient, entry = import_one(folder)
  assert patient.ct_hu is None
  assert any('mm and differ' in note for note in entry['notes'])


def test_a_ct_of_too_many_voxels_is_kept_in_larger_pixels(
  tmp_path, monkeypatch
):
  """SlicerRt/SlicerRT issue 272: 545 slices of 524 x 524."""
  x, y = 1.5 * np.arange(21) - 15, 2.0 * np.arange(14) - 13
  values = np.broadcast_to(
    (20 * x[:, None] + 10 * y)[..., None], (21, 14, 9)
  ) + 5 * np.arange(9)
  paths = write(
    tmp_path,
    synthetic.ct(values, origin=(-15, -13, 0), spacing=(1.5, 2.0, 3.0)),
  )
  monkeypatch.setattr(dicom_ct, 'MOST_VOXELS', 9 * 21 * 14 // 3)
  scan, notes = dicom_ct.read_scan(paths)
  assert notes == ['14 x 21 CT pixels a slice taken together by 2 x 2']
  # Means of 2 x 2 pixels; the last column is left over.
  assert scan.values.shape == (10, 7, 9)
  np.testing.assert_allclose(scan.axes[0], -14.25 + 3 * np.arange(10))
  np.testing.assert_allclose(scan.axes[1], -12 + 4 * np.arange(7))
  gx, gy = np.meshgrid(*scan.axes[:2], indexing='ij')
  wanted = (20 * gx + 10 * gy)[..., None] + 5 * np.arange(9)
  np.testing.assert_allclose(scan.values, wanted, atol=0.5)


def test_the_body_of_a_ct_of_too_many_voxels(tmp_path, monkeypatch):
  folder = synthetic.write_patient(tmp_path / 'in')
  without_body(folder)
  shape = (81, 81, 21)
  phantom = synthetic.phantom(shape, spacing=1.5)
  write(folder / 'ct', synthetic.ct(phantom, spacing=(1.5, 1.5, 6.0)))
  monkeypatch.setattr(dicom_ct, 'MOST_VOXELS', 81 * 81 * 21 // 2)
  _, entry = import_one(folder)
  assert any('taken together' in note for note in entry['notes'])
  # The lung is filled, the couch left out.
  assert entry['structures']['body']['volume_cc'] == pytest.approx(
    np.pi * 55**2 * 21 * 6 / 1000, rel=0.03
  )
