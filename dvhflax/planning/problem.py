"""The optimisation problem of a patient's plans, and its objectives.

Objectives are of the dose, but for the last, the roughness of the fluence. By
XLA, or by a kernel where one is compiled (`has_kernel`): both read each block
of the influence once, for the dose and for the gradient.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dvhflax import native
from dvhflax.planning.objectives import Objectives

# Voxels whose rows of the influence stay in a second-level cache.
BLOCK = 512
# Sums that the compiled objectives leave apart, so that as many threads may
# make them; beamlets it wants a multiple of.
_GROUPS, _COMPILED_MULTIPLE = 4, 64


@flax.struct.dataclass
class Problem:
  """What the plans of a patient share.

  Attributes:
    influence: `[V, M]`, not negative; V is a multiple of `BLOCK`. The rows
      that fill it up are 0, and so are the columns of padded beamlets.
    used: `[2]`, rows and columns before these.
    neighbours: `[M, K]` as `Beamlets.neighbours` gives them.
    objectives: T objectives on the V voxels.
    most_fluence: scalar, of a beamlet.
  """

  influence: jax.Array
  used: jax.Array
  neighbours: jax.Array
  objectives: Objectives
  most_fluence: jax.Array


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


def laplacian(neighbours: jax.Array) -> np.ndarray:
  """`[M, M]` float32, x . laplacian x being the roughness of x."""
  others = np.asarray(neighbours)
  own = np.arange(len(others))[:, None]
  matrix = np.zeros((len(own), len(own)), np.float32)
  np.add.at(matrix, (own, np.broadcast_to(own, others.shape)), 2.0)
  np.add.at(matrix, (own, others), -2.0)
  # Divided in float64, whatever type a release of numpy counts in.
  pairs = np.float64(max(int(np.count_nonzero(others != own)), 1))
  return matrix / pairs


def has_kernel(problem: Problem) -> bool:
  """Whether `of_dose_compiled` can serve it here."""
  fits = problem.influence.shape[1] % _COMPILED_MULTIPLE == 0
  return fits and jax.default_backend() == 'cpu' and bool(native.available())


def evaluate(
  fluence: jax.Array,
  problem: Problem,
  weights: jax.Array,
  *,
  compiled: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Objectives, and the gradient of their weighted sum to the fluence.

  Args:
    fluence: `[N, M]`.
    problem: of T objectives.
    weights: `[N, T + 1]`, the last of the roughness.
    compiled: by the kernel, see `has_kernel`.

  Returns:
    values `[N, T + 1]`, slope `[N, M]`, `[V]` highest dose of the plans in each
    voxel.
  """
  if compiled:
    values, slope, highest = of_dose_compiled(fluence, problem, weights)
  else:
    values, slope = of_dose(fluence, problem, weights)
    highest = dose(fluence, problem.influence).max(0)
  rough = roughness(fluence, problem.neighbours)
  values = jnp.concatenate([values, rough[:, None]], -1)
  slope += weights[:, -1:] * roughness_gradient(fluence, problem.neighbours)
  return values, slope, highest


def of_dose(
  fluence: jax.Array, problem: Problem, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Values `[N, T]` and slope of `evaluate`, without the roughness.

  The influence is far larger than a cache, and reading it is what takes time:
  block by block it serves the dose and the adjoint in one go.
  """

  def add_block(values, slope, rows, part):
    here = dose(fluence, rows)
    gradient = part.gradient(here, weights[:, :-1])
    return values + part.values(here), slope + adjoint(gradient, rows)

  zeros = jnp.zeros((len(fluence), weights.shape[1] - 1))
  values, slope = over_blocks(
    add_block, (zeros, jnp.zeros_like(fluence)), problem
  )
  return values, slope


def of_dose_compiled(
  fluence: jax.Array,
  problem: Problem,
  weights: jax.Array,
  gram: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """As `of_dose`, and the highest dose in each voxel.

  XLA copies each block of the influence, this does not, and leaves padding
  out. With a gram matrix `[M, M]` the slope has 2 fluence @ gram added.
  """
  size, beamlets = problem.influence.shape
  if gram is None:
    gram = jnp.zeros((0, beamlets))
  objectives, plans = problem.objectives, len(fluence)
  shapes = (_GROUPS, plans, weights.shape[1] - 1), (_GROUPS, plans, beamlets)
  values, slope, highest = jax.ffi.ffi_call(
    native.target('objectives'),
    [jax.ShapeDtypeStruct(s, jnp.float32) for s in (*shapes, (size,))],
  )(
    fluence, problem.influence, gram, problem.used, objectives.share,
    objectives.threshold, objectives.deviation, objectives.linear,
    weights[:, :-1],
  )  # fmt: skip
  return values.sum(0), slope.sum(0), highest


def over_blocks(
  add: Callable[..., Any], start: tuple[Any, ...], problem: Problem
) -> tuple[Any, ...]:
  """Folds `add(*carry, rows, objectives of the rows)` over all blocks."""

  def add_block(i, carry):
    def rows(array, axis):
      return jax.lax.dynamic_slice_in_dim(array, i * BLOCK, BLOCK, axis)

    objectives = problem.objectives
    part = dataclasses.replace(
      objectives,
      share=rows(objectives.share, 1),
      threshold=rows(objectives.threshold, 1),
    )
    return add(*carry, rows(problem.influence, 0), part)

  blocks = (problem.used[0] + BLOCK - 1) // BLOCK
  return jax.lax.fori_loop(0, blocks, add_block, start)


@jax.jit
def highest_dose(fluence: jax.Array, problem: Problem) -> jax.Array:
  """`[V]` highest dose of the plans in each voxel."""
  return dose(fluence, problem.influence).max(0)
