"""A desired DVH as a dose: its inverse, read at every voxel's rank.

A DVH says how much of a structure gets how much, not which voxels. Anatomy
does, nearly: the closer to the target and the more in the beams, the higher.
So each voxel gets the dose that the desired curve has at the voxel's *rank*,
the share of its structure's volume whose prior dose is higher. Image processing
knows this as histogram specification (R. C. Gonzalez, R. E. Woods, "Digital
image processing", section 3.3).

Ranks belong to the patient. They are kept as one whole number a voxel, the
*place* in a table of `[S, RANKS]` doses; what a wish changes is the table.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dvhflax.dvh import DVHSpec

# Ranks told apart in each structure.
RANKS = 1024
# Volume fractions closer than this are one step of a curve.
STEP = 1e-5


def places(
  prior: jax.Array, masks: jax.Array, precedence: Sequence[int]
) -> jax.Array:
  """Where each voxel's dose is in a table of doses.

  Args:
    prior: `[B, X, Y, Z]`, higher where more dose is to be expected; of any
      unit.
    masks: `[B, X, Y, Z, S]`, 0 or 1.
    precedence: the S channels; where structures overlap the later one's curve
      decides. Ranks are among all voxels of a structure all the same.

  Returns:
    `[B, X, Y, Z]` indices into `[S * RANKS + 1]`, the last for voxels of no
    structure; uint16 where that is enough.
  """
  structures = masks.shape[-1]
  last = structures * RANKS

  def one(prior: jax.Array, masks: jax.Array) -> jax.Array:
    inside = [masks[..., s] != 0 for s in range(structures)]
    bins = [_bins(prior, x) for x in inside]
    # One table for all: a voxel is looked up once.
    table = jnp.concatenate(
      [s * RANKS + _rank_of_bins(x) for s, x in enumerate(bins)]
      + [jnp.full(1, last)]
    )
    table = table.astype(jnp.uint16 if last < 2**16 else jnp.int32)
    found = jnp.full(prior.shape, last, jnp.int32)
    for s in precedence:
      found = jnp.where(inside[s], s * RANKS + bins[s], found)
    return table[found]

  return jax.vmap(one)(prior, masks)


def _bins(prior: jax.Array, inside: jax.Array) -> jax.Array:
  """`[X, Y, Z]` which of `RANKS` even steps of a structure's prior.

  It is `RANKS` outside the structure.
  """
  least = jnp.min(prior, where=inside, initial=jnp.inf)
  most = jnp.max(prior, where=inside, initial=-jnp.inf)
  width = jnp.where(most > least, most - least, 1)
  bins = jnp.clip((prior - least) / width * RANKS, 0, RANKS - 1)
  return jnp.where(inside, bins, RANKS).astype(jnp.int32)


def _rank_of_bins(bins: jax.Array) -> jax.Array:
  """`[RANKS]` rank of the voxels in each bin, below `RANKS`.

  As a share it is the structure's volume with a higher prior; equal ones share
  theirs.
  """
  counts = jnp.zeros(RANKS + 1).at[bins.ravel()].add(1)[:RANKS]
  above = jnp.cumsum(counts[::-1])[::-1] - counts / 2
  share = above / jnp.maximum(counts.sum(), 1)
  return jnp.clip(jnp.int32(RANKS * share), 0, RANKS - 1)


def ranks() -> np.ndarray:
  """`[RANKS]` float32 shares of volume, that of the highest prior first."""
  return (np.arange(RANKS, dtype=np.float32) + 0.5) / RANKS


def volume_place(spec: DVHSpec) -> tuple[np.ndarray, np.ndarray]:
  """Where ranks lie among even volumes from 1 down to 0.

  Returns:
    `[RANKS]` element before each, and the weight of the next one, 0 to 1.
  """
  place = (1 - ranks()) * (spec.points - 1)
  before = np.minimum(place.astype(int), spec.points - 2)
  return before, place - before


def doses_of_ranks(dvh: jax.Array, spec: DVHSpec) -> jax.Array:
  """The table that `places` points into: the inverse of each curve.

  Args:
    dvh: `[B, S, K]` DVH vectors.
    spec: of their elements.

  Returns:
    `[B, S * RANKS + 1]` doses in the unit of the vectors, 0 at the end. With
    `V_k` at the levels `l_k` a rank u has the dose
    `sum_k (l_(k+1) - l_k) clip((V_k - u) / (V_k - V_(k+1)), 0, 1)`.
  """
  batch = dvh.shape[0]
  if spec.kind == 'volume_at_dose':
    steps = np.diff(spec.levels)
    high, low = dvh[..., None, :-1], dvh[..., None, 1:]
    passed = (high - ranks()[:, None]) / jnp.maximum(high - low, STEP)
    doses = jnp.dot(
      jnp.clip(passed, 0, 1), steps, precision=jax.lax.Precision.HIGHEST
    )
  else:
    low_end, share = volume_place(spec)
    doses = dvh[..., low_end] * (1 - share) + dvh[..., low_end + 1] * share
  return jnp.pad(doses.reshape(batch, -1), ((0, 0), (0, 1)))


def matched_dose(place: jax.Array, table: jax.Array) -> jax.Array:
  """`[B, X, Y, Z, C]` doses of `[B, X, Y, Z]` places in `[B, T, C]` tables."""
  return jax.vmap(lambda table, place: table[place])(table, place)
