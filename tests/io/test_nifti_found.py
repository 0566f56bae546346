"""NIfTI as it is really found: scaled, beside clutter, slightly negative."""

import json
import unicodedata

import nibabel
import numpy as np
import pytest
from test_nifti import (
  DOSE,
  MASKS,
  NAMES,
  ORIGIN,
  SHAPE,
  SPACING,
  import_one,
  save,
  write_patient,
)

from dvhflax import errors
from dvhflax.io import mask_values, nifti
from dvhflax.io.case import numbered

VOXEL_CC = np.prod(SPACING) / 1000


def save_as(path, values, dtype):
  """Floats under another image's header, as a CT's: they get a slope."""
  affine = np.diag([*SPACING, 1.0])
  affine[:3, 3] = ORIGIN
  header = nibabel.Nifti1Image(np.zeros(SHAPE, dtype), affine).header
  image = nibabel.Nifti1Image(values.astype(np.float64), affine, header)
  image.set_sform(affine, 1)
  path.parent.mkdir(parents=True, exist_ok=True)
  nibabel.save(image, path)
  return np.asarray(nibabel.load(path).dataobj)


def label_map():
  labels = np.zeros(SHAPE)
  for number, mask in enumerate(MASKS.values(), 1):
    labels[mask] = number
  return labels


def write_labels(folder, values, dtype, numbers=None):
  save(folder / 'dose.nii', DOSE)
  read = save_as(folder / 'labels.nii.gz', values, dtype)
  numbers = numbers or {name: i for i, name in enumerate(MASKS, 1)}
  (folder / 'labels.json').write_text(json.dumps(numbers))
  return read


def volumes(folder):
  _, entry = import_one(folder)
  return {n: found['volume_cc'] for n, found in entry['structures'].items()}


@pytest.mark.parametrize('dtype, most', [(np.int16, 4), (np.uint8, 6)])
def test_a_label_map_with_a_slope(tmp_path, dtype, most):
  """Labels kept as floats under an integer header (nibabel issue 1069)."""
  labels = label_map()
  labels[:2, :2, :2] = most
  read = write_labels(tmp_path, labels, dtype)
  assert (read != np.rint(read)).any()
  wanted = {
    name.lower(): np.count_nonzero(labels == number) * VOXEL_CC
    for number, name in enumerate(MASKS, 1)
  }
  found = {name.lower(): cc for name, cc in volumes(tmp_path).items()}
  assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize('dtype', [np.float32, np.int16, np.uint8])
def test_an_interpolated_label_map_is_refused(tmp_path, dtype):
  labels = label_map()
  labels[1:] = (labels[1:] + labels[:-1]) / 2
  write_labels(tmp_path, labels, dtype)
  with pytest.raises(
    errors.CohortError, match=r'labels\.nii\.gz is not a label map.*nearest'
  ):
    import_one(tmp_path)


def test_steps_of_a_label_and_more_are_refused():
  """Of 0 to 1000 in eight bits nobody can tell what the labels were."""
  stored = np.arange(256.0, dtype=np.float32).reshape(4, 8, 8) * (1000 / 255)
  with pytest.raises(errors.CohortError, match='scaled coarsely'):
    mask_values.whole_labels(stored, 1000 / 255, 'labels.nii')


@pytest.mark.parametrize('dtype', [np.int16, np.uint8])
@pytest.mark.parametrize('inside', [1.0, 255.0])
def test_a_mask_with_a_slope(tmp_path, dtype, inside):
  write_patient(tmp_path)
  wanted = volumes(tmp_path)
  save_as(tmp_path / 'PTV.nii.gz', inside * MASKS['PTV'], dtype)
  assert volumes(tmp_path) == pytest.approx(wanted, rel=1e-7)
  (found,), _ = nifti.find_patients(tmp_path)
  fractions = nifti.read_patient(found, NAMES).occupancies['PTV'].fractions
  assert set(np.unique(fractions)) <= {0, 1}
  # Cut to where it is: what is next to 0 is 0.
  assert fractions.shape == (5, 7, 4)


def test_shares_of_a_voxel_stay_what_they_are(tmp_path):
  write_patient(tmp_path)
  shares = 0.5 * MASKS['PTV'] + 0.5 * MASKS['Body']
  save_as(tmp_path / 'PTV.nii.gz', shares, np.int16)
  wanted = shares.sum() * VOXEL_CC
  assert volumes(tmp_path)['PTV'] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
  'text, match',
  [
    ('{"Body": 1, "PTV": 2, "Bladder": 2}', "'PTV' and 'Bladder' the same"),
    ('{"Body": 1, "PTV": 2, "PTV": 3}', "names 'PTV' twice"),
    ('{"Body": true, "PTV": 2}', 'whole numbers from 1'),
    ('{"Body": 1, "PTV": 2.5}', 'whole numbers from 1'),
    ('{"Body": 1, "PTV": 16777217}', 'whole numbers from 1'),
    ('[1, 2]', 'whole numbers from 1'),
    ('{"Body": ' * 100000, 'give {"structure"'),
    ('', 'give {"structure"'),
  ],
)
def test_faulty_names_of_labels(tmp_path, text, match):
  write_labels(tmp_path, label_map(), np.uint8)
  (tmp_path / 'labels.json').write_text(text)
  with pytest.raises(errors.CohortError, match=match) as raised:
    import_one(tmp_path)
  assert 'labels.json' in str(raised.value) and len(str(raised.value)) < 400


def test_names_of_labels_as_other_programs_write_them(tmp_path):
  write_labels(tmp_path, label_map(), np.uint8, {'Body': 1.0, 'PTV': 4})
  path = tmp_path / 'labels.json'
  path.write_text('\ufeff' + path.read_text(), encoding='utf-8')
  assert volumes(tmp_path).keys() == {'body', 'PTV'}


APPLE = bytes.fromhex('0005160700020000') + b'Mac OS X        ' + bytes(60)


def test_what_systems_leave_is_passed_over(tmp_path):
  """AppleDouble files beside the patient's (OpenNeuro issue 2520)."""
  folder = tmp_path / 'in' / 'case'
  write_labels(folder, label_map(), np.uint8)
  for path in list(folder.iterdir()):
    (folder / f'._{path.name}').write_bytes(APPLE)
  (folder / '.DS_Store').write_bytes(APPLE)
  (folder / 'Thumbs.db').write_bytes(APPLE)
  copies = tmp_path / 'in' / '__MACOSX' / 'case'
  copies.mkdir(parents=True)
  for name in ('dose.nii', 'labels.nii.gz', '._labels.nii.gz'):
    (copies / name).write_bytes(APPLE)
  found, skipped = nifti.find_patients(tmp_path / 'in')
  assert [one.id for one in found] == ['case'] and not skipped
  ptv_cc = MASKS['PTV'].sum() * VOXEL_CC
  assert volumes(tmp_path / 'in')['PTV'] == pytest.approx(ptv_cc)


def test_a_root_below_a_hidden_folder(tmp_path):
  write_patient(tmp_path / '.trash' / 'a')
  found, _ = nifti.find_patients(tmp_path / '.trash')
  assert [one.id for one in found] == ['a']


@pytest.mark.parametrize('form', ['NFC', 'NFD'])
def test_names_in_either_form_of_unicode(tmp_path, form):
  written = unicodedata.normalize(form, 'Blåse')
  root = tmp_path / unicodedata.normalize(form, 'Müller')
  write_patient(root)
  (root / 'Bladder.nii.gz').rename(root / f'{written}.nii.gz')
  (found,), _ = nifti.find_patients(tmp_path)
  assert found.id == unicodedata.normalize('NFC', 'Müller')
  for row in ('NFC', 'NFD'):
    table = [('bladder', unicodedata.normalize(row, 'Blåse'))]
    case = nifti.read_patient(found, NAMES, table)
    assert case.occupancies['bladder'].volume_cc == pytest.approx(
      MASKS['Bladder'].sum() * VOXEL_CC
    )


@pytest.mark.parametrize('name', ['dose_0', 'labels'])
def test_a_file_compressed_and_not(tmp_path, name):
  """Twice the same plan, or labels of which one is the older."""
  if name == 'labels':
    write_labels(tmp_path, label_map(), np.uint8)
    save(tmp_path / 'labels.nii', label_map())
  else:
    save(write_patient(tmp_path) / 'dose_0.nii', DOSE)
  found, skipped = nifti.find_patients(tmp_path)
  assert not found
  assert f'{name}.nii and {name}.nii.gz' in skipped[0].why


def test_ids_that_collide_within_an_import(tmp_path):
  for name in ('a/b', 'a-b', 'a-b-2', 'c/d'):
    write_patient(tmp_path / name)
  found, _ = nifti.find_patients(tmp_path)
  ids = {one.doses[0].parent.relative_to(tmp_path).as_posix(): one.id
         for one in found}  # fmt: skip
  assert ids == {'a/b': 'a/b', 'a-b': 'a-b', 'a-b-2': 'a-b-2', 'c/d': 'c-d'}


def test_who_has_a_number_in_his_id_keeps_it():
  found = [nifti.Found(i, (), (), None) for i in ('X', 'X', 'X-2', 'X')]
  ids = [one.id for one in numbered(found)]
  assert ids == ['X', 'X-3', 'X-2', 'X-4']


def ringing(share):
  """A dose that undershoots by a share of its maximum at one end."""
  dose = DOSE.copy()
  dose[-2:] = -share * dose.max()
  return dose


def test_a_small_undershoot_is_clipped_and_told(tmp_path):
  """Ringing of cubic splines at a field's edge (ANTs issue 828)."""
  write_patient(tmp_path)
  save(tmp_path / 'dose_0.nii.gz', ringing(0.005))
  patient, entry = import_one(tmp_path)
  (note,) = (n for n in entry['notes'] if 'taken as 0' in n)
  count = 2 * SHAPE[1] * SHAPE[2]
  assert note.startswith(f'dose_0.nii.gz: {count} voxels of down to -0.35 Gy')
  save(tmp_path / 'dose_0.nii.gz', ringing(0))
  clipped, entry = import_one(tmp_path)
  assert not any('taken as 0' in note for note in entry['notes'])
  np.testing.assert_array_equal(patient.dose, clipped.dose)


def test_rounding_below_zero_is_not_worth_a_note(tmp_path):
  write_patient(tmp_path)
  save(tmp_path / 'dose_0.nii.gz', ringing(5e-5))
  patient, entry = import_one(tmp_path)
  assert patient.dose.min() == 0
  assert not any('taken as 0' in note for note in entry['notes'])


@pytest.mark.parametrize('dose', [ringing(0.021), 0 * DOSE - 1e-3])
def test_more_than_ringing_is_refused(tmp_path, dose):
  write_patient(tmp_path)
  save(tmp_path / 'dose_0.nii.gz', dose)
  with pytest.raises(
    errors.CohortError, match=r'a dose is negative.*difference of two doses'
  ):
    import_one(tmp_path)
