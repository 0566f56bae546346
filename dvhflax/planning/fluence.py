"""Fluence optimisation with a certificate, all plans of a patient at once.

Accelerated projected gradient (Nesterov; restarts after O'Donoghue and
Candes 2015) with a diagonal majoriser in place of a step length: for a
non-negative D and curvature h, D^T diag(h) D is at most
diag(D^T (h * D 1)).

It stops when every plan is certified to be near its optimum: F is convex, so
for every fluence z, F(z) >= F(x) + slope . (z - x). The optimum z has
F(z) <= F(x), hence a mean dose in each target, prescribed p, of at most
p + sqrt(F(x)) (the squared deviation's mean has weight 1). So with a the
targets' mean dose of a unit of each beamlet,

  F(x) - min F <= slope . x + (sum of p + sqrt(F(x))) max((-slope)+ / a).
"""

from collections.abc import Callable
import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dvhflax.errors import PlanningError
from dvhflax.planning import memory
from dvhflax.planning import problem as problem_lib
from dvhflax.planning.problem import Problem

# Iterations between two certificates.
ROUND = 40


@dataclasses.dataclass(frozen=True)
class Solution:
  """Solved fluences of N plans.

  Attributes:
    fluence: `[N, M]`.
    values: `[N, T + 1]` objectives, the roughness last.
    gap: `[N]`, at most so much is the weighted sum above its minimum, in
      fractions of itself.
    iterations: how many it took.
  """

  fluence: jax.Array
  values: np.ndarray
  gap: np.ndarray
  iterations: int


@flax.struct.dataclass
class _Reduced:
  """What an iteration needs of a problem: a fraction of the products.

  The targets' terms and the roughness are quadratic and weigh the same in all
  plans, so their gradient is 2 (gram x - pull); that of a mean dose is
  constant; and the overdose terms are those of the voxels near or above their
  threshold.

  Attributes:
    gram: `[M, M]`.
    pull: `[M]`.
    means: `[T, M]`, 0 for what is no mean dose.
    above: the overdose terms of those voxels.
  """

  gram: jax.Array
  pull: jax.Array
  means: jax.Array
  above: Problem


class _Reducer:
  """Makes the reduced problem around given fluences, again and again."""

  # Voxels this close below a threshold may come above it, as a fraction of
  # the prescription, before the next round.
  _MARGIN = 0.03
  # The fewest rows that are passed on, so that few shapes are compiled.
  _LEAST_ROWS = 2048

  def __init__(
    self, problem: Problem, weights: jax.Array, unpadded: bool = False
  ):
    """Args: unpadded: leaves padding out, at the price of the last bit."""
    self._problem = problem
    self._influence = np.asarray(problem.influence)
    objectives = jax.tree.map(np.asarray, problem.objectives)
    hinge = (objectives.deviation == 0) & (objectives.linear == 0)
    self._share = np.where(hinge[:, None], objectives.share, 0)
    self._threshold = objectives.threshold
    self._size = self._LEAST_ROWS
    # The targets' mean dose of a unit of each beamlet, `[M]`.
    self.mean: jax.Array
    self._parts: tuple[jax.Array, ...]
    self._add_quadratic(objectives, float(weights[0, -1]), unpadded)

  def _add_quadratic(self, objectives, smoothing, unpadded) -> None:
    """`gram`, `pull` and `means`; BLAS knows that a Gram matrix is symmetric,
    and is three times as fast as XLA."""
    share = objectives.deviation @ objectives.share
    wanted = objectives.deviation @ (objectives.share * objectives.threshold)
    linear = objectives.linear[:, None] * objectives.share
    targets = np.flatnonzero(share)
    beamlets = int(self._problem.used[1]) if unpadded else None
    rows = self._influence[targets, :beamlets]
    rows *= np.sqrt(share[targets])[:, None]
    gram = smoothing * problem_lib.laplacian(self._problem.neighbours)
    gram[:beamlets, :beamlets] += rows.T @ rows
    self.mean = jnp.asarray(share @ self._influence)
    parts = gram, wanted @ self._influence, linear @ self._influence
    self._parts = tuple(map(jnp.asarray, parts))

  def around(self, highest: np.ndarray) -> _Reduced:
    """Valid for fluences not far from those of the `[V]` highest doses."""
    near = (self._share > 0) & (highest > self._threshold - self._MARGIN)
    index = np.flatnonzero(near.any(0))
    while self._size < len(index):
      self._size *= 2
    padding = ((0, 0), (0, self._size - len(index)))
    rows = memory.zeros((self._size, self._influence.shape[1]))
    np.take(self._influence, index, 0, out=rows[: len(index)], mode='clip')
    above = dataclasses.replace(
      self._problem,
      influence=memory.hand_over(rows),
      used=self._problem.used.at[0].set(len(index)),
      objectives=dataclasses.replace(
        self._problem.objectives,
        share=jnp.asarray(np.pad(self._share[:, index], padding)),
        threshold=jnp.asarray(np.pad(self._threshold[:, index], padding)),
      ),
    )
    gram, pull, means = self._parts
    return _Reduced(gram, pull, means, above)


@jax.jit
def _step(reduced: _Reduced, weights: jax.Array) -> jax.Array:
  """`[N, M]` inverse of the diagonal majoriser of the second derivative."""
  above = reduced.above

  def add_block(bound, rows, part):
    curvature = part.curvature(weights[:, :-1])
    return (bound + problem_lib.adjoint(curvature * rows.sum(1), rows),)

  # Of a symmetric matrix, too, sums of magnitudes are at least as much.
  start = jnp.tile(2 * jnp.abs(reduced.gram).sum(1), (len(weights), 1))
  (bound,) = problem_lib.over_blocks(add_block, (start,), above)
  # Padded beamlets reach no voxel: they keep their fluence of 0.
  return jnp.where(bound > 0, 1 / jnp.maximum(bound, 1e-30), 0)


@functools.partial(jax.jit, static_argnames=('iterations', 'compiled'))
def _iterate(reduced, weights, step, state, iterations, compiled=False):
  above = reduced.above
  constant = weights[:, :-1] @ reduced.means - 2 * reduced.pull

  def iterate(_, carry):
    x, y, momentum = carry
    if compiled:
      _, slope, _ = problem_lib.of_dose_compiled(
        y, above, weights, reduced.gram
      )
      slope += constant
    else:
      _, slope = problem_lib.of_dose(y, above, weights)
      slope += 2 * (y @ reduced.gram) + constant
    new = jnp.clip(y - step * slope, 0, above.most_fluence)
    # Momentum that points uphill is dropped, plan by plan.
    uphill = ((y - new) / jnp.where(step > 0, step, 1) * (new - x)).sum(-1) > 0
    momentum = jnp.where(uphill, 1.0, momentum)
    following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
    push = ((momentum - 1) / following)[:, None]
    return new, new + push * (new - x), following

  return jax.lax.fori_loop(0, iterations, iterate, state)


def certify(
  fluence: jax.Array, problem: Problem, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Objectives of fluences, and how far their weighted sum can be improved.

  Args:
    fluence: `[N, M]`, from 0 to the most that is allowed.
    problem: of T objectives.
    weights: `[N, T + 1]`; those of the targets are 1.

  Returns:
    values `[N, T + 1]`; `[N]` bounds of F(x) - min F, see the module.
  """
  share = problem.objectives.deviation @ problem.objectives.share
  mean = share @ problem.influence
  compiled = problem_lib.has_kernel(problem)
  return _certify(fluence, problem, weights, mean, compiled)[:2]


@functools.partial(jax.jit, static_argnames='compiled')
def _certify(fluence, problem, weights, mean, compiled):
  """`certify`, and the highest dose in each voxel."""
  values, slope, highest = problem_lib.evaluate(
    fluence, problem, weights, compiled=compiled
  )
  total = (weights * values).sum(-1)
  objectives = problem.objectives
  level = objectives.deviation @ (objectives.share * objectives.threshold)
  targets = objectives.deviation * (objectives.share.max(1) > 0)
  reach = level.sum() + targets.sum() * jnp.sqrt(total)
  down = jnp.maximum(-slope, 0)
  by_mean = reach * (down / jnp.maximum(mean, 1e-30)).max(-1)
  by_most = problem.most_fluence * down.sum(-1)
  excess = (slope * fluence).sum(-1) + jnp.minimum(by_mean, by_most)
  return values, excess, highest


def approach(
  problem: Problem, weights: jax.Array, start: jax.Array, iterations: int
) -> jax.Array:
  """`[N, M]` fluences after some iterations from `start`; see `solve`.

  By XLA alone: which plans are chosen among candidates may depend on the last
  bit.
  """
  reducer = _Reducer(problem, weights)
  state = (start, start, jnp.ones(len(weights)))
  for done in range(0, iterations, ROUND):
    highest = problem_lib.highest_dose(state[0], problem)
    some = min(ROUND, iterations - done)
    state = _round(reducer, weights, state, highest, some, False)
  return state[0]


def _round(reducer, weights, state, highest, iterations, compiled):
  reduced = reducer.around(np.asarray(highest))
  step = _step(reduced, weights)
  return _iterate(reduced, weights, step, state, iterations, compiled)


def solve(
  problem: Problem,
  weights: jax.Array,
  start: jax.Array,
  *,
  gap: float,
  most_iterations: int,
  negligible: float = 0.0,
  progress: Callable[[float], None] | None = None,
) -> Solution:
  """Minimises the weighted sums of objectives over fluences >= 0.

  The roughness of the fluence is the last objective of every plan, so that
  the minimum is Pareto-optimal with it included.

  Args:
    problem: of T objectives.
    weights: `[N, T + 1]` of N plans, positive; those of the targets are 1,
      that of the roughness is the same in all.
    start: `[N, M]` fluences.
    gap: what is enough, see `Solution.gap`.
    most_iterations: to get there.
    negligible: the gap of a plan whose weighted sum is less is taken in
      fractions of this.
    progress: told after every round how much wider than enough the widest gap
      still is.

  Raises:
    PlanningError: it took more.
  """
  compiled = problem_lib.has_kernel(problem)
  reducer = _Reducer(problem, weights, unpadded=compiled)
  state = (start, start, jnp.ones(len(weights)))
  done, highest = 0, problem_lib.highest_dose(start, problem)
  while True:
    state = _round(reducer, weights, state, highest, ROUND, compiled)
    done += ROUND
    values, excess, highest = map(
      np.asarray, _certify(state[0], problem, weights, reducer.mean, compiled)
    )
    total = (values * np.asarray(weights)).sum(-1)
    left = excess / np.maximum(total, negligible)
    if progress:
      progress(float(left.max()) / gap)
    if left.max() <= gap:
      return Solution(state[0], values, left, done)
    if done >= most_iterations or not np.isfinite(left).all():
      raise PlanningError(
        f'after {done} iterations a plan is certified to {left.max():.1%} of '
        f'its optimum only, not planning.gap={gap:.1%}: raise '
        'planning.most_iterations or planning.gap'
      )
