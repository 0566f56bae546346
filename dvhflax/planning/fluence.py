"""Fluence optimisation, all plans of a patient at once.

Accelerated projected gradient (Nesterov; restarts after O'Donoghue and
Candes 2015) with a diagonal majoriser in place of a step length: for a
non-negative D and curvature h, D^T diag(h) D is at most
diag(D^T (h * D 1)).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from dvhflax.planning.objectives import Objectives

# Voxels whose rows of the influence stay in a second-level cache.
BLOCK = 512


def dose(fluence: jax.Array, influence: jax.Array) -> jax.Array:
  """`[N, V]` dose of `[N, M]` fluences with `[V, M]` influence."""
  return jnp.einsum('pb,vb->pv', fluence, influence)


def adjoint(gradient: jax.Array, influence: jax.Array) -> jax.Array:
  """`[N, M]`: the transpose of `dose` on `[N, V]`.

  Plans are rows: XLA's product with a transposed influence is 10 times
  slower on CPUs.
  """
  return jnp.einsum('pv,vb->pb', gradient, influence)


def roughness(fluence: jax.Array, neighbours: jax.Array) -> jax.Array:
  """Mean squared difference of neighbouring beamlets.

  A spike of fluence between two sampled voxels costs nothing but this.

  Args:
    fluence: `[N, M]` of N plans.
    neighbours: `[M, K]` as `Beamlets.neighbours` gives them.

  Returns:
    `[N]`, in units of the fluence squared.
  """
  squares = jnp.square(_differences(fluence, neighbours))
  return squares.sum((1, 2)) / _pairs(neighbours)


def roughness_gradient(fluence: jax.Array, neighbours: jax.Array) -> jax.Array:
  """`[N, M]` gradient of each plan's `roughness`."""
  # Each pair is counted from both sides.
  return 4 * _differences(fluence, neighbours).sum(-1) / _pairs(neighbours)


def _differences(fluence, neighbours):
  return fluence[:, :, None] - fluence[:, neighbours]


def _degree(neighbours):
  own = jnp.arange(len(neighbours))[:, None]
  return (neighbours != own).sum(1)


def _pairs(neighbours):
  return jnp.maximum(_degree(neighbours).sum(), 1)


def weighted_gradient(
  fluence: jax.Array,
  influence: jax.Array,
  objectives: Objectives,
  weights: jax.Array,
) -> jax.Array:
  """`[N, M]` gradient of each plan's weighted objectives to its fluence.

  The influence is far larger than a cache, and reading it is what takes time:
  block by block it serves the dose and the adjoint in one go.

  Args:
    fluence: `[N, M]`.
    influence: `[V, M]`, V a multiple of `BLOCK`.
    objectives: T objectives on the V voxels.
    weights: `[N, T]`.
  """
  terms = objectives.share.shape[0]

  def blocks(of_voxels):
    return of_voxels.reshape(terms, -1, BLOCK).swapaxes(0, 1)

  def add_block(slope, block):
    rows, share, threshold = block
    part = dataclasses.replace(objectives, share=share, threshold=threshold)
    gradient = part.gradient(dose(fluence, rows), weights)
    return slope + adjoint(gradient, rows), None

  slope, _ = jax.lax.scan(
    add_block,
    jnp.zeros_like(fluence),
    (
      influence.reshape(-1, BLOCK, influence.shape[1]),
      blocks(objectives.share),
      blocks(objectives.threshold),
    ),
  )
  return slope


@functools.partial(jax.jit, static_argnames='iterations')
def optimise(
  influence: jax.Array,
  neighbours: jax.Array,
  objectives: Objectives,
  weights: jax.Array,
  start: jax.Array,
  iterations: int,
) -> tuple[jax.Array, jax.Array]:
  """Minimises the weighted sums of objectives over fluences >= 0.

  The roughness of the fluence is the last objective of every plan, so that
  the minimum is Pareto-optimal with it included.

  Args:
    influence: `[V, M]`, not negative.
    neighbours: `[M, K]` as `Beamlets.neighbours` gives them.
    objectives: T objectives on the V voxels.
    weights: `[N, T + 1]` of N plans, positive; the last of the roughness.
    start: `[N, M]` fluences.
    iterations: number of them.

  Returns:
    fluence `[N, M]`, objective values `[N, T + 1]`.
  """
  weights, smoothing = weights[:, :-1], weights[:, -1:]
  # Rows of no influence on voxels that no objective counts.
  padding = ((0, 0), (0, -len(influence) % BLOCK))
  influence = jnp.pad(influence, padding[::-1])
  objectives = dataclasses.replace(
    objectives,
    share=jnp.pad(objectives.share, padding),
    threshold=jnp.pad(objectives.threshold, padding),
  )
  bound = adjoint(objectives.curvature(weights) * influence.sum(1), influence)
  # A graph's Laplacian is at most twice the diagonal of its degrees.
  bound += smoothing * 8 * _degree(neighbours) / _pairs(neighbours)
  # Padded beamlets reach no voxel: they keep their fluence of 0.
  step = jnp.where(bound > 0, 1 / jnp.maximum(bound, 1e-30), 0)

  def iterate(_, carry):
    x, y, momentum = carry
    slope = weighted_gradient(y, influence, objectives, weights)
    slope += smoothing * roughness_gradient(y, neighbours)
    new = jnp.maximum(y - step * slope, 0)
    # Momentum that points uphill is dropped, plan by plan.
    uphill = ((y - new) / jnp.where(step > 0, step, 1) * (new - x)).sum(-1) > 0
    momentum = jnp.where(uphill, 1.0, momentum)
    following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
    push = ((momentum - 1) / following)[:, None]
    return new, new + push * (new - x), following

  ones = jnp.ones(len(weights))
  x, _, _ = jax.lax.fori_loop(0, iterations, iterate, (start, start, ones))
  values = objectives.values(dose(x, influence))
  rough = roughness(x, neighbours)
  return x, jnp.concatenate([values, rough[:, None]], -1)
