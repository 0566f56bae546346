"""Planning objectives: convex functions of the dose in sampled voxels.

Each is a weighted mean over a structure's samples of one of three terms:
squared deviation from the prescription, squared overdose beyond a threshold,
or the dose itself. The fluence's roughness (`fluence.roughness`) joins them
as one more convex objective. A strictly positive weighted sum of all has a
Pareto-optimal minimum.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from dvhflax.errors import PlanningError
from dvhflax.planning.grid import VoxelGrid
from dvhflax.planning.protocol import Protocol

# The body's threshold falls from the first to the second value, in fractions
# of the prescription, over this distance from the target.
_BODY_THRESHOLDS = (0.95, 0.4)
_BODY_FALL_MM = 30.0


@flax.struct.dataclass
class Objectives:
  """T objectives over V sampled voxels.

  Attributes:
    share: `[T, V]`, each voxel's part of the structure; rows sum to 1.
    threshold: `[T, V]` dose beyond which a term counts.
    deviation: `[T]` 1 where doses below the threshold count too.
    linear: `[T]` 1 where the term is the dose itself.
  """

  share: jax.Array
  threshold: jax.Array
  deviation: jax.Array
  linear: jax.Array

  def values(self, dose: jax.Array) -> jax.Array:
    """`[N, T]` objective values of `[N, V]` doses."""
    return jnp.stack(
      [
        (share * self._term(dose, t)).sum(-1)
        for t, share in enumerate(self.share)
      ],
      -1,
    )

  def _term(self, dose, t):
    excess = dose - self.threshold[t]
    excess = jnp.where(self.deviation[t], excess, jnp.maximum(excess, 0))
    return jnp.where(self.linear[t], dose, jnp.square(excess))

  def gradient(self, dose: jax.Array, weights: jax.Array) -> jax.Array:
    """`[N, V]` gradient of the `[N, T]`-weighted sum."""
    total = jnp.zeros_like(dose)
    for t, share in enumerate(self.share):
      excess = dose - self.threshold[t]
      excess = jnp.where(self.deviation[t], excess, jnp.maximum(excess, 0))
      slope = jnp.where(self.linear[t], 1.0, 2 * excess)
      total += weights[:, t, None] * share * slope
    return total

  def curvature(self, weights: jax.Array) -> jax.Array:
    """`[N, V]` upper bound of the second derivative in each voxel."""
    return 2 * (weights * (1 - self.linear)) @ self.share


@dataclasses.dataclass(frozen=True)
class Sampled:
  """The voxels that the optimiser sees, and its objectives on them.

  Attributes:
    index: `[V, 3]` voxels.
    objectives: on those voxels, in fractions of the prescription.
    names: `[T]`.
  """

  index: np.ndarray
  objectives: Objectives
  names: tuple[str, ...]


def sample_objectives(
  masks: dict[str, np.ndarray],
  grid: VoxelGrid,
  protocol: Protocol,
  rows: int,
) -> Sampled:
  """Chooses voxels and writes the protocol's objectives on them.

  The target and the smaller OARs are taken whole: a subsampled target is
  left with cold spots that nothing sees. A larger OAR is taken from a
  lattice, and so is the body, more densely near the target, each sample
  standing for its cell.

  An OAR counts outside the target only. In the overlap the target's wish
  rules: an OAR that pulls the dose down there makes D95, hence the scaling to
  it, raise the dose everywhere else.

  Args:
    masks: `[X, Y, Z]` by name; `body`, the target and the OARs.
    grid: of the masks.
    protocol: names, thresholds and spacings.
    rows: the number of voxels is padded to a multiple of it.

  Raises:
    PlanningError: a structure is missing, or the target leaves the body.
  """
  for name in ('body', protocol.target, *protocol.oars):
    if name not in masks:
      raise PlanningError(f'{name} is missing: the protocol needs it')
  body, target = masks['body'] > 0, masks[protocol.target] > 0
  if (target & ~body).any():
    raise PlanningError(f'{protocol.target} reaches out of the body')
  distance = ndimage.distance_transform_edt(~target, sampling=grid.spacing_mm)
  near = distance <= protocol.near_mm
  cell = np.where(
    near,
    _lattice(grid, protocol.body_near_mm),
    _lattice(grid, protocol.body_far_mm),
  )
  chosen = target | (body & (cell > 0))
  seen = {}
  for name in protocol.oars:
    seen[name] = masks[name] > 0
    if np.count_nonzero(seen[name]) > protocol.oar_voxels:
      seen[name] &= _lattice(grid, protocol.oar_mm) > 0
    chosen |= seen[name]
  index = np.argwhere(chosen)
  at = tuple(index.T)

  fall = np.clip(distance[at] / _BODY_FALL_MM, 0, 1)
  top, low = _BODY_THRESHOLDS
  nothing = np.zeros(len(index))
  terms: list[tuple] = [
    (protocol.target, target[at], nothing + 1.0, True, False)
  ]
  for name in protocol.oars:
    inside = (seen[name] & ~target)[at]
    terms += [
      (f'{name} overdose', inside, nothing + protocol.oar_threshold, 0, 0),
      (f'{name} mean', inside, nothing, False, True),
    ]
  outside = np.where(target[at], 0, cell[at])
  terms.append(('body', outside, top + (low - top) * fall, False, False))

  padding = ((0, 0), (0, -len(index) % rows))
  share = np.stack([np.asarray(t[1], np.float64) for t in terms])
  total = share.sum(1, keepdims=True)
  share = np.pad(share / np.where(total > 0, total, 1), padding)
  objectives = Objectives(
    share=jnp.asarray(share, jnp.float32),
    threshold=jnp.asarray(
      np.pad(np.stack([t[2] for t in terms]), padding), jnp.float32
    ),
    deviation=jnp.array([t[3] for t in terms], jnp.float32),
    linear=jnp.array([t[4] for t in terms], jnp.float32),
  )
  return Sampled(index, objectives, tuple(t[0] for t in terms))


def _lattice(grid: VoxelGrid, spacing_mm: float) -> np.ndarray:
  """`[X, Y, Z]` voxels a lattice point stands for; 0 off the lattice."""
  steps = [max(1, round(spacing_mm / s)) for s in grid.spacing_mm]
  cells = np.zeros(grid.shape, np.float32)
  cells[tuple(slice(s // 2, None, s) for s in steps)] = np.prod(steps)
  return cells
