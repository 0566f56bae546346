"""The Gy that come out are those of the plan that the network returns."""

import dataclasses
import json
import zipfile

from conftest import COVERED_GY, GRID, STRUCTURES, make_patient
import nibabel
import numpy as np
import pytest

from dvhflax import dose_volume, errors
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.validate import validate_cohort
from dvhflax.cohort.writer import METADATA, CohortWriter
from dvhflax.dvh import DVHSpec
from dvhflax.evaluation.predict import predict
from dvhflax.io.dicom import rtdose
from dvhflax.normalisation import (
  DoseReference,
  Normalisation,
  highest_target,
  renormalised,
)
from dvhflax.report import prediction
from dvhflax.training.runs import Network
from dvhflax.tuning import dose_file, wish
from dvhflax.tuning.session import Session

SPLITS = ['train', 'train', 'validation', 'test', 'test']
# Of the two test patients.
PRESCRIPTIONS = {'p3': 78.0, 'p4': 60.0}
# Gy that a DVH vector may be off by where all voxels have one dose.
HALF_A_LEVEL = 0.5 * 1.3 / 31 * 86
POINTS = ('rectum V30 <= 10%', 'rectum mean <= 20 Gy', 'PTV V95% >= 99%')


def patients_of_two_prescriptions():
  """Plans are alike in fractions of their prescription, 60 or 78 Gy."""
  patients = [make_patient(i) for i in range(5)]
  for i in (1, 4):
    patients[i] = dataclasses.replace(
      patients[i],
      prescription_gy=60.0,
      reference_gy=patients[i].reference_gy * 60 / 78,
    )
  return patients


def write(path, kind, dtype='float32'):
  patients = patients_of_two_prescriptions()
  writer = CohortWriter(
    str(path),
    structures=STRUCTURES,
    grid=GRID,
    dvh=DVHSpec(points=32, max_dose=1.3),
    max_plans=3,
    patient_ids=[p.id for p in patients],
    splits=SPLITS,
    provenance={'source': 'test'},
    dose_dtype=dtype,
    normalisation=Normalisation(kind),
  )
  for i, patient in enumerate(patients):
    writer.write(i, renormalised(patient, kind, STRUCTURES))
  assert writer.finish()
  return str(path)


@pytest.fixture(scope='module', params=['target_mean', 'prescription'])
def cohort(request, tmp_path_factory):
  path = tmp_path_factory.mktemp(request.param) / 'cohort'
  return Cohort.open(write(path, request.param))


def returning(cohort, patient, plan):
  """A network whose every dose is a stored plan."""
  dose = cohort.dose(cohort.index(patient), plan)
  return Network(
    encode=lambda masks: masks,
    decode=lambda features, desired: dose,
    mean_dvh=cohort.dvh[0, 0],
    identity={'workdir': 'stored', 'step': 0, 'weights_sha256': '0'},
  )


def plan_gy(patient, plan):
  """`[X, Y, Z]` Gy as the plan was made."""
  made = patients_of_two_prescriptions()[int(patient[1:])]
  return made.dose[plan] * made.reference_gy[plan]


@pytest.mark.parametrize('patient', PRESCRIPTIONS)
@pytest.mark.parametrize('plan', [0, 2])
def test_a_session_gives_the_plans_own_gy(cohort, patient, plan):
  one = Session(returning(cohort, patient, plan), cohort, patient)
  one.first_dose()
  wished, reference = wish.from_plan(
    cohort, patient, plan, one.present, PRESCRIPTIONS[patient]
  )
  step = one.tune(curves=wished, reference_gy=reference.gy)
  gy = plan_gy(patient, plan)
  np.testing.assert_allclose(step.dose_gy, gy, rtol=1e-3)
  prescribed = PRESCRIPTIONS[patient]
  for s, structure in enumerate(STRUCTURES):
    inside = gy[one.masks[..., s] > 0]
    row = step.metrics['achieved'][structure.name]
    asked = step.metrics['desired'][structure.name]
    assert row['mean'] == pytest.approx(inside.mean(), rel=1e-3)
    assert asked['mean'] == pytest.approx(inside.mean(), abs=HALF_A_LEVEL)
    assert row['max'] == pytest.approx(inside.max(), rel=1e-3)
    for percent in (98, 95, 2):
      expected = np.percentile(inside, 100 - percent)
      assert row[f'D{percent}%'] == pytest.approx(expected, rel=1e-3)
    levels = (95,) if structure.role == 'target' else (30, 50, 70, 90)
    for level in levels:
      share = 100 * np.mean(inside >= level / 100 * prescribed)
      assert row[f'V{level}%'] == pytest.approx(share, abs=0.1)
  target, (p95, half) = gy[one.masks[..., 2] > 0], (0.95, 0.5)
  ptv = step.metrics['achieved']['PTV']
  isodose = np.count_nonzero(gy >= p95 * prescribed)
  inside = np.count_nonzero(target >= p95 * prescribed)
  assert ptv['CI'] == pytest.approx(inside**2 / (target.size * isodose))
  assert ptv['R50'] == pytest.approx(
    np.count_nonzero(gy >= half * prescribed) / target.size
  )


@pytest.mark.parametrize('patient', PRESCRIPTIONS)
def test_points_are_judged_in_the_plans_own_gy(cohort, patient):
  one = Session(returning(cohort, patient, 1), cohort, patient)
  one.first_dose()
  step = one.tune(POINTS)
  gy = plan_gy(patient, 1)
  rectum, target = (gy[one.masks[..., s] > 0] for s in (1, 2))
  found = {p['asked']: p for p in step.metrics['points']}
  assert found[POINTS[0]]['achieved'] == pytest.approx(
    100 * np.mean(rectum >= 30), abs=0.1
  )
  assert found[POINTS[1]]['achieved'] == pytest.approx(rectum.mean(), rel=1e-3)
  assert found[POINTS[2]]['achieved'] == pytest.approx(
    100 * np.mean(target >= 0.95 * PRESCRIPTIONS[patient]), abs=0.1
  )
  # What was asked stands in the desired DVH at the same Gy.
  spec = cohort.dvh_spec
  curve = spec.curve(step.desired_dvh[1])
  at_30 = step.desired_reference.to_fraction(30.0)
  assert curve.volume_percent_at_dose(at_30) == pytest.approx(10, abs=1e-3)


@pytest.mark.parametrize('patient', PRESCRIPTIONS)
def test_all_files_have_the_plans_own_gy(cohort, patient, tmp_path):
  one = Session(returning(cohort, patient, 2), cohort, patient)
  step = one.first_dose()
  prediction.write(one, step, str(tmp_path), rtdose_bits=32)
  gy = plan_gy(patient, 2)
  image = nibabel.load(tmp_path / 'dose.nii.gz')
  np.testing.assert_allclose(image.get_fdata(), gy, rtol=1e-3)
  written = rtdose.read_dose(tmp_path / 'dose.dcm')
  np.testing.assert_allclose(written.values, gy, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(
    dose_file.read(str(tmp_path / 'dose.npz'), one.masks),
    gy,
    rtol=1e-3,
  )
  with open(tmp_path / 'metrics.json') as file:
    numbers = json.load(file)
  inside = gy[one.masks[..., 1] > 0]
  assert numbers['achieved']['rectum']['mean'] == pytest.approx(
    inside.mean(), rel=1e-3
  )
  assert numbers['prescription_gy'] == PRESCRIPTIONS[patient]
  rows = (tmp_path / 'dvh.csv').read_text().splitlines()
  name, _, _, volume, dose_gy = rows[1 + 32 + 8].split(',')
  assert name == 'rectum'
  assert float(volume) == pytest.approx(
    np.mean(inside >= float(dose_gy) - 1e-3), abs=1e-5
  )


def test_curves_in_gy_come_back_in_gy(cohort, tmp_path):
  """A plan's own DVH, given in Gy, is the wish that the plan's DVH is."""
  one = Session(returning(cohort, 'p4', 1), cohort, 'p4')
  gy = plan_gy('p4', 1)
  rows = ['structure,dose_gy,volume']
  levels = np.linspace(0, 80, 1601)
  for s, structure in enumerate(STRUCTURES):
    volume = dose_volume.volume_fraction_at_dose(
      gy[one.masks[..., s] > 0], levels
    )
    rows += [
      f'{structure.name},{d:.3f},{v:.6f}' for d, v in zip(levels, volume)
    ]
  path = tmp_path / 'wish.csv'
  path.write_text('\n'.join(rows))
  step = predict(one, str(path), None)
  assert step.desired_reference.gy == pytest.approx(step.reference.gy, rel=1e-3)
  for name, row in step.metrics['desired'].items():
    assert row['mean'] == pytest.approx(
      step.metrics['achieved'][name]['mean'], abs=HALF_A_LEVEL
    )


def test_float16_is_within_its_rounding(tmp_path):
  """Half of 2^-10 of a dose at most: 0.034 Gy between 64 and 70 Gy."""
  cohort = Cohort.open(write(tmp_path / 'half', 'prescription', 'float16'))
  assert cohort.metadata.dose_dtype == 'float16'
  for n in range(3):
    stored = cohort.reference(3, n).to_gy(cohort.dose(3, n))
    off = np.abs(stored - plan_gy('p3', n))
    assert off.max() <= 78 * 2.0**-11 * 1.05
    np.testing.assert_array_less(off, plan_gy('p3', n) * 2.0**-11 + 1e-4)


@pytest.mark.parametrize('kind', ['target_mean', 'prescription'])
def test_a_store_without_a_normalisation_is_recognised(kind, tmp_path):
  path = write(tmp_path / 'old', kind)
  expected = Cohort.open(path).normalisation
  with open(f'{path}/{METADATA}') as file:
    metadata = json.load(file)
  del metadata['normalisation']
  for patient in metadata['patients']:
    del patient['coverage_gy']
  with open(f'{path}/{METADATA}', 'w') as file:
    json.dump(metadata, file)
  found = Cohort.open(path).normalisation
  assert found.kind == expected.kind == kind
  for name, (mean, spread) in expected.coverage.items():
    assert found.coverage[name] == pytest.approx((mean, spread), abs=1e-5)
    assert mean == pytest.approx(COVERED_GY / 78) and spread < 1e-5
  assert Normalisation.from_json(found.to_json()) == found
  assert not validate_cohort(path)


def test_a_store_whose_references_are_not_what_it_says(tmp_path):
  path = write(tmp_path / 'c', 'prescription')
  with open(f'{path}/{METADATA}') as file:
    metadata = json.load(file)
  metadata['patients'][2]['reference_gy'][1] *= 1.09
  with open(f'{path}/{METADATA}', 'w') as file:
    json.dump(metadata, file)
  assert validate_cohort(path) == [
    'patient p2: plan 1: reference_gy is not the prescription'
  ]
  metadata['normalisation'] = {'kind': 'target_mean'}
  with open(f'{path}/{METADATA}', 'w') as file:
    json.dump(metadata, file)
  assert any(
    'its mean in PTV is 1.09' in fault for fault in validate_cohort(path)
  )


def test_the_writer_wants_the_prescription_where_it_is_told_so(tmp_path):
  patients = patients_of_two_prescriptions()
  writer = CohortWriter(
    str(tmp_path / 'c'),
    structures=STRUCTURES,
    grid=GRID,
    dvh=DVHSpec(),
    max_plans=3,
    patient_ids=[p.id for p in patients],
    splits=SPLITS,
    provenance={},
  )
  with pytest.raises(errors.CohortError, match=r'not the prescription, 78 Gy'):
    writer.write(0, patients[0])


def test_there_and_back_again():
  for patient in patients_of_two_prescriptions():
    other = renormalised(patient, 'prescription', STRUCTURES)
    assert (other.reference_gy == patient.prescription_gy).all()
    back = renormalised(other, 'target_mean', STRUCTURES)
    np.testing.assert_allclose(back.dose, patient.dose, rtol=1e-6)
    np.testing.assert_allclose(back.reference_gy, patient.reference_gy)
  reference = DoseReference(85.0, 78.0)
  assert reference.to_gy(reference.to_fraction(70.0)) == pytest.approx(70)
  assert reference.to_percent(reference.percent_to_fraction(95)) == (
    pytest.approx(95)
  )
  half = np.array([0.9], np.float16)
  assert reference.to_gy(half).dtype == np.float32


def test_doses_that_no_gy_follow_from():
  patient = make_patient(0)
  normalisation = Normalisation('target_mean', 95.0, {'PTV': (1.0, 0.02)})
  dark = np.zeros(GRID, np.float32)
  with pytest.raises(errors.SessionError, match='D95% of PTV is 0 of the mean'):
    normalisation.of_dose(dark, patient.masks, STRUCTURES, 78.0)
  lit = patient.dose[0]
  reference = normalisation.of_dose(lit, patient.masks, STRUCTURES, 78.0)
  assert reference.origin.endswith('(100 ± 2% of prescription)')
  other = dataclasses.replace(normalisation, coverage={'PTV63': (0.9, 0.0)})
  with pytest.raises(errors.SessionError, match='of no training patient'):
    other.of_dose(lit, patient.masks, STRUCTURES, 78.0)
  assert highest_target(STRUCTURES, [True, True, True]) == 2


def test_a_dose_of_another_patient_is_not_mimicked(tmp_path):
  cohort = Cohort.open(write(tmp_path / 'c', 'prescription'))
  one = Session(returning(cohort, 'p3', 0), cohort, 'p3')
  prediction.write(one, one.first_dose(), str(tmp_path))
  path = tmp_path / 'dose.npz'
  other = np.roll(one.masks, 1, axis=1)
  with pytest.raises(errors.UserError, match='was predicted for patient p3'):
    dose_file.read(str(path), other)
  whole = path.read_bytes()
  with np.load(path) as file:
    content = dict(file)
  for change in (
    {'reference_gy': 0.0}, {'reference_gy': [1.0, 2.0]}, {'dose': 'x'},
    {'dose': content['dose'] * 1e6}, {'dose': content['dose'] * 0},
    {'dose': -content['dose']}, {'dose': content['dose'] * np.nan},
    {'dose': content['dose'][:2]}, {'dose': content['dose'] * 1j},
    {'reference_gy': 1e308}, {'patient': 'x' * 10**5},
  ):  # fmt: skip
    np.savez_compressed(path, **{**content, **change})
    with pytest.raises(
      errors.UserError, match=r'is not a dose\.npz|was not written by'
    ):
      dose_file.read(str(path), one.masks)
  # A header that claims 3 PiB, and one that is no header.
  for fault in (b"{'descr': '<f8', 'fortran_order': False, 'shape': (4096,)}",
                b"{'descr': '<f8', "):  # fmt: skip
    with zipfile.ZipFile(path, 'w') as file:
      header = fault.replace(b'4096', b'4' * 14).ljust(118)
      magic = np.lib.format.magic(1, 0) + b'v\0'
      file.writestr('reference_gy.npy', magic + header)
    with pytest.raises(errors.UserError, match=r'is not a dose\.npz'):
      dose_file.read(str(path), one.masks)
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(errors.UserError, match=r'is not a dose\.npz'):
    dose_file.read(str(path), one.masks)
  np.save(tmp_path / 'a.npy', content['dose'])
  with pytest.raises(errors.UserError, match=r'is not a dose\.npz'):
    dose_file.read(str(tmp_path / 'a.npy'), one.masks)


def test_a_normalisation_that_is_none(tmp_path):
  path = write(tmp_path / 'c', 'prescription')
  with open(f'{path}/{METADATA}') as file:
    metadata = json.load(file)
  metadata['normalisation'] = {'kind': 'foo'}
  with open(f'{path}/{METADATA}', 'w') as file:
    json.dump(metadata, file)
  with pytest.raises(errors.CohortError, match="normalisation 'foo'"):
    Cohort.open(path)
