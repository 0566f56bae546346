"""NIfTI import: orientation, spacing, masks and label maps, faults."""

import dataclasses
import gzip
import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st
import nibabel
import numpy as np
import pytest
from scipy import interpolate

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.io import importing, nifti
from dvhflax.patient import Structure
from dvhflax.sources.build import build_cohort

NAMES = ('body', 'bladder', 'rectum', 'PTV')
SETTINGS = importing.Settings(
  tuple(map(Structure.from_name, NAMES)), (16, 16, 8), (4.0, 4.0, 6.0)
)
# Canonical axes, right, anterior, superior: sizes, spacing, first centre.
SHAPE, SPACING, ORIGIN = (20, 24, 16), (3.0, 2.5, 4.0), (-30.0, -20.0, 7.0)


def ball(centre, radius):
  """Mask of a ball on the canonical grid, positions in RAS mm."""
  x, y, z = (
    first + step * np.arange(n) - middle
    for n, step, first, middle in zip(SHAPE, SPACING, ORIGIN, centre)
  )
  return (x[:, None, None] ** 2 + y[:, None] ** 2 + z**2) <= radius**2


MASKS = {
  'Body': ball((0, 10, 37), 26),
  'Bladder': ball((0, 24, 37), 6),
  'Rectum': ball((6, -6, 37), 6),
  'PTV': ball((-6, 10, 37), 8),
}
DOSE = 70 * np.exp(-np.linspace(0, 2, SHAPE[0]))[:, None, None] * np.ones(SHAPE)


def save(path, values, flips=(), order=(0, 1, 2)):
  """Saves RAS values with some axes reversed and in another order."""
  affine = np.diag([*SPACING, 1.0])
  affine[:3, 3] = ORIGIN
  for axis in flips:
    affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
    affine[:3, axis] *= -1
  values = np.flip(values, flips).transpose(order)
  affine[:, :3] = affine[:, list(order)]
  path.parent.mkdir(parents=True, exist_ok=True)
  nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), path)


def write_patient(folder, flips=(), order=(0, 1, 2), plans=1):
  for n in range(plans):
    save(folder / f'dose_{n}.nii.gz', DOSE * (1 + n), flips, order)
  for name, mask in MASKS.items():
    save(folder / f'{name}.nii.gz', mask, flips, order)
  return folder


def import_one(root):
  (found,), _ = nifti.find_patients(root)
  return importing.assemble(nifti.read_patient(found, NAMES), SETTINGS)


@pytest.mark.parametrize(
  'flips, order',
  [
    ((0,), (0, 1, 2)),
    ((1,), (0, 1, 2)),
    ((2,), (0, 1, 2)),
    ((0, 1), (2, 0, 1)),
    ((0, 1, 2), (1, 2, 0)),
  ],
)
def test_orientation_does_not_matter(tmp_path, flips, order):
  straight, _ = import_one(write_patient(tmp_path / 'a'))
  turned, _ = import_one(write_patient(tmp_path / 'b', flips, order))
  np.testing.assert_array_equal(turned.masks, straight.masks)
  np.testing.assert_allclose(turned.dose, straight.dose, rtol=1e-5)
  assert turned.provenance['grid_centre_mm'] == pytest.approx(
    straight.provenance['grid_centre_mm'], abs=1e-3
  )


def test_axes_point_left_posterior_superior(tmp_path):
  patient, _ = import_one(write_patient(tmp_path))
  # RAS (-6, 10, 37) is LPS (6, -10, 37).
  np.testing.assert_allclose(
    patient.provenance['grid_centre_mm'], [6, -10, 37], atol=0.6
  )
  middle = {
    name: np.argwhere(patient.masks[..., s]).mean(0) * (4, 4, 6)
    - np.array([30, 30, 21])
    for s, name in enumerate(NAMES)
  }
  np.testing.assert_allclose(middle['bladder'], [-6, -14, 0], atol=2.1)
  np.testing.assert_allclose(middle['rectum'], [-12, 16, 0], atol=2.1)
  # It rises to the patient's left, as LPS x does.
  assert np.all(np.diff(patient.dose[0, 2:14, 8, 4]) >= 0)


def test_a_label_map_equals_masks(tmp_path):
  straight, _ = import_one(write_patient(tmp_path / 'a'))
  # Organs lie within the body: the map cannot hold both, so the body is left
  # with what they leave.
  labels = np.zeros(SHAPE)
  for number, mask in enumerate(MASKS.values(), 1):
    labels[mask] = number
  save(tmp_path / 'b' / 'dose.nii', DOSE)
  save(tmp_path / 'b' / 'labels.nii', labels)
  numbers = {name: i for i, name in enumerate(MASKS, 1)}
  (tmp_path / 'b' / 'labels.json').write_text(json.dumps(numbers))
  mapped, _ = import_one(tmp_path / 'b')
  np.testing.assert_array_equal(mapped.masks[..., 1:], straight.masks[..., 1:])
  np.testing.assert_allclose(mapped.dose, straight.dose, rtol=1e-6)


def test_several_doses_are_a_pareto_set_and_255_is_a_mask(tmp_path):
  write_patient(tmp_path, plans=3)
  save(tmp_path / 'PTV.nii.gz', 255 * MASKS['PTV'])
  patient, entry = import_one(tmp_path)
  assert patient.dose.shape[0] == 3
  # The second and the third are twice and three times the first, in Gy.
  assert (patient.reference_gy == patient.prescription_gy).all()
  means = patient.dose[:, patient.masks[..., 3] > 0].mean(1)
  np.testing.assert_allclose(means, [1 / 3, 2 / 3, 1], rtol=1e-5)
  assert entry['plans'][0]['prescription_from'] == 'target mean'


def test_a_body_elsewhere_is_refused(tmp_path):
  write_patient(tmp_path)
  save(tmp_path / 'Body.nii.gz', MASKS['Rectum'])
  with pytest.raises(errors.CohortError, match=r'PTV lie outside.*of body'):
    import_one(tmp_path)


@pytest.mark.parametrize('by, kept', [(1e-3, 1), (0.5, 2)])
def test_a_dose_that_goes_with_no_other_is_left_out(tmp_path, by, kept):
  # Its reference is the mean in its own target: that goes with any dose.
  write_patient(tmp_path)
  save(tmp_path / 'dose_1.nii.gz', by * DOSE)
  patient, entry = import_one(tmp_path)
  assert len(patient.dose) == kept
  left_out = [note for note in entry['notes'] if 'dose_1' in note]
  assert len(left_out) == 2 - kept
  assert all('is it in Gy?' in note for note in left_out)


def test_a_dose_of_next_to_nothing_is_refused(tmp_path):
  write_patient(tmp_path)
  save(tmp_path / 'dose_0.nii.gz', 1e-3 * DOSE)
  with pytest.raises(errors.CohortError, match=r'prescription of 0\.0\d+ Gy'):
    import_one(tmp_path)


def far_away(path):
  affine = np.diag([3.0, 3.0, 3.0, 1.0])
  affine[0, 3] = 2e4
  nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), 'f'), affine), path)


def oblique(path):
  affine = np.eye(4)
  affine[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
  nibabel.save(nibabel.Nifti1Image(DOSE.astype(np.float32), affine), path)


def two_volumes(path):
  values = np.stack([DOSE, DOSE], -1).astype(np.float32)
  nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def with_nan_affine(path):
  image = nibabel.load(path)
  values, header = image.get_fdata(), image.header.copy()
  header['srow_x'] = np.nan
  header['pixdim'][1] = np.nan
  raw = nibabel.Nifti1Image(values, None, header)
  raw.header['srow_x'] = np.nan
  raw.header['sform_code'] = 1
  content = raw.header.binaryblock + b'\0' * 4 + values.tobytes()
  path.write_bytes(gzip.compress(content))


def unoriented(path):
  image = nibabel.load(path)
  image.set_sform(None)
  image.set_qform(None)
  nibabel.save(image, path.with_name('aside.nii.gz'))
  path.with_name('aside.nii.gz').rename(path)


def in_metres(path):
  image = nibabel.load(path)
  image.header.set_xyzt_units('meter')
  nibabel.save(image, path.with_name('aside.nii.gz'))
  path.with_name('aside.nii.gz').rename(path)


@pytest.mark.parametrize(
  'name, damage, match',
  [
    ('dose_0', oblique, 'oblique'),
    ('dose_0', far_away, 'from the origin'),
    ('dose_0', with_nan_affine, 'affine'),
    ('dose_0', in_metres, 'in meter'),
    ('dose_0', unoriented, 'orientation'),
    ('dose_0', lambda p: save(p, -DOSE), 'negative'),
    ('dose_0', lambda p: save(p, 100 * DOSE), 'cGy'),
    ('dose_0', lambda p: save(p, DOSE * np.nan), 'not finite'),
    ('dose_0', two_volumes, 'three axes'),
    ('dose_0', lambda p: p.write_bytes(p.read_bytes()[:200]), 'cannot be read'),
    ('dose_0', lambda p: p.write_bytes(b'x' * 500), 'cannot be read'),
    ('PTV', lambda p: save(p, 2 * MASKS['PTV'] + MASKS['Body']), 'label map'),
    ('PTV', lambda p: save(p, 0 * MASKS['PTV']), 'PTV is empty'),
    ('Body', lambda p: p.unlink(), 'has no body'),
  ],
)  # fmt: skip
def test_faulty_files_are_refused(tmp_path, name, damage, match):
  write_patient(tmp_path)
  damage(tmp_path / f'{name}.nii.gz')
  with pytest.raises(errors.CohortError, match=match):
    import_one(tmp_path)


def test_incomplete_folders_are_skipped(tmp_path):
  write_patient(tmp_path / 'good')
  save(tmp_path / 'nodose' / 'PTV.nii', MASKS['PTV'])
  save(tmp_path / 'nomask' / 'dose.nii', DOSE)
  found, skipped = nifti.find_patients(tmp_path)
  assert [one.id for one in found] == ['good']
  assert len(skipped) == 2
  with pytest.raises(errors.CohortError, match='no folder'):
    nifti.find_patients(tmp_path / 'nowhere')


def test_a_cohort_of_nifti_patients(tmp_path):
  for i in range(4):
    write_patient(tmp_path / 'in' / f'p{i}')
  (tmp_path / 'in' / 'p1' / 'PTV.nii.gz').write_bytes(b'broken')
  config = config_lib.default()
  config.cohort.source, config.cohort.plans = 'nifti', 0
  config.cohort.normalisation = 'prescription'
  config.cohort.raw = str(tmp_path / 'in')
  config.cohort.path = str(tmp_path / 'cohort')
  config.cohort.grid = (16, 16, 8)
  config.cohort.spacing_mm = (4.0, 4.0, 6.0)
  config.cohort.prescription_gy = 40.0
  config.cohort.validation_patients = 1
  config.cohort.test_patients = 1
  config_lib.validate(config)
  assert build_cohort(config)
  cohort = Cohort.open(str(tmp_path / 'cohort'))
  assert [p.id for p in cohort.patients] == ['p0', 'p2', 'p3']
  assert cohort.patients[0].reference_gy == (40.0,)
  plan = cohort.patients[0].provenance['plans'][0]
  assert plan['prescription_from'] == 'config'


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_mutated_headers(tmp_path_factory, seed):
  """A clear error or a result, whatever the header says."""
  folder = tmp_path_factory.mktemp('mutated')
  for name in ('Body', 'PTV'):
    save(folder / f'{name}.nii', MASKS[name])
  path = folder / 'dose.nii'
  save(path, DOSE)
  rng = random.Random(seed)
  content = bytearray(path.read_bytes())
  for _ in range(rng.randint(1, 10)):
    content[rng.randrange(352)] = rng.randrange(256)
  path.write_bytes(content[: rng.choice((len(content), 9000))])
  try:
    patient, _ = import_one(folder)
  except errors.CohortError as error:
    assert '\n' not in str(error)
    return
  assert np.isfinite(patient.dose).all()


def hu_of(body):
  """HU of a ball of water, a cavity in it, and a plate below."""
  hu = np.where(body, 0.0, -1000.0)
  hu[ball((4, 14, 40), 5)] = -900
  return hu


def with_ct(root, hu, **options):
  folder = write_patient(root / 'a', **options)
  save(folder / 'ct.nii.gz', hu, **options)
  return folder


def scanned(root, ct=True):
  (found,), skipped = nifti.find_patients(root)
  assert not skipped
  wanted = dataclasses.replace(SETTINGS, ct=ct)
  return importing.assemble(nifti.read_patient(found, NAMES), wanted)


@pytest.mark.parametrize('flips, order', [((), (0, 1, 2)), ((0, 2), (2, 0, 1))])
def test_a_ct_is_no_mask_but_hu(tmp_path, flips, order):
  hu = hu_of(MASKS['Body'])
  with_ct(tmp_path, hu, flips=flips, order=order)
  patient, entry = scanned(tmp_path)
  assert not any('ct' in note.lower() for note in entry['notes'])
  assert scanned(tmp_path, ct=False)[0].ct_hu is None
  # Against scipy, on positions turned back to RAS.
  x, y, z = (
    centre + (np.arange(n) - (n - 1) / 2) * step
    for n, step, centre in zip(
      SETTINGS.shape, SETTINGS.spacing_mm, patient.provenance['grid_centre_mm']
    )
  )
  source = [f + s * np.arange(n) for f, s, n in zip(ORIGIN, SPACING, SHAPE)]
  points = np.stack(np.meshgrid(-x, -y, z, indexing='ij'), -1)
  inner = np.all(
    [
      (points[..., i] >= axis[0]) & (points[..., i] <= axis[-1])
      for i, axis in enumerate(source)
    ],
    0,
  )
  wanted = interpolate.interpn(source, hu, points[inner])
  assert inner.sum() > 1000
  assert np.abs(patient.ct_hu[inner] - wanted).max() <= 1


def test_the_body_is_derived_from_the_ct(tmp_path):
  folder = with_ct(tmp_path, hu_of(MASKS['Body']))
  contoured, _ = scanned(tmp_path)
  (folder / 'Body.nii.gz').unlink()
  patient, entry = scanned(tmp_path, ct=False)
  assert 'body derived from the CT' in entry['notes']
  differ = patient.masks[..., 0] != contoured.masks[..., 0]
  assert differ.sum() < 0.05 * contoured.masks[..., 0].sum()
  np.testing.assert_array_equal(
    patient.masks[..., 1:], contoured.masks[..., 1:]
  )


@pytest.mark.parametrize(
  'hu, match',
  [
    (hu_of(MASKS['Body']) + 1024, 'not shifted by'),
    (np.full(SHAPE, np.nan), 'not finite'),
    (np.full(SHAPE, -1000.0), 'no body found'),
  ],
)
def test_a_faulty_ct_is_told(tmp_path, hu, match):
  folder = with_ct(tmp_path, hu)
  if 'no body' not in match:
    patient, entry = scanned(tmp_path)
    assert patient.ct_hu is None and patient.present.all()
    assert any(
      'CT left out' in note and match in note for note in entry['notes']
    )
  (folder / 'Body.nii.gz').unlink()
  with pytest.raises(errors.CohortError, match=f'has no body: .*{match}'):
    scanned(tmp_path)


def test_two_cts_are_ambiguous(tmp_path):
  folder = with_ct(tmp_path, hu_of(MASKS['Body']))
  save(folder / 'ct.nii', hu_of(MASKS['Body']))
  found, skipped = nifti.find_patients(tmp_path)
  assert not found and 'more than one CT' in skipped[0].why
