"""Fluence optimisation: gradients, certificates, an independent optimum."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from dvhflax import native
from dvhflax.grid import Grid
from dvhflax.planning import fluence as fluence_lib
from dvhflax.planning import problem as problem_lib
from dvhflax.planning.objectives import (
  Objectives,
  prescribed,
  sample_objectives,
  thinned,
)
from dvhflax.planning.problem import BLOCK, Problem
from dvhflax.planning.trade_offs import TradeOffs
from dvhflax.sites.prostate import PROTOCOL
from dvhflax.sources.anatomy import sample_anatomy

GRID, SPACING = (64, 64, 32), (7.5, 5.0, 6.0)
BEAMLETS = 20


def chain(length):
  """`[M, 2]` neighbours in a row of beamlets."""
  own = np.arange(length)
  return np.stack([own - 1, own + 1], 1).clip(0, length - 1)


def test_gradient_of_the_roughness():
  fluence = jnp.asarray(np.random.default_rng(0).random((2, 9)), jnp.float32)
  automatic = jax.grad(lambda x: problem_lib.roughness(x, chain(9)).sum())
  gradient = problem_lib.roughness_gradient(fluence, chain(9))
  np.testing.assert_allclose(gradient, automatic(fluence), atol=1e-6)
  rough = np.square(np.diff(fluence)).mean(1)
  np.testing.assert_allclose(
    problem_lib.roughness(fluence, chain(9)), rough, rtol=1e-5
  )
  laplacian = problem_lib.laplacian(chain(9))
  square = np.einsum('ni,ij,nj->n', fluence, laplacian, fluence)
  np.testing.assert_allclose(square, rough, rtol=1e-5)


@pytest.fixture(scope='module')
def small():
  """Objectives of a patient on few voxels, with an invented influence."""
  masks = sample_anatomy(np.random.default_rng([0, 1]), GRID, SPACING).masks
  grid = Grid(GRID, SPACING)
  targets = prescribed(masks, grid, PROTOCOL)
  sampled = thinned(sample_objectives(masks, targets, grid, PROTOCOL), 150)
  rng = np.random.default_rng(0)
  voxels = len(sampled.index)
  matrix = rng.random((voxels, BEAMLETS)).astype(np.float32) ** 4
  matrix /= matrix.sum(1).mean()
  padding = ((0, 0), (0, -voxels % BLOCK))
  objectives = Objectives(
    share=jnp.asarray(np.pad(sampled.objectives.share, padding)),
    threshold=jnp.asarray(np.pad(sampled.objectives.threshold, padding)),
    deviation=jnp.asarray(sampled.objectives.deviation),
    linear=jnp.asarray(sampled.objectives.linear),
  )
  problem = Problem(
    influence=jnp.asarray(np.pad(matrix, padding[::-1])),
    used=jnp.asarray([voxels, BEAMLETS]),
    neighbours=jnp.asarray(chain(BEAMLETS)),
    objectives=objectives,
    most_fluence=jnp.float32(3.0),
  )
  trade_offs = TradeOffs.of(PROTOCOL, list(masks))
  weights = trade_offs.weights(trade_offs.anchors()[:3])
  return problem, jnp.asarray(weights, jnp.float32)


def total(problem, weights, fluence):
  """`[N]` weighted sums in float64, with no code of the optimiser."""
  x = np.asarray(fluence, np.float64)
  dose = x @ np.asarray(problem.influence, np.float64).T
  o = jax.tree.map(lambda a: np.asarray(a, np.float64), problem.objectives)
  value = 0.0
  for t in range(len(o.share)):
    excess = dose - o.threshold[t]
    if not o.deviation[t]:
      excess = np.maximum(excess, 0)
    term = dose if o.linear[t] else excess**2
    value = value + np.asarray(weights)[:, t] * (term @ o.share[t])
  rough = np.square(np.diff(x)).mean(1)
  return value + np.asarray(weights)[:, -1] * rough


def test_gradient_is_that_of_the_weighted_sum(small):
  problem, weights = small
  rng = np.random.default_rng(1)
  x = rng.random((3, BEAMLETS)) * 2
  values, slope, _ = problem_lib.evaluate(
    jnp.asarray(x, jnp.float32), problem, weights
  )
  np.testing.assert_allclose(
    (values * weights).sum(-1), total(problem, weights, x), rtol=1e-4
  )
  direction = rng.standard_normal(x.shape)
  step = 1e-5
  ahead = total(problem, weights, x + step * direction)
  behind = total(problem, weights, x - step * direction)
  finite = (ahead - behind) / (2 * step)
  np.testing.assert_allclose((slope * direction).sum(-1), finite, rtol=1e-3)


def test_reduced_gradient_is_the_whole_one(small):
  problem, weights = small
  rng = np.random.default_rng(2)
  x = jnp.asarray(rng.random((3, BEAMLETS)) * 2, jnp.float32)
  highest = problem_lib.highest_dose(x, problem)
  reduced = fluence_lib._Reducer(problem, weights).around(np.asarray(highest))
  step = jnp.full_like(x, 1e-3)
  state = (x, x, jnp.ones(3))
  after = fluence_lib._iterate(reduced, weights, step, state, 1)[0]
  _, slope, _ = problem_lib.evaluate(x, problem, weights)
  np.testing.assert_allclose((x - after) / step, slope, atol=2e-3)


@pytest.mark.parametrize('instruction_set', native.INSTRUCTION_SETS)
@pytest.mark.parametrize('plans', [1, 7, 40])
def test_compiled_objectives(small, plans, instruction_set, monkeypatch):
  if instruction_set not in native.available():
    pytest.skip('not compiled')
  problem, weights = small
  # With padding: columns of 0, as beamlets have.
  columns = ((0, 0), (0, 512 - BEAMLETS))
  problem = dataclasses.replace(
    problem, influence=jnp.pad(problem.influence, columns)
  )
  rng = np.random.default_rng(4)
  x = rng.random((plans, BEAMLETS)) * 2 * (rng.random((plans, 1)) < 0.8)
  x = jnp.pad(jnp.asarray(x, jnp.float32), columns)
  weights = weights[np.arange(plans) % 3]
  half = rng.random((BEAMLETS, BEAMLETS))
  gram = np.zeros((512, 512), np.float32)
  gram[:BEAMLETS, :BEAMLETS] = half + half.T
  monkeypatch.setattr(native, 'available', lambda: (instruction_set,))
  values, slope = problem_lib.of_dose(x, problem, weights)
  highest = problem_lib.highest_dose(x, problem)
  for added in (None, jnp.asarray(gram)):
    compiled = problem_lib.of_dose_compiled(x, problem, weights, added)
    whole = slope if added is None else slope + 2 * (x @ added)
    for ours, theirs in zip(compiled, (values, whole, highest)):
      np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_an_independent_optimum(small):
  problem, weights = small
  found = fluence_lib.solve(
    problem, weights, jnp.ones((3, BEAMLETS)), gap=1e-3, most_iterations=5000
  )
  reached = total(problem, weights, found.fluence)
  for n in range(3):
    one = weights[n : n + 1]
    best = optimize.minimize(
      lambda x, one=one: total(problem, one, x[None])[0],
      np.ones(BEAMLETS),
      method='L-BFGS-B',
      bounds=[(0, 3)] * BEAMLETS,
      options={'maxiter': 2000, 'ftol': 1e-14, 'gtol': 1e-9},
    ).fun
    # The certificate is a bound: what was reached is no farther off.
    assert -1e-4 <= reached[n] / best - 1 <= found.gap[n] + 1e-4
  assert (np.asarray(found.fluence) >= 0).all()
  assert (np.asarray(found.fluence) <= 3).all()


def test_certificate_bounds_any_fluence(small):
  problem, weights = small
  best = fluence_lib.solve(
    problem, weights, jnp.ones((3, BEAMLETS)), gap=1e-3, most_iterations=5000
  )
  least = (best.values * np.asarray(weights)).sum(-1)
  rng = np.random.default_rng(3)
  for scale in (0.0, 0.5, 1.0, 3.0):
    x = jnp.asarray(rng.random((3, BEAMLETS)) * scale, jnp.float32)
    values, excess = fluence_lib.certify(x, problem, weights)
    above = (np.asarray(values) * np.asarray(weights)).sum(-1) - least
    assert (np.asarray(excess) >= above - 1e-3 * least).all()


def test_no_beamlet_exceeds_the_most(small):
  problem, weights = small
  low = dataclasses.replace(problem, most_fluence=jnp.float32(0.5))
  found = fluence_lib.solve(
    low, weights, jnp.full((3, BEAMLETS), 0.5), gap=1e-2, most_iterations=5000
  )
  assert np.asarray(found.fluence).max() == pytest.approx(0.5)
