"""Which DICOM files are read, and what belongs together."""

import io

import numpy as np
import pydicom
import pytest
import synthetic_dicom as synthetic

from dvhflax.io import importing
from dvhflax.io.dicom import files as dicom_files
from dvhflax.io.dicom import headers as dicom_headers
from dvhflax.io.dicom import reader as dicom
from dvhflax.io.dicom import rtdose
from dvhflax.patient import Structure

NAMES = ('body', 'bladder', 'rectum', 'PTV')
SETTINGS = importing.Settings(
  tuple(map(Structure.from_name, NAMES)),
  (32, 32, 16),
  (4.0, 4.0, 6.0),
  ct=True,
)


def import_one(folder, **options):
  (found,), _ = dicom.find_patients(folder, **options)
  return importing.assemble(
    dicom.read_patient(found, NAMES), SETTINGS, **options
  )


def slices_of(folder, **options):
  """The CT that is chosen, and notes on it."""
  (found,), _ = dicom.find_patients(folder, **options)
  return found.slices, ' | '.join(found.notes)


def change(path, **attributes):
  dataset = pydicom.dcmread(path)
  for keyword, value in attributes.items():
    if value is None:
      delattr(dataset, keyword)
    else:
      setattr(dataset, keyword, value)
  dataset.save_as(path)


@pytest.fixture
def folder(tmp_path):
  return synthetic.write_patient(tmp_path / 'in')


@pytest.fixture
def with_ct(folder):
  save_ct(folder / 'ct')
  return folder


def save_ct(folder, count=12, **options):
  for i, one in enumerate(synthetic.ct_slices(3.0, count, **options)):
    synthetic.save(one, folder / f'{i}')


# --- What is DICOM ---------------------------------------------------------


@pytest.mark.parametrize(
  'implicit, first',
  [(True, 'length'), (False, 'length'), (True, 'to end'), (False, 'charset')],
)
def test_any_element_of_group_8_may_come_first(folder, implicit, first):
  """Without a preamble; ivmartel/dwv issue 188."""
  wanted = rtdose.read_dose(folder / 'dose0')
  for path in folder.iterdir():
    dataset = pydicom.dcmread(path)
    if first == 'charset':
      dataset.SpecificCharacterSet = 'ISO_IR 100'
    del dataset.file_meta, dataset.preamble
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, implicit_vr=implicit, little_endian=True)
    content = file.getvalue()
    if first != 'charset':
      tag = b'\x08\0' + (b'\0\0' if first == 'length' else b'\1\0')
      length = b'\4\0\0\0' if implicit else b'UL\4\0'
      content = tag + length + b'\x10\1\0\0' + content
    path.write_bytes(content)
  (found,), skipped = dicom.find_patients(folder)
  assert found.rtplans and not skipped
  (dose,) = found.plans[0]
  np.testing.assert_array_equal(
    rtdose.read_dose(dose.path).values, wanted.values
  )


def test_files_of_the_system_are_passed_over(with_ct):
  ole = b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1' + bytes(600)
  apple = b'\0\5\x16\7\0\2\0\0' + b'Mac OS X        ' + bytes(100)
  (with_ct / 'Thumbs.db').write_bytes(ole)
  (with_ct / '.DS_Store').write_bytes(b'\0\0\0\1Bud1' + bytes(200))
  (with_ct / '__MACOSX').mkdir()
  for place in (with_ct, with_ct / 'ct', with_ct / '__MACOSX'):
    (place / '._dose0').write_bytes(apple)
  (with_ct / 'eight.bin').write_bytes(bytes([8, 0, 0, 0, 0, 0, 0, 0]) * 99)
  (with_ct / 'empty').write_bytes(b'')
  (found,), (skipped,) = dicom.find_patients(with_ct)
  assert len(found.slices) == 12 and len(found.plans) == 1
  # What systems make is not even counted.
  assert skipped.what == '2 files' and 'neither CT' in skipped.why


def test_a_dicomdir_is_no_truncated_file(folder):
  directory = pydicom.dcmread(folder / 'z')
  for element in list(directory.keys()):
    del directory[element]
  directory.file_meta.MediaStorageSOPClassUID = '1.2.840.10008.1.3.10'
  directory.FileSetID = 'DISC'
  directory.DirectoryRecordSequence = []
  synthetic.save(directory, folder / 'DICOMDIR')
  _, (skipped,) = dicom.find_patients(folder)
  assert skipped.what == '1 files' and 'neither CT' in skipped.why


def test_an_enhanced_ct_is_told_of(with_ct):
  path = with_ct / 'ct' / '0'
  change(path, SOPClassUID='1.2.840.10008.5.1.4.1.1.2.1')
  _, (skipped,) = dicom.find_patients(with_ct)
  assert skipped.what == str(path) and 'is an Enhanced CT' in skipped.why


def test_numbers_are_no_dicom(tmp_path):
  path = tmp_path / 'x'
  for content, wanted in {
    b'\x08\0\0\0\x08\0\0\0': False,
    b'\x08\0\0\0\4\0\0\0': True,
    b'\x08\0\x16\0UI\x1a\0': True,
    b'\x08\0\x16\0\xff\xff\0\0': False,
    b'\x08\0': False,
  }.items():
    path.write_bytes(content)
    assert dicom_files.looks_like_dicom(path) == wanted


# --- Frames of reference ---------------------------------------------------


def test_contours_tell_the_frame_of_reference(folder):
  """ReferencedFrameOfReferenceSequence may be absent (PS3.3 C.8.8.5)."""
  change(folder / 'a', ReferencedFrameOfReferenceSequence=None)
  patient, _ = import_one(folder)
  assert patient.present.all() and len(patient.dose) == 1
  assert patient.provenance['dicom']['FrameOfReferenceUID'] == synthetic.FRAME
  (found,), _ = dicom.find_patients(folder, dose_optional=True)
  assert found.structure_set.frames == {synthetic.FRAME}


def without_frames(folder):
  dataset = pydicom.dcmread(folder / 'a')
  del dataset.ReferencedFrameOfReferenceSequence
  for roi in dataset.StructureSetROISequence:
    roi.ReferencedFrameOfReferenceUID = ''
  dataset.save_as(folder / 'a')
  for path in [folder / 'dose0', *folder.glob('ct/*')]:
    if path.exists():
      change(path, FrameOfReferenceUID=None)


def test_without_a_dose_structures_need_no_frame_of_reference(folder):
  for i, one in enumerate(synthetic.ct(synthetic.phantom())):
    synthetic.save(one, folder / 'ct' / f'{i}')
  wanted, _ = import_one(folder)
  without_frames(folder)
  _, skipped = dicom.find_patients(folder)
  assert any(
    one.what.endswith('dose0') and 'has no FrameOfReferenceUID' in one.why
    for one in skipped
  )
  (folder / 'dose0').unlink()
  patient, entry = import_one(folder, dose_optional=True)
  np.testing.assert_array_equal(patient.masks, wanted.masks)
  np.testing.assert_array_equal(patient.ct_hu, wanted.ct_hu)
  assert patient.prescription_gy == 78
  text = ' | '.join(entry['notes'])
  assert 'a has no FrameOfReferenceUID' in text
  assert 'the CT is taken by series and study' in text


def test_a_dose_needs_the_frame_of_reference_of_its_structures(folder):
  dose = pydicom.dcmread(folder / 'dose0')
  without_frames(folder)
  dose.save_as(folder / 'dose0')
  _, skipped = dicom.find_patients(folder)
  (why,) = (one.why for one in skipped if one.what.endswith('dose0'))
  assert 'in/a has no FrameOfReferenceUID' in why


def test_a_frame_that_no_contour_lies_in_does_not_matter(folder):
  dataset = pydicom.dcmread(folder / 'a')
  other = pydicom.Dataset()
  other.FrameOfReferenceUID = '7.7'
  dataset.ReferencedFrameOfReferenceSequence.append(other)
  dataset.save_as(folder / 'a')
  (folder / 'dose0').unlink()
  patient, _ = import_one(folder, dose_optional=True)
  assert patient.provenance['dicom']['FrameOfReferenceUID'] == synthetic.FRAME


def test_a_region_of_another_frame_does_not_matter(folder):
  dataset = pydicom.dcmread(folder / 'a')
  dataset.StructureSetROISequence[-1].ReferencedFrameOfReferenceUID = '7.7'
  dataset.save_as(folder / 'a')
  assert len(import_one(folder)[0].dose) == 1
  (folder / 'dose0').unlink()
  patient, _ = import_one(folder, dose_optional=True)
  assert patient.provenance['dicom']['FrameOfReferenceUID'] == synthetic.FRAME


def test_the_ct_lies_in_the_frame_of_the_dose(with_ct):
  """Although the set has regions in that of another CT too."""
  save_ct(with_ct / 'other', 20, frame='7.7', prefix='1.2.5')
  dataset = pydicom.dcmread(with_ct / 'a')
  other = pydicom.Dataset()
  other.FrameOfReferenceUID = '7.7'
  dataset.ReferencedFrameOfReferenceSequence.append(other)
  dataset.StructureSetROISequence[-1].ReferencedFrameOfReferenceUID = '7.7'
  dataset.save_as(with_ct / 'a')
  chosen, notes = slices_of(with_ct)
  assert {one.series for one in chosen} == {'1.2.3.4.9'} and not notes


# --- Which CT --------------------------------------------------------------


SAGITTAL, CORONAL = [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]


def save_image(path, uid, turn, *, series, **attributes):
  """An image across the slices."""
  (one,) = synthetic.ct_slices(0.0, 1, prefix=series)
  one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid
  one.ImagePositionPatient = [0.0, -60.0, 200.0]
  one.ImageOrientationPatient = turn
  for keyword, value in attributes.items():
    setattr(one, keyword, value)
  synthetic.save(one, path)


@pytest.mark.parametrize('kind', ['LOCALIZER', 'AXIAL'])
@pytest.mark.parametrize('series', ['1.2.3.4.9', '1.2.3.4.10'])
def test_scout_views_are_no_slices(with_ct, kind, series):
  """Two, within the series (dgobbi/vtk-dicom issue 98) or not, whatever they
  say of themselves."""
  wanted, _ = slices_of(with_ct)
  for i, turn in enumerate((SAGITTAL, CORONAL)):
    save_image(
      with_ct / 'ct' / f'scout{i}',
      f'1.2.9.{i}',
      turn,
      series=series,
      ImageType=['ORIGINAL', 'PRIMARY', kind],
    )
  chosen, notes = slices_of(with_ct)
  assert len(chosen) == 12 and chosen == wanted
  if kind == 'LOCALIZER':
    assert not notes
  else:
    assert '2 images of the CT' in notes or '2 CTs share' in notes


def test_an_axial_localizer_is_no_slice(with_ct):
  save_image(
    with_ct / 'scout',
    '1.2.9',
    [1, 0, 0, 0, 1, 0],
    series='1.2.3.4.9',
    ImageType=['ORIGINAL', 'PRIMARY', 'LOCALIZER'],
  )
  assert len(slices_of(with_ct)[0]) == 12


def test_reformatted_images_are_no_ct(with_ct):
  """Although there are more of them than axial slices."""
  for i in range(15):
    save_image(
      with_ct / f'sagittal{i}', f'1.2.9.{i}', SAGITTAL, series='1.2.3.4.10'
    )
  chosen, _ = slices_of(with_ct)
  assert {one.series for one in chosen} == {'1.2.3.4.9'}


def test_an_image_in_place_of_a_slice_is_kept(with_ct):
  """Its slice is missing, so the CT is at fault."""
  change(with_ct / 'ct' / '5', ImageOrientationPatient=CORONAL)
  assert len(slices_of(with_ct)[0]) == 12


def test_the_ct_of_another_patient_is_not_taken(folder):
  """Its frame of reference alone tells little: some programs that anonymise
  give all patients the same."""
  save_ct(folder / 'ct', patient='berta')
  chosen, notes = slices_of(folder)
  assert not chosen and "PatientID 'berta'" in notes and 'not taken' in notes
  dataset = pydicom.dcmread(folder / 'a')
  synthetic.refer_to_series(dataset, '1.2.3.4.9').save_as(folder / 'a')
  chosen, notes = slices_of(folder)
  assert len(chosen) == 12
  assert "the CT has PatientID 'berta', the structures 'anna'" in notes


def test_the_own_ct_comes_before_that_of_another_patient(with_ct):
  save_ct(with_ct / 'other', 20, patient='berta', prefix='1.2.5')
  chosen, notes = slices_of(with_ct)
  assert {one.patient_id for one in chosen} == {'anna'} and not notes


def test_another_ct_than_the_contours_is_remarked(with_ct):
  dataset = pydicom.dcmread(with_ct / 'a')
  synthetic.refer_to_series(dataset, '1.2.99').save_as(with_ct / 'a')
  chosen, notes = slices_of(with_ct)
  assert len(chosen) == 12 and 'contoured on is not here' in notes


def test_the_class_of_a_dose_may_be_in_the_file_meta_alone(folder):
  dataset = pydicom.dcmread(folder / 'dose0')
  del dataset.SOPClassUID
  dataset.save_as(folder / 'dose0')
  meta = pydicom.dcmread(folder / 'dose0').file_meta
  assert meta.MediaStorageSOPClassUID == dicom_headers.RTDOSE
  assert len(import_one(folder)[0].dose) == 1
