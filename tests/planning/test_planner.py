"""Plans: clinical limits, Pareto optimality, impossible patients."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from dvhflax.errors import PlanningError
from dvhflax.grid import Grid
from dvhflax.normalisation import DoseReference
from dvhflax.planning.mimic import differences, mimic
from dvhflax.planning.objectives import prescribed, sample_objectives
from dvhflax.planning.planner import plan_patient
from dvhflax.sites.prostate import PROTOCOL
from dvhflax.sites.protocol import Oar, Protocol
from dvhflax.sources.anatomy import sample_anatomy
from dvhflax.sources.simulated import simulate_patient

GRID, SPACING = (64, 64, 32), (7.5, 5.0, 6.0)
QUICK = dataclasses.replace(PROTOCOL, gap=0.5)


def draw(index):
  rng = np.random.default_rng([0, index])
  return dict(sample_anatomy(rng, GRID, SPACING).masks)


@pytest.fixture(scope='module')
def planned():
  masks = draw(1)
  return masks, plan_patient(masks, SPACING, 6, PROTOCOL)


def test_plans_are_normalised_and_clinical(planned):
  masks, plans = planned
  ptv = plans.dose_gy[:, masks['PTV'] > 0]
  np.testing.assert_allclose(np.quantile(ptv, 0.05, axis=1), 78, rtol=1e-4)
  rectum = plans.dose_gy[:, masks['rectum'] > 0]
  bladder = plans.dose_gy[:, masks['bladder'] > 0]
  # QUANTEC.
  assert ((rectum >= 50).mean(1) < 0.5).all()
  assert ((rectum >= 70).mean(1) < 0.2).all()
  assert ((bladder >= 65).mean(1) < 0.5).all()
  assert rectum.mean(1).std() > 0.04 * 78
  assert bladder.mean(1).std() > 0.03 * 78
  assert (plans.dose_gy[:, masks['body'] == 0] == 0).all()


def test_no_hot_spots(planned):
  masks, plans = planned
  target = masks['PTV'] > 0
  assert np.quantile(plans.dose_gy[:, target], 0.98, axis=1).max() < 90
  assert plans.dose_gy.max() < 1.2 * 78
  away = ndimage.distance_transform_edt(~target, sampling=SPACING) > 15
  assert plans.dose_gy[:, away].max() < 78


def test_no_plan_dominates_another(planned):
  values = planned[1].values
  for a in values:
    for b in values:
      assert (a >= b).all() == (a == b).all()


def test_sparing_weight_spares(planned):
  plans = planned[1]
  mean = plans.values[:, plans.objectives.index('rectum mean')]
  weight = plans.weights[:, plans.objectives.index('rectum mean')]
  assert mean[weight.argmax()] < mean[weight.argmin()]


def test_plans_are_certified(planned):
  gap = planned[1].gap
  assert (gap > -1e-4).all() and (gap <= PROTOCOL.gap).all()


@pytest.mark.slow
def test_plans_beside_others_are_new(planned):
  masks, plans = planned
  more = plan_patient(masks, SPACING, 2, QUICK, beside=plans.weights)
  both = np.concatenate([plans.weights, more.weights])
  assert len(np.unique(both.round(9), axis=0)) == 8


def test_mimicking_a_plan_returns_it(planned):
  masks, plans = planned
  model = dataclasses.replace(PROTOCOL, most_fluence=8.0)
  found = mimic(plans.dose_gy[0], masks, SPACING, model)
  for name in ('body', 'PTV', 'rectum', 'bladder'):
    assert found.difference[name]['mean_absolute'] < 0.5, name


@pytest.mark.slow
def test_what_no_beam_can_do_is_told(planned):
  masks, _ = planned
  # The prescription in the target and nothing anywhere else.
  wanted = 78.0 * (masks['PTV'] > 0)
  found = mimic(wanted, masks, SPACING, PROTOCOL)
  assert found.difference['PTV']['mean_absolute'] > 2
  assert found.difference['rectum']['mean'] > 2
  assert found.dose_gy.min() >= 0


def test_differences_by_hand():
  dose, other = np.array([[[1.0, 3.0]]]), np.array([[[2.0, 1.0]]])
  masks = {'all': np.ones((1, 1, 2)), 'none': np.zeros((1, 1, 2))}
  reference = DoseReference.of_prescription(10.0)
  found = differences(dose, other, masks, reference)
  assert found == {'all': {'mean': 5.0, 'mean_absolute': 15.0, 'largest': 20.0}}


def two_levels():
  """A target of 78 Gy within one of 60 Gy, and an organ that is not there."""
  masks = draw(1)
  masks['boost'] = masks.pop('prostate')
  protocol = dataclasses.replace(
    PROTOCOL,
    targets={'PTV': 60.0, 'boost': 78.0},
    oars={**PROTOCOL.oars, 'bowel': Oar(20.0, (0.01, 0.1))},
  )
  return masks, protocol


def test_the_highest_prescription_rules():
  masks, protocol = two_levels()
  targets = prescribed(masks, Grid(GRID, SPACING), protocol)
  assert list(targets) == ['PTV', 'boost']
  assert not (targets['PTV'] & targets['boost']).any()
  assert (targets['boost'] == (masks['boost'] > 0)).all()


def test_a_simultaneous_boost():
  masks, protocol = two_levels()
  plans = plan_patient(
    masks, SPACING, 2, dataclasses.replace(protocol, gap=0.1)
  )
  targets = prescribed(masks, Grid(GRID, SPACING), protocol)
  boost = plans.dose_gy[:, targets['boost']]
  ring = plans.dose_gy[:, targets['PTV']]
  np.testing.assert_allclose(np.quantile(boost, 0.05, axis=1), 78, rtol=1e-4)
  assert (np.quantile(ring, 0.05, axis=1) > 0.95 * 60).all()
  assert (np.median(ring, axis=1) < 0.93 * 78).all()


def test_skin_is_left_out_of_targets():
  masks = draw(1)
  masks['PTV'] = masks['body'].copy()
  masks['PTV'][:, :, :4] = masks['PTV'][:, :, -4:] = 0
  protocol = dataclasses.replace(PROTOCOL, skin_mm=12.0)
  grid = Grid(GRID, SPACING)
  kept = prescribed(masks, grid, protocol)['PTV']
  depth = ndimage.distance_transform_edt(masks['body'], sampling=SPACING)
  assert kept.any() and depth[kept].min() > 12


def test_an_absent_organ_has_no_objective():
  masks, protocol = two_levels()
  grid = Grid(GRID, SPACING)
  targets = prescribed(masks, grid, protocol)
  sampled = sample_objectives(masks, targets, grid, protocol)
  share = dict(zip(sampled.names, sampled.objectives.share))
  assert not share['bowel mean'].any()
  for name in ('PTV', 'boost', 'rectum mean', 'body'):
    assert share[name].sum() == pytest.approx(1, abs=1e-5)


def test_same_seed_same_patient():
  options = {'grid': GRID, 'spacing_mm': SPACING, 'plans': 2}
  a, b = (simulate_patient(5, 2, protocol=QUICK, **options) for _ in range(2))
  np.testing.assert_array_equal(a.dose, b.dose)
  assert (a.reference_gy == 78).all()
  covered = np.quantile(a.dose[:, a.masks[..., 3] > 0], 0.05, axis=1)
  np.testing.assert_allclose(covered, 1, 1e-5)


@pytest.mark.parametrize(
  'change, match',
  [
    (lambda m: m.update(PTV=0 * m['PTV']), 'PTV is empty'),
    (lambda m: m.update(body=0 * m['body']), '100% of PTV reach out of the bo'),
    (lambda m: m.pop('body'), 'body is missing'),
    (lambda m: m.pop('PTV'), 'PTV missing'),
    (
      lambda m: m.update(PTV=1 + 0 * m['PTV'], body=1 + 0 * m['PTV']),
      'side of',
    ),
    (lambda m: m.update(rectum=m['rectum'][1:]), 'several shapes'),
  ],
)
def test_impossible_patients(change, match):
  masks = draw(0)
  change(masks)
  with pytest.raises(PlanningError, match=match):
    plan_patient(masks, SPACING, 2, PROTOCOL)


def test_nothing_to_trade_off():
  fixed = dataclasses.replace(QUICK, oars={}, body_weights=(9.0, 9.0))
  with pytest.raises(PlanningError, match='no trade-off'):
    plan_patient(draw(0), SPACING, 2, fixed)


def test_a_plan_that_is_not_solved_is_refused():
  short = dataclasses.replace(PROTOCOL, gap=1e-7, most_iterations=40)
  with pytest.raises(PlanningError, match='after 40 iterations'):
    plan_patient(draw(0), SPACING, 1, short)


@pytest.mark.parametrize(
  'change, match',
  [
    ({'targets': {}}, 'needs a target'),
    ({'targets': {'PTV': 0.0}}, 'targets.PTV=0.0'),
    ({'beams': 0}, 'beams'),
    ({'body_weights': (3.0, 2.0)}, 'body_weights'),
    ({'oars': {'rectum': Oar(30.0, (0.0, 1.0))}}, 'oars.rectum.weights'),
    ({'gap': 0.0}, 'gap'),
  ],
)
def test_impossible_protocols(change, match):
  with pytest.raises(PlanningError, match=match):
    dataclasses.replace(PROTOCOL, **change)


def test_protocol_round_trip():
  assert Protocol.from_dict(PROTOCOL.to_dict()) == PROTOCOL
  with pytest.raises(PlanningError, match='beam_count'):
    Protocol.from_dict({**PROTOCOL.to_dict(), 'beam_count': 3})
  with pytest.raises(PlanningError, match='beams'):
    Protocol.from_dict({'name': 'x', 'targets': {'PTV': 1.0}, 'oars': {}})
