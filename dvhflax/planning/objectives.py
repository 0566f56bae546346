"""Planning objectives: convex functions of the dose in sampled voxels.

Each is a weighted mean over a structure's samples of one of three forms:
squared deviation from the prescription, squared overdose beyond a threshold,
or the dose itself. `terms` lists those of a protocol: an objective of one of
these forms is added there. The fluence's roughness (`fluence.roughness`) joins
them as one more convex objective. A strictly positive weighted sum of all has
a Pareto-optimal minimum.
"""

from collections.abc import Mapping
import dataclasses
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from dvhflax.errors import PlanningError
from dvhflax.grid import Grid
from dvhflax.sites.protocol import Protocol

# More of a target out of the body, or in its skin, is a fault in the contours;
# less is what contours lose on a grid, and is left out.
_MOST_TARGET_OUTSIDE = 0.05


# Numpy's while voxels are chosen, JAX's while plans are optimised.
Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Term:
  """An objective of a protocol.

  Attributes:
    name: of the objective.
    structure: over whose voxels it is a mean.
    form: of the dose in a voxel: the squared `deviation` from a level, the
      squared `overdose` beyond it, or the dose itself, for the `mean`.
    level_gy: that level; the body's falls with the distance from the targets
      instead.
    weights: least and most weight of the structure.
    share: the objective's weight in parts of the structure's.
  """

  name: str
  structure: str
  form: Literal['deviation', 'overdose', 'mean']
  level_gy: float
  weights: tuple[float, float]
  share: float = 1.0


def terms(protocol: Protocol) -> tuple[Term, ...]:
  """The T objectives of a protocol: of targets, OARs, and the body last."""
  found = [
    Term(name, name, 'deviation', protocol.targets[name], (1.0, 1.0))
    for name in protocol.ascending
  ]
  for name, oar in protocol.oars.items():
    level_gy, weights = oar.threshold_gy, oar.weights
    found += [
      Term(f'{name} overdose', name, 'overdose', level_gy, weights),
      Term(f'{name} mean', name, 'mean', 0.0, weights, oar.mean_share),
    ]
  return *found, Term('body', 'body', 'overdose', 0.0, protocol.body_weights)


@flax.struct.dataclass
class Objectives:
  """T objectives over V sampled voxels.

  Attributes:
    share: `[T, V]`, each voxel's part of the structure; rows sum to 1.
    threshold: `[T, V]` dose beyond which a term counts.
    deviation: `[T]` 1 where doses below the threshold count too.
    linear: `[T]` 1 where the term is the dose itself.
  """

  share: Array
  threshold: Array
  deviation: Array
  linear: Array

  def values(self, dose: jax.Array) -> jax.Array:
    """`[N, T]` objective values of `[N, V]` doses."""
    return jnp.stack(
      [
        (share * self._term(dose, t)).sum(-1)
        for t, share in enumerate(self.share)
      ],
      -1,
    )

  def _term(self, dose: jax.Array, t: int) -> jax.Array:
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
    objectives: on those voxels, in fractions of the highest prescription.
    names: `[T]`.
  """

  index: np.ndarray
  objectives: Objectives
  names: tuple[str, ...]


def prescribed(
  masks: Mapping[str, np.ndarray], grid: Grid, protocol: Protocol
) -> dict[str, np.ndarray]:
  """The targets as they are planned.

  A voxel of several targets belongs to the one of the highest prescription;
  what is out of the body, or within `skin_mm` of its surface, to none.

  Args:
    masks: `[X, Y, Z]` by name; `body` and at least one target.
    grid: of the masks.
    protocol: names the targets.

  Returns:
    Disjoint `[X, Y, Z]` bool, by name in ascending order of prescription, of
    those that the patient has.

  Raises:
    PlanningError: no target, an empty one, or one that leaves the
      body.
  """
  found = {k: masks[k] > 0 for k in protocol.ascending if k in masks}
  if not found:
    raise PlanningError(
      f'{" and ".join(protocol.ascending)} missing: nothing to treat'
    )
  for name, target in found.items():
    if not target.any():
      raise PlanningError(f'{name} is empty: contour it before planning')
  body = masks['body'] > 0
  if protocol.skin_mm:
    inner = ndimage.distance_transform_edt(
      np.pad(body, ((1, 1), (1, 1), (0, 0))), sampling=grid.spacing_mm
    )
    body = inner[1:-1, 1:-1] > protocol.skin_mm
  for name, target in found.items():
    outside = (target & ~(masks['body'] > 0)).sum() / target.sum()
    if outside > _MOST_TARGET_OUTSIDE:
      raise PlanningError(f'{outside:.0%} of {name} reach out of the body')
  taken = ~body
  disjoint = {}
  for name in reversed(found):
    disjoint[name] = found[name] & ~taken
    taken |= found[name]
  kept = {k: disjoint[k] for k in found if disjoint[k].any()}
  if not kept:
    raise PlanningError(
      f'{" and ".join(found)} lie within {protocol.skin_mm} mm of the surface'
    )
  return kept


def sample_objectives(
  masks: Mapping[str, np.ndarray],
  targets: Mapping[str, np.ndarray],
  grid: Grid,
  protocol: Protocol,
) -> Sampled:
  """Chooses voxels and writes the protocol's objectives on them.

  The targets and the smaller OARs are taken whole: a subsampled target is
  left with cold spots that nothing sees. A larger OAR is taken from a
  lattice, and so is the body, more densely near a target, each sample
  standing for its cell.

  An OAR counts outside the targets only. In the overlap the target's wish
  rules: an OAR that pulls the dose down there makes D95, hence the scaling to
  it, raise the dose everywhere else. Of what the patient lacks, an objective
  is 0.

  Args:
    masks: `[X, Y, Z]` by name; `body` and the OARs.
    targets: as `prescribed` gives them.
    grid: of the masks.
    protocol: names, thresholds and spacings.
  """
  body = masks['body'] > 0
  target = np.any(list(targets.values()), 0)
  away = {
    name: ndimage.distance_transform_edt(~mask, sampling=grid.spacing_mm)
    for name, mask in targets.items()
  }
  near = np.min(list(away.values()), 0) <= protocol.near_mm
  cell = np.where(
    near,
    _lattice(grid, protocol.body_near_mm),
    _lattice(grid, protocol.body_far_mm),
  )
  chosen = target | (body & (cell > 0))
  seen = {}
  for name in protocol.oars:
    seen[name] = masks[name] > 0 if name in masks else np.zeros_like(body)
    if np.count_nonzero(seen[name]) > protocol.oar_voxels:
      seen[name] &= _lattice(grid, protocol.oar_mm) > 0
    chosen |= seen[name]
  index = np.argwhere(chosen)
  at = tuple(index.T)

  nothing = np.zeros(len(index))
  inside = {
    name: targets[name][at] if name in targets else nothing
    for name in protocol.targets
  }
  inside |= {name: (mask & ~target)[at] for name, mask in seen.items()}
  inside['body'] = np.where(target[at], 0, cell[at])
  listed = terms(protocol)
  share = np.stack(
    [np.asarray(inside[t.structure], np.float64) for t in listed]
  )
  threshold = np.stack(
    [nothing + protocol.reference.to_fraction(t.level_gy) for t in listed]
  )
  for name, distance in away.items():
    fall = np.clip(distance[at] / protocol.body_fall_mm, 0, 1)
    top, low = protocol.body_fall
    top *= protocol.reference.to_fraction(protocol.targets[name])
    threshold[-1] = np.maximum(threshold[-1], top + (low - top) * fall)
  total = share.sum(1, keepdims=True)
  objectives = Objectives(
    share=(share / np.where(total > 0, total, 1)).astype(np.float32),
    threshold=threshold.astype(np.float32),
    deviation=np.array([t.form == 'deviation' for t in listed], np.float32),
    linear=np.array([t.form == 'mean' for t in listed], np.float32),
  )
  return Sampled(index, objectives, tuple(t.name for t in listed))


def thinned(sampled: Sampled, most: int) -> Sampled:
  """Every n-th voxel of each objective that has more than `most`."""
  objectives = sampled.objectives
  keep = np.zeros(len(sampled.index), bool)
  for share in objectives.share:
    inside = np.flatnonzero(share)
    keep[inside[:: max(1, len(inside) // most)]] = True
  share = objectives.share[:, keep]
  total = share.sum(1, keepdims=True)
  objectives = dataclasses.replace(
    objectives,
    share=share / np.where(total > 0, total, 1),
    threshold=objectives.threshold[:, keep],
  )
  return Sampled(sampled.index[keep], objectives, sampled.names)


def _lattice(grid: Grid, spacing_mm: float) -> np.ndarray:
  """`[X, Y, Z]` voxels a lattice point stands for; 0 off the lattice."""
  steps = [max(1, round(spacing_mm / s)) for s in grid.spacing_mm]
  cells = np.zeros(grid.shape, np.float32)
  cells[tuple(slice(s // 2, None, s) for s in steps)] = np.prod(steps)
  return cells
