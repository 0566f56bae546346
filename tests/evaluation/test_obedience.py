"""Obedience: networks whose answers are known."""

import types

from conftest import make_patient, write_cohort
import numpy as np
import pytest

from dvhflax.cohort.store import Cohort
from dvhflax.evaluation import obedience, own_wishes
from dvhflax.evaluation.dose_metrics import PlanMetrics

RNG = np.random.default_rng(0)
PATIENTS = np.repeat([3, 5], 20)
WISHED = RNG.uniform(20, 60, 40) + 30 * (PATIENTS == 5)


def nearest_dose(cohort, share=1.0):
  """A network that answers with a plan of the patient's own.

  Args:
    cohort: the test patients are asked for in order.
    share: of the way from the patient's mean dose to the nearest plan.
  """
  patients = iter(cohort.split('test'))

  def predict(masks, wishes):
    p = next(patients)
    curves = cohort.dvh[p][cohort.valid[p]]
    doses = cohort.doses(p)
    for wish in wishes:
      n = np.abs(curves - wish).sum((1, 2)).argmin()
      yield share * doses[n] + (1 - share) * doses.mean(0)

  return predict


def asked(cohort, predict):
  answers, _ = own_wishes.ask(
    predict, cohort, cohort.split('test'), 36, PlanMetrics(cohort)
  )
  return obedience.summary(answers, [s.name for s in cohort.structures])


def test_a_network_that_obeys_has_slope_1_and_no_error(cohort):
  found = asked(cohort, nearest_dose(cohort))
  rectum = found['structures']['rectum']
  assert found['wishes'] == 7 and found['patients'] == 2
  assert rectum['slope']['mean_dose'] == pytest.approx(1)
  assert rectum['slope']['V50%'] == pytest.approx(1)
  assert rectum['right_order'] == 1 and rectum['order_pairs'] == 3 + 6
  for dose in ('mean_dose', 'max_dose'):
    assert rectum[dose]['absolute_mean'] == 0
  # The target has its mean whatever is wished; its slope says nothing.
  assert found['structures']['PTV']['slope']['mean_dose'] is None
  assert found['structures']['PTV']['cross_talk'] == pytest.approx(0)
  front = found['front']
  assert front['from_plans'] == front['from_wish'] == 0
  assert front['between_plans'] > 0
  # Predictions are plans: they dominate as often.
  assert front['dominated'] == pytest.approx(front['plans_dominated'])
  assert front['beyond'] == pytest.approx(front['plans_beyond'])


def test_a_network_that_ignores_the_wish_has_slope_0(cohort):
  found = asked(cohort, nearest_dose(cohort, 0.0))
  rectum = found['structures']['rectum']
  assert rectum['slope']['mean_dose'] == pytest.approx(0, abs=1e-5)
  assert rectum['mean_dose']['std'] > 5
  assert found['front']['from_plans'] < found['front']['from_wish']


def test_a_network_that_goes_half_the_way_has_slope_a_half(cohort):
  found = asked(cohort, nearest_dose(cohort, 0.5))
  rectum = found['structures']['rectum']
  assert rectum['slope']['mean_dose'] == pytest.approx(0.5, abs=1e-4)
  assert rectum['right_order'] == 1


def test_a_patient_without_an_organ_counts_for_the_others(tmp_path):
  patients = [make_patient(i, plans=5) for i in range(4)]
  patients[3] = make_patient(3, plans=5, lacking=(1,))
  path = tmp_path / 'cohort'
  write_cohort(path, patients, ['train', 'validation', 'test', 'test'])
  found = asked(Cohort.open(path), nearest_dose(Cohort.open(path)))
  assert found['wishes'] == 10
  rectum = found['structures']['rectum']
  assert rectum['mean_dose']['samples'] == 5 and rectum['order_pairs'] == 10
  assert rectum['slope']['mean_dose'] == pytest.approx(1)
  assert found['structures']['body']['mean_dose']['samples'] == 10


def test_mimicked_predictions_are_of_all_patients_in_turn(cohort, monkeypatch):
  mimicked = []

  def mimic_dose(_, patient, dose_gy):
    mimicked.append(patient)
    assert dose_gy.min() >= 0
    percent = {'mean_absolute': float(len(mimicked))}
    return types.SimpleNamespace(difference={'rectum': percent})

  monkeypatch.setattr(own_wishes.mimic, 'mimic_dose', mimic_dose)
  test = cohort.split('test')
  _, deliverable = own_wishes.ask(
    nearest_dose(cohort, 1.0), cohort, test, 36, PlanMetrics(cohort), 3
  )
  assert mimicked == [test[0], test[0], test[1]]
  assert deliverable == [{'rectum': 1.0}, {'rectum': 2.0}, {'rectum': 3.0}]


def test_slope_is_that_of_a_fit_with_an_intercept_for_each_patient():
  achieved = 0.7 * WISHED + RNG.normal(0, 3, 40) + 11 * (PATIENTS == 3)
  design = np.stack([WISHED, PATIENTS == 3, PATIENTS == 5], 1)
  fit = np.linalg.lstsq(design.astype(float), achieved)[0]
  found = obedience.slope(WISHED, achieved, PATIENTS)
  assert found == pytest.approx(fit[0])
  # Patients that differ are no answer to a wish.
  means = np.where(PATIENTS == 5, 70.0, 40.0)
  assert obedience.slope(WISHED, means, PATIENTS) == 0


def test_no_slope_of_wishes_that_hardly_vary():
  still = 50 + 0.1 * np.sin(np.arange(40)) + 20 * (PATIENTS == 5)
  assert np.isnan(obedience.slope(still, WISHED, PATIENTS))
  absent = np.full(40, np.nan)
  assert np.isnan(obedience.slope(absent, absent, PATIENTS))


def test_right_order_counts_pairs_of_a_patient_that_differ_enough():
  patients = np.array([0, 0, 0, 0, 1, 1])
  wished = np.array([10.0, 10.5, 20.0, 30.0, 5.0, 50.0])
  # 20 and 30 are answered alike, all others in order.
  achieved = np.array([1.0, 9.0, 12.0, 12.0, 99.0, 100.0])
  share, pairs = obedience.right_order(wished, achieved, patients)
  assert pairs == 5 + 1 and share == pytest.approx(5 / 6)
  share, pairs = obedience.right_order(wished, -achieved, patients)
  assert share == 0
  share, pairs = obedience.right_order(wished[:2], achieved[:2], patients[:2])
  assert np.isnan(share) and pairs == 0


def test_cross_talk_is_what_a_structure_moves_for_another():
  patients = np.zeros(3, int)
  # Pairs: (0, 1) in a alone, (0, 2) in both, (1, 2) in b alone.
  wished = np.array([[10.0, 40.0], [20.0, 40.2], [20.1, 50.0]])
  achieved = np.array([[10.0, 40.0], [15.0, 43.2], [16.1, 50.0]])
  moved, pairs = obedience.cross_talk(wished, achieved, patients)
  np.testing.assert_array_equal(pairs, [1, 1])
  np.testing.assert_allclose(moved, [1.0, 3.0])


def test_dominated_and_beyond():
  plans, covered = np.array([[10.0, 30.0], [20.0, 20.0]]), np.full((2, 1), 98.0)

  def shares(dose, coverage=98.0):
    dominated, beyond = obedience.shares(
      np.array([dose]), np.array([[coverage]]), plans, covered
    )
    return dominated[0], beyond[0]

  assert shares([11.0, 31.0]) == (True, False)
  assert shares([11.0, 31.0], 98.05) == (True, False)
  # Better covered: no plan is better in all.
  assert shares([11.0, 31.0], 98.2) == (False, False)
  # Lower by rounding only.
  assert shares([10.04, 30.04]) == (False, False)
  assert shares([15.0, 25.0]) == (False, False)
  assert shares([10.0, 29.0]) == (False, True)
  assert shares([9.9, 29.9]) == (False, False)
  assert shares([10.0, 29.0], 97.8) == (False, False)
  assert shares([np.nan, np.nan]) == (False, False)
