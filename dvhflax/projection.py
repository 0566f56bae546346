"""Projection of a desired DVH onto a patient's Pareto set: equation (4)."""

import functools

import jax
import jax.numpy as jnp

from dvhflax import native

# Candidates compared at once: their differences to one wish stay in cache.
_BLOCK = 256
# Elements of the DVH vectors whose differences are added in one pass.
_CHUNK = 16


def project(
  desired: jax.Array,
  pareto: jax.Array,
  valid: jax.Array,
  *,
  block: int = _BLOCK,
) -> jax.Array:
  """Index of the Pareto plan whose DVH is nearest to the desired one in L1.

  Equation (4) of Ma et al. 2021, `argmin_n || D_i[n] - desired ||_1`, for a
  batch. Candidates are met in blocks, so the memory beside the arguments is
  about `B * block` distances however many plans there are.

  Distances to one set for a larger batch are added in the order of k, in JAX
  and in the compiled kernel that CPUs have where native.available(): for
  float32 both give the same index, and plans that are equal tie wherever they
  lie. For sets of their own XLA chooses the order, and of plans whose distances
  differ by rounding alone any may be taken.

  Args:
    desired: `[B, K]` desired DVH vectors.
    pareto: `[B, N, K]` DVH vectors of each patient's plans; `[1, N, K]` is
      one set for all of the batch.
    valid: `[B, N]` bool (or `[1, N]`), False for plans that do not exist.
    block: candidates a step; the compiled kernel has steps of its own.

  Returns:
    `[B]` int32 index; the lowest one on ties; -1 where no plan is valid or
    the desired DVH is not a number.

  Raises:
    ValueError: for arrays of other shapes.
  """
  if (
    desired.ndim != 2
    or pareto.shape[2:] != desired.shape[1:]
    or len(pareto) not in (1, len(desired))
    or valid.shape != pareto.shape[:2]
  ):
    raise ValueError(
      'project needs desired [B, K], pareto [B, N, K] and valid [B, N], or one '
      f'set, [1, N, K] and [1, N], got {desired.shape}, {pareto.shape} and '
      f'{valid.shape}'
    )
  if not (len(desired) and pareto.shape[1]):
    return jnp.full(len(desired), -1, jnp.int32)
  if _compiled(desired, pareto, valid):
    target = native.target('nearest')
    return _project_compiled(desired, pareto, valid, target=target)
  return _project(desired, pareto, valid, block=block)


def _compiled(desired: jax.Array, pareto: jax.Array, valid: jax.Array) -> bool:
  """Whether there is a compiled kernel for these; not for sets of their own."""
  floats = (jax.dtypes.canonicalize_dtype(x.dtype) for x in (desired, pareto))
  return (
    len(pareto) < len(desired)
    and pareto.size > 0
    and all(dtype == jnp.float32 for dtype in floats)
    and valid.dtype == bool
    and jax.default_backend() == 'cpu'
    and bool(native.available())
  )


@functools.partial(jax.jit, static_argnames='target')
def _project_compiled(
  desired: jax.Array, pareto: jax.Array, valid: jax.Array, *, target: str
) -> jax.Array:
  """See `project`, of one set."""
  nearest = jax.ffi.ffi_call(
    target,
    jax.ShapeDtypeStruct(desired.shape[:1], jnp.int32),
    vmap_method='sequential',
  )
  # The kernel has no gradient; that of an index is 0.
  return nearest(*jax.lax.stop_gradient((desired, pareto[0], valid[0])))


@functools.partial(jax.jit, static_argnames='block')
def _project(
  desired: jax.Array, pareto: jax.Array, valid: jax.Array, *, block: int
) -> jax.Array:
  """See `project`."""
  batch, plans = desired.shape[0], pareto.shape[1]
  block = min(block, plans)
  l1 = _l1 if pareto.shape[0] == batch else _l1_of_shared

  def nearer(
    best: tuple[jax.Array, jax.Array], start: jax.Array
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    # A last block that would run over the end is moved back, as dynamic_slice
    # does: plans seen twice change nothing.
    start = jnp.minimum(start, plans - block)
    candidates = jax.lax.dynamic_slice_in_dim(pareto, start, block, axis=1)
    usable = jax.lax.dynamic_slice_in_dim(valid, start, block, axis=1)
    distance = l1(desired, candidates)
    # Summed once: without the barrier XLA does it for either of its two uses.
    distance = jax.lax.optimization_barrier(distance)
    distance = jnp.where(usable & ~jnp.isnan(distance), distance, jnp.inf)
    index = distance.argmin(axis=1).astype(jnp.int32)
    least = distance.min(axis=1)
    better = least < best[0]
    return (
      jnp.where(better, least, best[0]),
      jnp.where(better, start + index, best[1]),
    ), None

  none = (
    jnp.full(batch, jnp.inf, desired.dtype),
    jnp.full(batch, -1, jnp.int32),
  )
  starts = jnp.arange(0, plans, block, dtype=jnp.int32)
  (_, index), _ = jax.lax.scan(nearer, none, starts)
  return index


def _l1(desired: jax.Array, candidates: jax.Array) -> jax.Array:
  """`[B, n]` distances of `[B, K]` to each patient's own `[B, n, K]`."""
  return jnp.abs(candidates - desired[:, None, :]).sum(-1)


def _l1_of_shared(desired: jax.Array, candidates: jax.Array) -> jax.Array:
  """`[B, n]` distances of `[B, K]` to the same `[1, n, K]`.

  XLA adds up the last axis one element at a time on CPUs. With the plans last
  it adds in vectors, three times as fast; turning many plans of one set is
  nothing beside comparing them with every wish.
  """
  (wishes, elements), plans = desired.shape, candidates.shape[1]
  padding = ((0, 0), (0, -elements % _CHUNK))
  turned = [
    jnp.pad(x, padding).T.reshape(-1, _CHUNK, len(x))
    for x in (desired, candidates[0])
  ]

  def add(
    total: jax.Array, chunk: tuple[jax.Array, ...]
  ) -> tuple[jax.Array, None]:
    desired, candidates = chunk
    for i in range(_CHUNK):
      total += jnp.abs(candidates[i] - desired[i][:, None])
    return total, None

  none = jnp.zeros((wishes, plans), desired.dtype)
  return jax.lax.scan(add, none, tuple(turned))[0]
