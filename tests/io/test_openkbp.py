"""The OpenKBP importer on folders that the tests write."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dvhflax import errors
from dvhflax.io import openkbp

VOXELS = 128**3


def flat(posterior, left, inferior):
  return (posterior * 128 + left) * 128 + inferior


def block(start, size):
  return [
    flat(start[0] + i, start[1] + j, start[2] + k)
    for i in range(size)
    for j in range(size)
    for k in range(size)
  ]


def write(folder, name, indices, values=None):
  values = values if values is not None else [''] * len(indices)
  lines = [',data'] + [f'{i},{v}' for i, v in zip(indices, values)]
  (folder / f'{name}.csv').write_text('\n'.join(lines) + '\n')


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / 'train-pats' / 'pt_3'
  folder.mkdir(parents=True)
  target, cord = block((40, 50, 60), 8), block((80, 20, 10), 4)
  possible = target + cord
  write(folder, 'PTV70', target)
  write(folder, 'SpinalCord', cord)
  write(folder, 'possible_dose_mask', possible)
  doses = [70.0] * len(target) + [20.0] * len(cord)
  write(folder, 'dose', possible, doses)
  (folder / 'voxel_dimensions.csv').write_text('3.0\n4.0\n2.5\n')
  return folder


def test_axes_point_left_posterior_superior(folder):
  patient = openkbp.read_patient(folder)
  ptv = np.argwhere(patient.masks[..., -1])
  np.testing.assert_array_equal(ptv.min(0), [50, 40, 127 - 67])
  assert patient.spacing_mm == (4.0, 3.0, 2.5)
  np.testing.assert_allclose(patient.dose[0, 50, 40, 60] * 70, 70.0)
  names = [s.name for s, p in zip(openkbp.STRUCTURES, patient.present) if p]
  assert names == ['PossibleDose', 'SpinalCord', 'PTV70']


@settings(deadline=None, max_examples=10)
@given(st.tuples(*[st.integers(0, 127)] * 3))
def test_any_voxel_lands_in_its_place(place):
  source = np.zeros((128, 128, 128), np.float32)
  source[place] = 1
  posterior, left, inferior = place
  turned = openkbp._turned(source)
  assert turned[left, posterior, 127 - inferior] == 1


def test_coarse_grid_averages_dose_and_keeps_small_structures(folder):
  write(folder, 'Larynx', [flat(41, 51, 61)])
  patient = openkbp.read_patient(folder, grid=(64, 64, 32))
  assert patient.masks.shape == (64, 64, 32, 11)
  assert patient.masks[..., 6].sum() == 1
  assert patient.spacing_mm == (8.0, 6.0, 10.0)
  np.testing.assert_allclose(patient.dose.max() * 70, 70.0, rtol=1e-6)
  assert patient.masks[..., -1].sum() == 4 * 4 * 2


def test_patients_are_found_in_order(folder):
  (folder.parent / 'pt_20').mkdir()
  (folder.parent / 'pt_100').mkdir()
  names = [f.name for f in openkbp.find_patients(folder.parents[1])[0]]
  assert names == ['pt_3', 'pt_20', 'pt_100']


def write_ct(folder):
  """Fluid in a block of 8 voxels, muscle in the last of it, air around."""
  indices = block((40, 50, 60), 8)
  values = [1015.0] * (len(indices) - 1) + [1060.0]
  write(folder, 'ct', indices, values)


def test_ct_numbers_are_hu(folder):
  assert openkbp.read_patient(folder, ct=True).ct_hu is None  # has none
  write_ct(folder)
  assert openkbp.read_patient(folder).ct_hu is None  # not asked for
  ct_hu = openkbp.read_patient(folder, ct=True).ct_hu
  assert ct_hu.shape == (128, 128, 128) and ct_hu.dtype == np.int16
  inside = np.zeros(ct_hu.shape, bool)
  inside[50:58, 40:48, 127 - 67 : 127 - 59] = True
  assert (ct_hu[~inside] == -1000).all()
  assert ct_hu[57, 47, 60] == 60  # left, posterior, inferior
  assert (ct_hu[inside] == 15).sum() == 511


def test_ct_numbers_are_averaged_on_a_coarse_grid(folder):
  write_ct(folder)
  ct_hu = openkbp.read_patient(folder, grid=(64, 64, 32), ct=True).ct_hu
  assert ct_hu.shape == (64, 64, 32)
  assert ct_hu[26, 21, 15] == 15 and ct_hu[24, 20, 15] == -1000
  assert ct_hu[28, 23, 15] == 18  # 15 + 45 / 16


@pytest.mark.parametrize('value', [-3.0, 4096.0, 'x'])
def test_faulty_ct_numbers_are_named(folder, value):
  write(folder, 'ct', [5, 6], [1000.0, value])
  with pytest.raises(errors.CohortError, match=r'ct\.csv'):
    openkbp.read_patient(folder, ct=True)


@pytest.mark.parametrize(
  'name, content, match',
  [
    ('dose', None, 'dose.csv is missing'),
    ('dose', ',data\n5,x\n', 'second column'),
    ('dose', ',data\n5,nan\n', 'not finite'),
    ('dose', ',data\n5,-3\n', 'negative'),
    ('dose', ',data\n5,0.7\n', '0.7 Gy, of a prescription of 70 Gy'),
    ('dose', f',data\n{VOXELS},3\n', 'outside'),
    ('SpinalCord', ',data\nx,\n', 'first column'),
    ('voxel_dimensions', '3\n0\n2\n', 'three positive'),
    ('voxel_dimensions', '3\n1e308\n2\n', 'at most 100 mm'),
    ('PTV70', None, 'has none of PTV56'),
  ],
)
def test_faulty_files_are_named(folder, name, content, match):
  path = folder / f'{name}.csv'
  path.unlink() if content is None else path.write_text(content)
  with pytest.raises(errors.CohortError, match=match):
    openkbp.read_patient(folder)


def test_other_grids_and_empty_roots(folder, tmp_path):
  with pytest.raises(errors.ConfigError, match='divide'):
    openkbp.read_patient(folder, grid=(100, 64, 64))
  with pytest.raises(errors.CohortError, match='no folder pt_N'):
    openkbp.find_patients(folder)
