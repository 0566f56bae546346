"""Anatomies and plans: shapes, clinical limits, Pareto optimality."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from dvhflax.errors import PlanningError
from dvhflax.planning import fluence as fluence_lib
from dvhflax.planning.anatomy import sample_anatomy
from dvhflax.planning.beams import Beamlets
from dvhflax.planning.grid import VoxelGrid
from dvhflax.planning.objectives import sample_objectives
from dvhflax.planning.planner import plan_patient, trade_off_weights
from dvhflax.planning.protocol import PROSTATE
from dvhflax.planning.simulate import simulate_patient

GRID, SPACING = (64, 64, 32), (7.5, 5.0, 6.0)
ORGANS = (
  'prostate', 'bladder', 'rectum', 'femoral_head_left', 'femoral_head_right'
)  # fmt: skip


def draw(index, grid=GRID, spacing=SPACING):
  return sample_anatomy(np.random.default_rng([0, index]), grid, spacing)


@pytest.mark.parametrize('index', range(6))
def test_anatomy_is_sound(index):
  masks = draw(index).masks
  assert sum(masks[name].astype(int) for name in ORGANS).max() == 1
  cc = {k: v.sum() * np.prod(SPACING) / 1000 for k, v in masks.items()}
  assert 75 < cc['PTV'] < 335
  assert 30 < cc['rectum'] < 125 and 75 < cc['bladder'] < 620
  for name, mask in masks.items():
    assert (mask <= masks['body']).all(), name
  for name in ('PTV', 'rectum', 'prostate'):
    assert ndimage.label(masks[name], np.ones((3, 3, 3)))[1] == 1, name
  overlap = (masks['PTV'] & masks['rectum']).sum() / masks['rectum'].sum()
  assert 0 < overlap < 0.2


def test_anatomy_does_not_depend_on_the_grid():
  fine = draw(3, (128, 128, 64), (3.75, 2.5, 3.0)).masks
  for name, coarse in draw(3).masks.items():
    ratio = coarse.sum() * 8 / fine[name].sum()
    assert ratio == pytest.approx(1, abs=0.12), name


@pytest.fixture(scope='module')
def planned():
  masks = draw(1).masks
  return masks, plan_patient(masks, SPACING, 6, PROSTATE)


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
  assert rectum.mean(1).std() > 0.05 * 78
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


def test_weights_are_distinct_and_positive():
  weights = trade_off_weights(12, PROSTATE)
  assert (weights > 0).all() and len(np.unique(weights, axis=0)) == 12
  np.testing.assert_array_equal(weights[:, 0], 1)


def test_neighbours_are_next_to_each_other():
  opened = np.zeros((2, 8, 8), bool)
  opened[0, 0, 0:3] = opened[0, 1, 1] = opened[1, 0, 0] = True
  beamlets = Beamlets(np.zeros(3), np.zeros(2), 1000.0, 5.0, opened)
  neighbours = beamlets.neighbours
  assert neighbours.shape == (len(beamlets.active), 4)
  pairs = {
    (i, int(j)) for i, row in enumerate(neighbours) for j in row if i != j
  }
  one_way = {(0, 1), (1, 2), (1, 3)}
  assert pairs == one_way | {(j, i) for i, j in one_way}


def chain(length):
  """`[M, 2]` neighbours in a row of beamlets."""
  own = np.arange(length)
  return np.stack([own - 1, own + 1], 1).clip(0, length - 1)


def test_gradient_of_the_roughness():
  fluence = jnp.asarray(np.random.default_rng(0).random((2, 9)), jnp.float32)
  automatic = jax.grad(lambda x: fluence_lib.roughness(x, chain(9)).sum())
  gradient = fluence_lib.roughness_gradient(fluence, chain(9))
  np.testing.assert_allclose(gradient, automatic(fluence), atol=1e-6)
  rough = np.square(np.diff(fluence)).mean(1)
  np.testing.assert_allclose(
    fluence_lib.roughness(fluence, chain(9)), rough, rtol=1e-5
  )


def small_problem():
  grid = VoxelGrid(GRID, SPACING)
  sampled = sample_objectives(draw(1).masks, grid, PROSTATE, 1)
  rng = np.random.default_rng(0)
  weights = jnp.asarray(trade_off_weights(3, PROSTATE), jnp.float32)
  dose = jnp.asarray(rng.random((3, len(sampled.index))), jnp.float32)
  return sampled.objectives, weights, dose, rng


def test_gradient_is_that_of_the_weighted_sum():
  objectives, weights, dose, rng = small_problem()
  weights = weights[:, :-1]
  gradient = objectives.gradient(dose, weights)
  automatic = jax.grad(lambda d: (weights * objectives.values(d)).sum())(dose)
  np.testing.assert_allclose(gradient, automatic, atol=1e-7)
  direction = jnp.asarray(rng.standard_normal(dose.shape), jnp.float32)

  def total(step):
    values = objectives.values(dose + step * direction)
    return np.asarray(values, np.float64) * np.asarray(weights)

  finite = (total(1e-2) - total(-1e-2)).sum() / 2e-2
  assert finite == pytest.approx(float((gradient * direction).sum()), rel=2e-2)


def test_gradient_in_blocks_is_the_adjoint_of_the_whole():
  objectives, weights, dose, rng = small_problem()
  weights = weights[:, :-1]
  voxels = dose.shape[1] - dose.shape[1] % fluence_lib.BLOCK
  objectives = dataclasses.replace(
    objectives,
    share=objectives.share[:, :voxels],
    threshold=objectives.threshold[:, :voxels],
  )
  matrix = jnp.asarray(rng.random((voxels, 20)), jnp.float32)
  fluence = jnp.asarray(rng.random((3, 20)), jnp.float32)
  whole = objectives.gradient(fluence_lib.dose(fluence, matrix), weights)
  np.testing.assert_allclose(
    fluence_lib.weighted_gradient(fluence, matrix, objectives, weights),
    fluence_lib.adjoint(whole, matrix),
    rtol=1e-4,
  )


def test_solution_satisfies_the_optimality_conditions():
  objectives, weights, dose, rng = small_problem()
  matrix = rng.random((dose.shape[1], 20)).astype(np.float32) ** 4
  matrix /= matrix.sum(1).mean()
  fluence, _ = fluence_lib.optimise(
    jnp.asarray(matrix),
    chain(20),
    objectives,
    weights,
    jnp.ones((3, 20)),
    4000,
  )
  weights, smoothing = weights[:, :-1], weights[:, -1:]
  slope = fluence_lib.adjoint(
    objectives.gradient(fluence_lib.dose(fluence, matrix), weights), matrix
  )
  slope += smoothing * fluence_lib.roughness_gradient(fluence, chain(20))
  scale = np.abs(
    fluence_lib.adjoint(objectives.gradient(0 * dose, weights), matrix)
  ).max()
  assert (np.asarray(slope) > -1e-3 * scale).all()
  assert np.abs(np.asarray(slope * fluence)).max() < 1e-3 * scale


def test_same_seed_same_patient():
  options = {'grid': GRID, 'spacing_mm': SPACING, 'plans': 2}
  quick = dataclasses.replace(PROSTATE, iterations=10)
  a, b = (simulate_patient(5, 2, protocol=quick, **options) for _ in range(2))
  np.testing.assert_array_equal(a.dose, b.dose)
  np.testing.assert_allclose(a.dose[:, a.masks[..., 3] > 0].mean(1), 1, 1e-5)


@pytest.mark.parametrize(
  'change, match',
  [
    (lambda m: m.update(PTV=0 * m['PTV']), 'PTV is empty'),
    (lambda m: m.update(body=0 * m['body']), 'out of the body'),
    (lambda m: m.pop('rectum'), 'rectum is missing'),
    (lambda m: m.update(PTV=0 * m['PTV'] + 1), 'border of the grid'),
  ],
)
def test_impossible_patients(change, match):
  masks = dict(draw(0).masks)
  change(masks)
  with pytest.raises(PlanningError, match=match):
    plan_patient(masks, SPACING, 2, PROSTATE)
