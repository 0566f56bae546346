"""Doses that add up to a plan, and plans that add up to a course."""

import re

import numpy as np
import pytest
import synthetic_dicom as synthetic

from dvhflax import errors
from dvhflax.io import importing
from dvhflax.io.dicom import reader as dicom
from dvhflax.patient import Structure

NAMES = ('body', 'PTV')
SETTINGS = importing.Settings(
  tuple(map(Structure.from_name, NAMES)), (8, 8, 8), (5.0, 5.0, 5.0)
)
# Along x of the grid, in mm.
X = 5 * (np.arange(8) - 3.5)


def linear(at_0, per_mm):
  """`[X, Y, Z]` Gy on 13 planes of 10 mm each way."""
  x = 10.0 * np.arange(13) - 60
  values = at_0 + per_mm * x
  return np.broadcast_to(values[:, None, None], (13, 13, 13)).copy()


def write(folder, doses, plans):
  """Writes structures, doses and plans: `{name: (Gy, RTPLAN, summation)}`."""
  structures = {
    'Body': synthetic.cylinder(40, 30, 5.0, points=24),
    'PTV': synthetic.cylinder(10, 10, 5.0, points=24),
  }
  synthetic.save(synthetic.structure_set(structures), folder / 'a')
  for number, (name, (values, plan, summation, *part)) in enumerate(
    doses.items()
  ):
    dataset = synthetic.dose(
      values,
      origin=(-60.0, -60.0, -60.0),
      spacing=(10.0, 10.0, 10.0),
      uid=f'1.2.8.{number}',
      plan=plan,
      DoseSummationType=summation,
    )
    if part:
      synthetic.refer_to_part(dataset, *part)
    synthetic.save(dataset, folder / name)
  for name, (gy, options) in plans.items():
    synthetic.save(
      synthetic.plan(gy, uid=f'1.2.7.{name}', **options), folder / f'plan{name}'
    )
  return folder


def read(folder, **options):
  """The patient, the notes, and why files were skipped, in one text."""
  (found,), skipped = dicom.find_patients(folder, **options)
  case = dicom.read_patient(found, NAMES)
  patient, entry = importing.assemble(case, SETTINGS)
  return patient, ' | '.join(entry['notes'] + [one.why for one in skipped])


def why(folder, **options):
  """Why there is no plan, in one text."""
  found, skipped = dicom.find_patients(folder, **options)
  text = ' | '.join(one.why for one in skipped)
  for one in found:
    with pytest.raises(errors.CohortError) as caught:
      importing.assemble(dicom.read_patient(one, NAMES), SETTINGS)
    text += f' | {caught.value}'
  return text


def assert_dose(patient, at_0, per_mm, reference):
  np.testing.assert_allclose(patient.reference_gy, [reference])
  wanted = np.broadcast_to((at_0 + per_mm * X)[:, None, None], (8, 8, 8))
  np.testing.assert_allclose(patient.dose[0] * reference, wanted, rtol=1e-5)


@pytest.fixture
def phases(tmp_path):
  """25 Gy to all of it, then a boost of 15 Gy."""
  return write(
    tmp_path,
    {
      'd1': (linear(25, 0.0), '1.2.7.1', 'PLAN'),
      'd2': (linear(15, 0.1), '1.2.7.2', 'PLAN'),
    },
    {
      '1': (25.0, {'groups': {1: (10, [1])}}),
      '2': (15.0, {'groups': {1: (6, [1])}}),
    },
  )


def test_plans_of_other_prescriptions_are_remarked(phases):
  patient, text = read(phases)
  # A patient has one prescription, and doses are fractions of it.
  np.testing.assert_array_equal(patient.reference_gy, [25, 25])
  assert patient.prescription_gy == 25
  assert (
    'the prescriptions of the plans differ (d1: 25 Gy in 10 fractions, d2: 15 '
    'Gy in 6 fractions)' in text
  )
  assert 'cohort.sum_plans' in text


def test_plans_of_one_prescription_are_not_remarked(tmp_path):
  folder = write(
    tmp_path,
    {
      'd1': (linear(25, 0.0), '1.2.7.1', 'PLAN'),
      'd2': (linear(25, 0.1), '1.2.7.2', 'PLAN'),
    },
    {'1': (25.0, {}), '2': (25.0, {})},
  )
  patient, text = read(folder)
  assert len(patient.dose) == 2 and 'differ' not in text


def test_a_course_is_the_sum_of_its_phases(phases):
  patient, text = read(phases, sum_plans=True)
  assert_dose(patient, 40, 0.1, 40)
  (plan,) = patient.provenance['plans']
  assert plan['label'] == 'd1 + d2' and plan['uids'] == ['1.2.8.0', '1.2.8.1']
  assert sorted(plan['rtplans']) == ['1.2.7.1', '1.2.7.2']
  assert 'are added, 25 + 15 Gy' in text and 'differ' not in text


def test_a_phase_without_a_dose_is_remarked(phases):
  synthetic.save(synthetic.plan(5.0, uid='1.2.7.3'), phases / 'plan3')
  _, text = read(phases, sum_plans=True)
  assert 'plan3: no dose of this RTPLAN is here' in text


def test_a_course_without_all_prescriptions_has_none(phases):
  (phases / 'plan2').unlink()
  patient, text = read(phases, sum_plans=True)
  assert_dose(patient, 40, 0.1, 40)  # the mean of the target
  assert 'not all of its RTPLANs tell' in text


def test_two_doses_of_a_phase_make_no_course(phases):
  again = synthetic.dose(
    linear(25, 0.0),
    spacing=(10.0, 10.0, 10.0),
    uid='1.2.8.9',
    plan='1.2.7.1',
  )
  synthetic.save(again, phases / 'd3')
  assert 'd1 and d3 are of one RTPLAN: keep one' in why(phases, sum_plans=True)
  assert len(read(phases)[0].dose) == 3


def test_the_dose_of_a_course_stands_for_its_phases(phases):
  dataset = synthetic.dose(
    linear(40, 0.1),
    spacing=(10.0, 10.0, 10.0),
    uid='1.2.8.9',
    plan='1.2.7.1',
    DoseSummationType='MULTI_PLAN',
  )
  dataset.ReferencedRTPlanSequence += [
    synthetic.plan(1.0).ReferencedStructureSetSequence[0]
  ]
  dataset.ReferencedRTPlanSequence[1].ReferencedSOPInstanceUID = '1.2.7.2'
  synthetic.save(dataset, phases / 'total')
  patient, text = read(phases)
  assert len(patient.dose) == 2 and 'MULTI_PLAN' in text
  patient, text = read(phases, sum_plans=True)
  assert_dose(patient, 40, 0.1, 40)
  assert text.count('a part of the course that total is the dose of') == 2


def test_prescriptions_of_a_patient_without_a_dose(phases):
  (phases / 'd1').unlink()
  (phases / 'd2').unlink()
  (found,), _ = dicom.find_patients(phases, dose_optional=True)
  case = dicom.read_patient(found, NAMES)
  assert case.prescription_gy == 25
  assert any('prescribe 15 and 25 Gy; the highest' in n for n in case.notes)


def test_doses_of_fraction_groups_are_added(tmp_path):
  """FRACTION is the whole delivery of a group (PS3.3 C.8.8.3)."""
  folder = write(
    tmp_path,
    {
      'd1': (linear(30, 0.0), '1.2.7.1', 'FRACTION', 1),
      'd2': (linear(10, 0.2), '1.2.7.1', 'FRACTION', 2),
    },
    {'1': (40.0, {'groups': {1: (15, [1]), 2: (5, [2])}})},
  )
  assert 'cohort.sum_fractions' in why(folder)
  patient, _ = read(folder, sum_fractions=True)
  assert_dose(patient, 40, 0.2, 40)
  (folder / 'd2').unlink()
  assert re.search(
    r'doses of fraction groups 1, but .*plan1 has groups 1, 2',
    why(folder, sum_fractions=True),
  )


def test_the_dose_of_one_fraction_counts_for_all(tmp_path):
  folder = write(
    tmp_path,
    {'d1': (linear(2, 0.01), '1.2.7.1', 'FRACTION_SESSION', 1)},
    {'1': (40.0, {'groups': {1: (20, [1])}})},
  )
  assert 'cohort.sum_fractions' in why(folder)
  patient, text = read(folder, sum_fractions=True)
  assert_dose(patient, 40, 0.2, 40)
  assert 'd1: the dose of one fraction, times 20' in text
  (folder / 'plan1').unlink()
  assert 'add the RTPLAN' in why(folder, sum_fractions=True)


@pytest.mark.parametrize(
  'fractions, match',
  [(0, 'must be > 0'), (999, 'already the dose of all fractions')],
)
def test_impossible_numbers_of_fractions(tmp_path, fractions, match):
  folder = write(
    tmp_path,
    {'d1': (linear(40, 0.1), '1.2.7.1', 'FRACTION_SESSION', 1)},
    {'1': (40.0, {'groups': {1: (fractions, [1])}})},
  )
  assert match in why(folder, sum_fractions=True)


def test_beams_that_image_have_no_dose(tmp_path):
  doses = {
    'd1': (linear(15, 0.0), '1.2.7.1', 'BEAM', 1, 1),
    'd2': (linear(25, 0.3), '1.2.7.1', 'BEAM', 1, 2),
  }
  plans = {'1': (40.0, {'groups': {1: (20, [1, 2, 3])}, 'imaging': (3,)})}
  folder = write(tmp_path, doses, plans)
  assert_dose(read(folder, sum_beams=True)[0], 40, 0.3, 40)


@pytest.mark.parametrize(
  'beams, match',
  [
    ([1, 1], 'two doses of beam 1'),
    ([1, 3], 'but none of beam 2'),
    ([1], 'but none of beam 2'),
  ],
)
def test_each_beam_has_one_dose(tmp_path, beams, match):
  doses = {
    f'd{i}': (linear(20, 0.0), '1.2.7.1', 'BEAM', 1, beam)
    for i, beam in enumerate(beams)
  }
  plans = {'1': (40.0, {'groups': {1: (20, [1, 2])}})}
  folder = write(tmp_path, doses, plans)
  assert match in why(folder, sum_beams=True)


def test_a_faulty_sum_does_not_cost_the_other_plans(tmp_path):
  folder = write(
    tmp_path,
    {
      'd1': (linear(40, 0.1), '1.2.7.1', 'PLAN'),
      'd2': (linear(20, 0.0), '1.2.7.2', 'BEAM', 1, 1),
    },
    {'1': (40.0, {}), '2': (40.0, {'groups': {1: (20, [1, 2])}})},
  )
  patient, text = read(folder, sum_beams=True)
  assert_dose(patient, 40, 0.1, 40)
  assert re.search('plan d2 left out: .*none of beam 2', text)
