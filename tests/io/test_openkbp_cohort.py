"""Cohorts of OpenKBP folders: faulty patients, copies, and who is tested."""

import json

import numpy as np
import pytest
from test_openkbp import block, write

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.io import openkbp
from dvhflax.sources import build as build_lib
from dvhflax.sources.build import build_cohort
from dvhflax.sources.splits import split_patients

TARGET = block((40, 50, 60), 16)
PTV_GY = 70.0


def write_patient(folder):
  folder.mkdir(parents=True)
  write(folder, 'PTV70', TARGET)
  write(folder, 'possible_dose_mask', TARGET)
  write(folder, 'dose', TARGET, [PTV_GY] * len(TARGET))
  (folder / 'voxel_dimensions.csv').write_text('3.5\n3.5\n2.0\n')
  return folder


@pytest.fixture
def root(tmp_path):
  for n in (1, 2, 3, 4, 10):
    write_patient(tmp_path / 'raw' / 'train-pats' / f'pt_{n}')
  return tmp_path / 'raw'


def make_config(root, **cohort):
  config = config_lib.default()
  config.cohort.source, config.cohort.plans = 'openkbp', 0
  config.cohort.normalisation = 'prescription'
  config.cohort.raw = str(root)
  config.cohort.path = str(root.parent / 'cohort')
  config.cohort.grid = (16, 16, 16)
  config.cohort.validation_patients = 1
  config.cohort.test_patients = 1
  config.cohort.update(cohort)
  return config


def splits_of(cohort):
  return {record.id: record.split for record in cohort.patients}


def test_one_faulty_patient_does_not_stop_the_others(root, capsys):
  (root / 'train-pats' / 'pt_3' / 'possible_dose_mask.csv').unlink()
  dose = root / 'train-pats' / 'pt_4' / 'dose.csv'
  dose.write_text(dose.read_text() + '5,-0.5\n')
  assert build_cohort(make_config(root))
  assert 'skipped: 1, see' in capsys.readouterr().err
  cohort = Cohort.open(str(root.parent / 'cohort'))
  assert [p.id for p in cohort.patients] == ['pt_1', 'pt_2', 'pt_4', 'pt_10']
  assert cohort.metadata.provenance['patients'] == 4
  for p in range(4):
    assert cohort.dose(p, 0).max() == pytest.approx(PTV_GY / 70)
  report = (root.parent / 'cohort.import.txt').read_text()
  assert 'skipped patient pt_3' in report
  assert 'possible_dose_mask.csv is missing' in report
  assert 'note: dose.csv: 1 voxels of down to -0.5 Gy' in report
  entries = json.loads((root.parent / 'cohort.import.json').read_text())
  assert len(entries['patients']) == 4 and len(entries['skipped']) == 1


def test_copies_in_a_folder_of_macos_are_passed_over(root):
  """AppleDouble files in an archive (OpenNeuro issue 2520)."""
  copies = root / '__MACOSX' / 'train-pats' / 'pt_1'
  copies.mkdir(parents=True)
  (copies / '._dose.csv').write_bytes(bytes(120))
  (root / 'train-pats' / '._pt_2').write_bytes(bytes(120))
  found, skipped = openkbp.find_patients(root)
  assert [folder.parent.name for folder in found] == 5 * ['train-pats']
  assert not skipped


def test_two_folders_of_a_name(root):
  write_patient(root / 'again' / 'pt_2')
  found, skipped = openkbp.find_patients(root)
  assert [folder.name for folder in found] == ['pt_1', 'pt_3', 'pt_4', 'pt_10']
  assert skipped[0].what == 'patient pt_2'
  assert 'keep one of' in skipped[0].why


def test_no_patient_is_left(root):
  for folder in (root / 'train-pats').iterdir():
    (folder / 'dose.csv').write_text('')
  with pytest.raises(errors.CohortError, match=r'pt_1: .*dose\.csv'):
    build_cohort(make_config(root))
  (root / 'train-pats' / 'pt_1' / 'dose.csv').unlink()
  with pytest.raises(errors.ConfigError, match='divide'):
    build_cohort(make_config(root, grid=(256, 16, 16)))


def test_too_few_are_left(root):
  for n in (1, 2, 3):
    (root / 'train-pats' / f'pt_{n}' / 'PTV70.csv').unlink()
  with pytest.raises(
    errors.ConfigError, match='2 patients leave no training patients'
  ):
    build_cohort(make_config(root))


def test_the_others_keep_their_split():
  whole = split_patients(10, 2, 3, seed=0)
  for lost in range(10):
    usable = [i for i in range(10) if i != lost]
    left = split_patients(10, 2, 3, 0, usable)
    assert [left.count(s) for s in ('test', 'validation')] == [3, 2]
    before = [whole[i] for i in usable]
    moved = sorted((a, b) for a, b in zip(before, left) if a != b)
    # The next in line takes the place of who fell out.
    assert moved in (
      [],
      [('train', 'validation')],
      [('train', 'validation'), ('validation', 'test')],
    )


def test_a_cohort_without_the_faulty_one(root):
  assert build_cohort(make_config(root))
  whole = splits_of(Cohort.open(str(root.parent / 'cohort')))
  trained = [name for name, split in whole.items() if split == 'train']
  (root / 'train-pats' / trained[0] / 'dose.csv').unlink()
  config = make_config(root, path=str(root.parent / 'again'))
  assert build_cohort(config)
  left = splits_of(Cohort.open(config.cohort.path))
  assert left == {n: s for n, s in whole.items() if n != trained[0]}


def test_patients_are_read_once(root, monkeypatch):
  read, names = openkbp.read_patient, []

  def counted(folder, **options):
    names.append(folder.name)
    return read(folder, **options)

  monkeypatch.setattr(openkbp, 'read_patient', counted)
  assert not build_lib.build_cohort(make_config(root), (0, 2))
  assert len(names) == 5
  names.clear()
  assert build_lib.build_cohort(make_config(root), (1, 2))
  assert len(names) == 5


@pytest.mark.parametrize(
  'values, match',
  [
    ([7000.0, 60.0], 'cGy'),
    ([70.0, -2.0], 'negative'),
    ([70.0, 60.0, 3.0], 'more than one value'),
  ],
)
def test_doses_that_cannot_be(tmp_path, values, match):
  folder = write_patient(tmp_path / 'pt_1')
  write(folder, 'dose', [5, 6, 6][: len(values)], values)
  with pytest.raises(errors.CohortError, match=match):
    openkbp.read_patient(folder)


@pytest.mark.parametrize(
  'dtype, bound_gy', [('float16', 0.0342 + 1e-4), ('float32', 1e-4)]
)
def test_how_precisely_doses_are_stored(root, dtype, bound_gy):
  """Half a step between 1.0 and 2.0, which is 70 to 140 Gy.

  The import computes in float32, good to 1e-4 Gy.
  """
  rng = np.random.default_rng(0)
  # Blocks of one dose, that the coarser grid keeps.
  for folder in (root / 'train-pats').iterdir():
    whole = block((40, 48, 64), 8)
    write(folder, 'dose', whole, len(whole) * [70 * (1 + rng.random())])
  config = make_config(root, dose_dtype=dtype)
  config_lib.validate(config)
  assert build_cohort(config)
  cohort = Cohort.open(config.cohort.path)
  off = []
  for p, record in enumerate(cohort.patients):
    folder = root / 'train-pats' / record.id
    wanted = float((folder / 'dose.csv').read_text().split(',')[-1])
    off.append(abs(70 * float(cohort.dose(p, 0).max()) - wanted))
  assert max(off) <= bound_gy and (dtype == 'float32' or max(off) > 1e-3)
  config.cohort.dose_dtype = 'float32'
  if dtype == 'float16':
    with pytest.raises(errors.CohortError, match=r'cohort\.dose_dtype'):
      build_lib.open_checked(config)
  else:
    assert build_lib.open_checked(config).metadata.dose_dtype == dtype


def test_other_types_of_doses_are_refused(root):
  with pytest.raises(errors.ConfigError, match=r'cohort\.dose_dtype'):
    config_lib.validate(make_config(root, dose_dtype='float64'))
