"""Labels among few plans, and the floor that they set."""

import dataclasses

from conftest import SPLITS, make_patient, write_cohort
import numpy as np
import pytest

from dvhflax import config as config_lib
from dvhflax import metrics
from dvhflax.cohort.store import Cohort
from dvhflax.evaluation import few_plans, label_tables, measuring
from dvhflax.evaluation.dose_metrics import PlanMetrics
from dvhflax.planning import pareto
from dvhflax.sites import PROSTATE
from dvhflax.training.sampler import Sampler

FEW = 4


@pytest.fixture(scope='module')
def dense(tmp_path_factory) -> Cohort:
  """Test patients have 12 and 13 plans, others three; one lacks a rectum."""
  path = tmp_path_factory.mktemp('dense') / 'cohort'
  patients = [
    make_patient(i, plans=3 if split != 'test' else 6 + i)
    for i, split in enumerate(SPLITS)
  ]
  patients[1] = make_patient(1, plans=2, lacking=(1,))
  write_cohort(path, patients, SPLITS)
  return Cohort.open(path)


@pytest.fixture(scope='module')
def samples(dense):
  sampler = Sampler(dense, 'test', seed=0, own_wish_share=0.5)
  return sampler.samples(sampler.fixed(20))


def test_plans_are_those_that_a_planner_would_choose(dense):
  p = int(dense.split('test')[0])
  chosen = few_plans.spread_plans(dense, p, FEW)
  assert len(set(chosen)) == FEW and chosen.max() < dense.patients[p].plans
  curves = dense.dvh[p][dense.valid[p]].reshape(12, -1)
  apart = np.abs(curves[:, None] - curves[None]).sum(-1)
  np.testing.assert_array_equal(chosen, pareto.choose(apart, FEW, 0))
  np.testing.assert_array_equal(
    few_plans.spread_plans(dense, p, 99), np.arange(12)
  )


def test_anchors_of_planned_patients_are_chosen(dense):
  p = int(dense.split('test')[0])
  record = dataclasses.replace(
    dense.patients[p], provenance={'protocol': PROSTATE.protocol.to_dict()}
  )
  planned = Cohort.open(dense.path)
  records = list(dense.patients)
  records[p] = record
  planned.metadata = dataclasses.replace(
    dense.metadata, patients=tuple(records)
  )
  # Of the rectum and the body: the middle and the rectum spared.
  assert few_plans.spread_plans(planned, p, FEW)[:2].tolist() == [0, 1]
  assert few_plans.spread_plans(dense, p, FEW)[:2].tolist() != [0, 1]


def test_labels_among_all_are_those_of_the_sampler(dense, samples):
  labels = few_plans.labels_among(dense, samples, 13)
  np.testing.assert_array_equal(labels, samples.labels)


def test_floor_is_that_of_brute_force(dense, samples):
  labels = few_plans.labels_among(dense, samples, FEW)
  off = few_plans.floor(dense, samples, labels, PlanMetrics(dense))
  assert (labels != samples.labels).any()
  for m, (p, wish) in enumerate(zip(samples.patients, samples.desired_dvh)):
    both = dense.present[p] & dense.present[samples.wish_patients[m]]
    apart = np.abs(dense.dvh[p] - wish)[:, both].sum((1, 2))
    few = min(few_plans.spread_plans(dense, p, FEW), key=lambda n: apart[n])
    assert labels[m] == few
    best = apart[dense.valid[p]].argmin()
    masks = dense.masks(p)
    mean, top = metrics.dose_errors(
      dense.dose(p, few), dense.dose(p, best), masks, dense.present[p]
    )
    np.testing.assert_allclose(off.mean_error[m], mean, atol=1e-4)
    np.testing.assert_allclose(off.max_error[m], top, atol=1e-4)
    gy = dense.patients[p].reference_gy[few] * dense.dose(
      p, few
    ) - dense.patients[p].reference_gy[best] * dense.dose(p, best)
    np.testing.assert_allclose(
      off.mean_error_gy[m][1], gy[masks[..., 1] > 0].mean(), atol=1e-3
    )


def test_errors_against_few_labels_need_no_second_prediction(dense, samples):
  def predict(masks, wishes):
    for wish in wishes:
      yield np.full(dense.grid, wish[1].mean(), np.float32)

  predicts = {'network': (predict, samples.desired_dvh)}
  labels = few_plans.labels_among(dense, samples, FEW)
  off = few_plans.floor(dense, samples, labels, PlanMetrics(dense))
  results, _ = measuring.measure(predicts, dense, samples)
  found = few_plans.relabelled(results['network'], off)
  relabelled = dataclasses.replace(samples, labels=labels)
  wanted, _ = measuring.measure(predicts, dense, relabelled)
  for name, values in vars(wanted['network']).items():
    np.testing.assert_allclose(getattr(found, name), values, atol=1e-3)


def test_the_perfect_network_has_the_floor_as_its_error(dense, samples):
  """With labels among all it has none, with labels among few just the floor."""
  patients = iter(dense.split('test'))

  def predict(masks, wishes):
    p = next(patients)
    for label in samples.labels[samples.patients == p]:
      yield dense.dose(p, label)

  plans = PlanMetrics(dense)
  results, _ = measuring.measure(
    {'network': (predict, samples.desired_dvh)}, dense, samples, plans
  )
  options = config_lib.default().evaluation
  options.label_plans = FEW
  found = label_tables.tables(dense, samples, results, options, plans)
  of_all = found.numbers['table1']['network']['structures']['rectum']
  assert of_all['mean_dose']['absolute_mean'] == pytest.approx(0, abs=1e-6)
  few = found.numbers['label_plans']
  of_few = few['table1']['network']['structures']['rectum']['mean_dose']
  assert of_few['std'] == pytest.approx(
    few['floor']['rectum']['mean_dose']['std']
  )
  assert of_few['std'] > 1
  assert few['std_over_floor']['rectum']['mean_dose'] == pytest.approx(1)
  for text in (found.text, found.markdown):
    assert text.count('Dose errors') == 2 and text.count('ratio') >= 2
    assert text.count('floor of 4 plans: dose of the label') == 2
    assert 'rectum 1.00' in text


def test_no_floor_without_more_plans(dense, samples):
  zeros = np.zeros((len(samples.patients), 3))
  results = {'network': measuring.SampleErrors(zeros, zeros)}
  options = config_lib.default().evaluation
  for count, why in ((13, 'no patient has more than'), (0, '=0')):
    options.label_plans = count
    found = label_tables.tables(
      dense, samples, results, options, PlanMetrics(dense)
    )
    assert 'label_plans' not in found.numbers
    assert found.text.count('Dose errors') == 1
    assert f'no floor: {"evaluation.label_plans" if not count else ""}' in (
      found.text
    )
    assert why in found.text
