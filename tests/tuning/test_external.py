"""Predictions for patients from outside of the cohort, and where they lie."""

import dataclasses
import hashlib
import json

from conftest import GRID, STRUCTURES, make_patient
import nibabel
import numpy as np
import pytest

from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.evaluation.predict import predict_all
from dvhflax.io.dicom import rtdose
from dvhflax.training import runs as networks
from dvhflax.tuning import session
from dvhflax.tuning.external import ExternalPatients

# Of the first voxel, LPS.
ORIGIN = np.array([100.0, -50.0, 30.0])


@pytest.fixture(scope='module')
def network(trained_run):
  return networks.load_network(trained_run, 'best', None)


def predict(trained_run, **options):
  """Predictions for all; they are made one by one."""
  return list(predict_all(trained_run, **options))


def write_masks(folder, masks):
  """A `[X, Y, Z, S]` patient as NIfTI, whose axes run to right, anterior."""
  folder.mkdir(parents=True)
  affine = np.diag([-3.0, -3.0, 5.0, 1.0])
  affine[:3, 3] = ORIGIN * [-1, -1, 1]
  for s, structure in enumerate(STRUCTURES):
    image = nibabel.Nifti1Image(masks[..., s], affine)
    nibabel.save(image, folder / f'{structure.name}.nii.gz')
  return folder


def test_the_dose_lies_in_the_patient(network, trained_run, tmp_path):
  _, cohort = network
  masks = cohort.masks(6)
  folder = write_masks(tmp_path / 'in' / 'new', masks)
  predict(trained_run, nifti=str(folder.parent), output=tmp_path)
  with np.load(tmp_path / 'dose.npz') as stored:
    dose, reference_gy = stored['dose'], float(stored['reference_gy'])
    # That of all training patients.
    assert stored['prescription_gy'] == 78
  patient, _ = ExternalPatients('nifti', str(folder.parent), cohort).read('new')
  # The target is a voxel in front of the middle of its grid.
  np.testing.assert_array_equal(patient.masks, np.roll(masks, 1, axis=1))
  assert patient.spacing_mm == (3, 3, 5) and patient.dose.shape == (0, *GRID)
  expected = session.Session(*network, patient).first_dose().dose
  np.testing.assert_array_equal(dose, expected)

  first = ORIGIN - [0, 3, 0]
  image = nibabel.load(tmp_path / 'dose.nii.gz')
  np.testing.assert_allclose(image.get_fdata(), reference_gy * dose, rtol=1e-5)
  np.testing.assert_allclose(image.affine[:3, 3], first * [-1, -1, 1])
  assert nibabel.aff2axcodes(image.affine) == ('L', 'P', 'S')
  np.testing.assert_allclose(image.get_qform(), image.affine)
  written = rtdose.read_dose(tmp_path / 'dose.dcm')
  np.testing.assert_allclose([a[0] for a in written.axes], first, atol=1e-6)
  np.testing.assert_allclose(
    written.values, np.maximum(reference_gy * dose, 0), atol=1e-4
  )


def test_a_plan_of_its_own_is_no_hindrance(network, trained_run, tmp_path):
  """Its dose tells the prescription and the grid to come back to."""
  folder = write_masks(tmp_path / 'in', network[1].masks(6))
  affine = np.diag([-2.0, -2.0, 2.5, 1.0])
  affine[:3, 3] = (ORIGIN - 9) * [-1, -1, 1]
  values = np.full((24, 24, 16), 60, np.float32)
  nibabel.save(nibabel.Nifti1Image(values, affine), folder / 'dose.nii.gz')
  predict(
    trained_run,
    nifti=str(folder),
    output=str(tmp_path / 'out'),
    grid='source',
    rtdose_bits=16,
  )
  with np.load(tmp_path / 'out' / 'dose.npz') as stored:
    assert stored['prescription_gy'] == pytest.approx(60)
  image = nibabel.load(tmp_path / 'out' / 'dose.nii.gz')
  assert image.shape == values.shape
  np.testing.assert_allclose(image.affine, affine)
  # Beyond the grid of the cohort nothing is predicted.
  assert not image.get_fdata()[0].any() and image.get_fdata()[12, 12, 8]


def sha256(patient):
  return hashlib.sha256(patient.encode()).hexdigest()[:10]


def test_one_who_cannot_be_predicted_for_does_not_stop_the_others(
  network, trained_run, tmp_path
):
  masks = network[1].masks(6)
  for name in ('a', 'b c', 'b_c', '..c'):
    write_masks(tmp_path / 'in' / name, masks)
  (tmp_path / 'in' / 'a' / 'PTV.nii.gz').unlink()
  out = tmp_path / 'out'
  with pytest.raises(errors.UserError, match='patient a has no PTV'):
    predict(trained_run, nifti=str(tmp_path / 'in'), output=str(out))
  # Of `b c`, a folder beside that of `b_c`; none is hidden.
  owners = {
    path.name: json.loads((path / 'metrics.json').read_text())['patient']
    for path in out.iterdir()
  }
  decorated = {f'b_c~{sha256("b c")}', f'_c~{sha256("..c")}'}
  assert owners.keys() == {'b_c', *decorated}
  assert sorted(owners.values()) == ['..c', 'b c', 'b_c']
  assert owners['b_c'] == 'b_c'
  assert all((out / name / 'dose.dcm').exists() for name in owners)
  (tmp_path / 'in' / 'a' / 'PTV.nii.gz').touch()
  with pytest.raises(errors.UserError, match=r'a.PTV\.nii\.gz cannot be read'):
    predict(trained_run, nifti=str(tmp_path / 'in'), patient='a')


def test_a_structure_that_training_always_had(network, tmp_path):
  _, cohort = network
  folder = write_masks(tmp_path / 'in', cohort.masks(6))
  (folder / 'rectum.nii.gz').rename(folder / 'colon.nii.gz')
  # One training patient has no rectum either.
  assert (
    not ExternalPatients('nifti', str(folder), cohort).read('in')[0].present[1]
  )
  always = ExternalPatients('nifti', str(folder), cohort)
  always._always[1] = True
  with pytest.raises(
    errors.CohortError, match=r'lacks rectum, which every.*unmapped: colon'
  ):
    always.read('in')
  table = tmp_path / 'names.json'
  table.write_text('{"rectum": ["colon"]}')
  named = ExternalPatients('nifti', str(folder), cohort, names=str(table))
  assert named.read('in')[0].present[1]


@pytest.mark.parametrize(
  'values, match',
  [
    ({}, 'patients to predict for'),
    ({'nifti': 'x', 'dicom': 'x'}, 'patients to predict for'),
    ({'nifti': '.', 'prescription_gy': -1.0}, 'must be positive'),
    ({'nifti': 'nowhere'}, 'is no folder'),
    ({'nifti': '.'}, 'no patient to predict for: it is empty'),
    ({'nifti': 'in', 'patient': 'b'}, "no patient 'b'.*there are in"),
    ({'nifti': 'in', 'grid': 'source'}, 'in was imported with no dose'),
  ],
)
def test_what_cannot_be_asked_for(
  network, trained_run, tmp_path, values, match
):
  if 'in' in values.values():
    write_masks(tmp_path / 'in', network[1].masks(6))
  for key in ('nifti', 'dicom'):
    if key in values:
      values = {**values, key: str(tmp_path / values[key])}
  with pytest.raises(errors.UserError, match=match):
    predict(trained_run, output=str(tmp_path), **values)


def test_masks_of_another_grid_are_refused(network):
  patient = make_patient(0)
  smaller = dataclasses.replace(patient, masks=patient.masks[1:])
  with pytest.raises(errors.CohortError, match='patient p0: masks'):
    session.Session(*network, smaller)


def test_a_cohort_planned_from_another_reads_as_that_was_imported(
  network, tmp_path
):
  """However often plans were added, names and prescription are the import's."""
  _, cohort = network
  folder = write_masks(tmp_path / 'in', cohort.masks(6))
  (folder / 'rectum.nii.gz').rename(folder / 'gut.nii.gz')
  imported = {
    'source': 'nifti', 'prescription_gy': 66.0, 'names': [['rectum', 'gut']],
  }  # fmt: skip
  nested = {'source': 'store', 'from': {'source': 'store', 'from': imported}}
  metadata = dataclasses.replace(cohort.metadata, provenance=nested)
  planned = Cohort(cohort.path, metadata)
  patient, _ = ExternalPatients('nifti', str(folder), planned).read('in')
  assert patient.present.all() and patient.prescription_gy == 66
  # What was planned here was prescribed by the protocol, 78 Gy to everyone.
  metadata = dataclasses.replace(
    cohort.metadata, provenance={**nested, 'protocol': {}}
  )
  planned = Cohort(cohort.path, metadata)
  patient, _ = ExternalPatients('nifti', str(folder), planned).read('in')
  assert patient.present.all() and patient.prescription_gy == 78


def test_a_patient_of_the_cohort_has_its_own_prescription(trained_run):
  for option in ({'prescription_gy': 60.0}, {'names': 'names.json'}):
    with pytest.raises(errors.UserError, match='is one of the cohort'):
      predict(trained_run, patient='p6', **option)


def test_a_prescription_in_cgy_is_refused(network, tmp_path):
  _, cohort = network
  folder = write_masks(tmp_path / 'in', cohort.masks(6))
  outside = ExternalPatients(
    'nifti', str(folder), cohort, prescription_gy=6000.0
  )
  with pytest.raises(errors.CohortError, match=r'in: .* 6000 Gy: is it'):
    outside.read('in')
