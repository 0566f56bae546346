"""Pareto-optimal plans for one patient's contours.

First many candidates are planned coarsely: beamlets twice as wide, a sample of
the voxels. A subset is chosen (`pareto.choose`), and each chosen plan is
solved in full, starting from its coarse fluence.
"""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dvhflax import dose_volume
from dvhflax.errors import PlanningError
from dvhflax.grid import Grid
from dvhflax.planning import fluence as fluence_lib
from dvhflax.planning import memory, pareto
from dvhflax.planning import problem as problem_lib
from dvhflax.planning.beams import Beamlets, open_beamlets
from dvhflax.planning.influence import Influence
from dvhflax.planning.objectives import (
  Sampled,
  prescribed,
  sample_objectives,
  thinned,
)
from dvhflax.planning.problem import Problem
from dvhflax.planning.raytrace import DepthMaps, depth_maps
from dvhflax.planning.trade_offs import TradeOffs
from dvhflax.sites.protocol import Protocol

# Candidates that a set is chosen from: at least so many, and so many a plan.
_CANDIDATES, _CANDIDATES_A_PLAN = 128, 4
# Coarse plans: voxels a structure, and iterations, after which their DVHs are
# within 1% or 2% of where they would end.
_COARSE_VOXELS, _COARSE_ITERATIONS = 500, 80
# DVH levels that coarse plans are compared at, fractions of the prescription.
_LEVELS = np.linspace(0, 1.2, 33)[1:]


@dataclasses.dataclass(frozen=True)
class Plans:
  """N plans of a patient.

  Attributes:
    dose_gy: `[N, X, Y, Z]` float32, scaled so that the protocol's coverage of
      the target of the highest prescription has it; 0 out of the body.
    weights: `[N, T]` objective weights.
    values: `[N, T]` objectives of the solved fluence, before the scaling.
    gap: `[N]`, see `fluence.Solution`.
    objectives: `[T]` their names.
  """

  dose_gy: np.ndarray
  weights: np.ndarray
  values: np.ndarray
  gap: np.ndarray
  objectives: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Model:
  """What a patient's plans have in common.

  Attributes:
    grid: of masks and dose.
    body: `[X, Y, Z]` bool, where dose is computed.
    targets: see `objectives.prescribed`.
    protocol: what to plan.
    beamlets, maps, influence, sampled, problem: beams, depths, and what the
      optimiser sees.
    unit: of the problem's fluence: open fields of 1 give the target of the
      highest prescription that prescription on average.
  """

  grid: Grid
  body: np.ndarray
  targets: Mapping[str, np.ndarray]
  protocol: Protocol
  beamlets: Beamlets
  maps: DepthMaps
  influence: Influence
  sampled: Sampled
  problem: Problem
  unit: jax.Array

  @classmethod
  def of(
    cls,
    masks: Mapping[str, np.ndarray],
    spacing_mm: tuple[float, float, float],
    protocol: Protocol,
    density: np.ndarray | None = None,
  ) -> 'Model':
    """Prepares a patient.

    Args:
      masks: `[X, Y, Z]` by name: `body`, the targets, the OARs.
      spacing_mm: voxel size.
      protocol: what to plan.
      density: `[X, Y, Z]` relative to water; None: water inside the body.

    Raises:
      PlanningError: body or targets are missing or empty, a target reaches out
        of the body or to the sides of the grid.
    """
    if 'body' not in masks:
      raise PlanningError('body is missing: the dose needs its surface')
    shapes = sorted({mask.shape for mask in masks.values()})
    if len(shapes) != 1:
      raise PlanningError(f'masks of several shapes: {shapes}')
    if len(shapes[0]) != 3:
      raise PlanningError(f'masks must be [X, Y, Z], not {shapes[0]}')
    if len(spacing_mm) != 3 or not min(spacing_mm) > 0:
      raise PlanningError(
        f'spacing_mm={spacing_mm}: give three positive numbers, along x, y, z'
      )
    grid = Grid(shapes[0], spacing_mm)
    targets = prescribed(masks, grid, protocol)
    body = masks['body'] > 0
    beamlets = _beamlets(targets, grid, protocol, protocol.beamlet_mm)
    maps = depth_maps(body if density is None else density, grid, beamlets)
    sampled = sample_objectives(masks, targets, grid, protocol)
    influence = Influence(beamlets, maps)
    problem, unit = _problem(influence, sampled, grid, protocol)
    return cls(grid, body, targets, protocol, beamlets, maps, influence,
               sampled, problem, unit)  # fmt: skip

  def coarse(self) -> 'Model':
    """The same patient with fewer beamlets and voxels."""
    width = 2 * self.protocol.beamlet_mm
    beamlets = _beamlets(self.targets, self.grid, self.protocol, width)
    influence = Influence(beamlets, self.maps)
    sampled = thinned(self.sampled, _COARSE_VOXELS)
    problem, unit = _problem(influence, sampled, self.grid, self.protocol)
    return dataclasses.replace(
      self, beamlets=beamlets, influence=influence, sampled=sampled,
      problem=problem, unit=unit,
    )  # fmt: skip

  def flat(self, plans: int) -> jax.Array:
    """`[N, M]` open fields."""
    start = jnp.where(jnp.asarray(self.beamlets.active) >= 0, 1.0, 0.0)
    return jnp.tile(start, (plans, 1))

  def dose_gy(self, fluence: jax.Array) -> np.ndarray:
    """`[N, X, Y, Z]` of `[N, M]` fluences, not scaled."""
    points = self.grid.centres(np.argwhere(self.body))
    unit = self.unit * self.protocol.prescription_gy
    dose = np.zeros((len(fluence), *self.grid.shape), np.float32)
    flat = dose.reshape(len(dose), -1)
    inside = np.flatnonzero(self.body)
    self.influence.write_dose(flat, inside, points, fluence * unit)
    return dose

  def scaled_gy(self, fluence: jax.Array) -> np.ndarray:
    """`[N, X, Y, Z]` of `[N, M]` fluences, scaled as `Plans` has them."""
    dose = self.dose_gy(fluence)
    highest, target = list(self.targets.items())[-1]
    covered = _coverage_dose(dose[:, target], self.protocol)
    dose *= (self.protocol.targets[highest] / covered)[:, None, None, None]
    return dose


def _beamlets(
  targets: Mapping[str, np.ndarray],
  grid: Grid,
  protocol: Protocol,
  width_mm: float,
) -> Beamlets:
  return open_beamlets(
    np.any(list(targets.values()), 0),
    grid,
    angles=protocol.angles,
    sad_mm=protocol.sad_mm,
    width_mm=width_mm,
    margin_mm=protocol.margin_mm,
  )


def _problem(
  influence: Influence, sampled: Sampled, grid: Grid, protocol: Protocol
) -> tuple[Problem, jax.Array]:
  matrix = influence.rows(grid.centres(sampled.index))
  padding = ((0, 0), (0, len(matrix) - len(sampled.index)))
  objectives = dataclasses.replace(
    sampled.objectives,
    share=np.pad(sampled.objectives.share, padding),
    threshold=np.pad(sampled.objectives.threshold, padding),
  )
  present = objectives.share.any(1) & (objectives.deviation > 0)
  highest = np.flatnonzero(present)[-1]
  unit = 1 / (objectives.share[highest] @ memory.hand_over(matrix).sum(1))
  # JAX is done with it once the unit is known.
  matrix[: len(sampled.index)] *= np.float32(unit)
  opened = np.count_nonzero(influence.beamlets.open)
  problem = Problem(
    influence=memory.hand_over(matrix),
    used=jnp.asarray([len(sampled.index), opened]),
    neighbours=jnp.asarray(influence.beamlets.neighbours),
    objectives=jax.tree.map(jnp.asarray, objectives),
    most_fluence=jnp.float32(protocol.most_fluence),
  )
  return problem, unit


def _coverage_dose(dose: np.ndarray, protocol: Protocol) -> np.ndarray:
  """`[N]` doses that `coverage_percent` of a target's `[N, V]` receive."""
  return dose_volume.dose_at_volume_fraction(
    dose, protocol.coverage_percent / 100
  )


def plan_patient(
  masks: Mapping[str, np.ndarray],
  spacing_mm: tuple[float, float, float],
  plans: int,
  protocol: Protocol,
  *,
  density: np.ndarray | None = None,
  beside: np.ndarray | None = None,
) -> Plans:
  """Plans a patient.

  Args:
    masks: `[X, Y, Z]` by name: `body`, the targets, the OARs; OARs may be
      missing.
    spacing_mm: voxel size.
    plans: N >= 1.
    protocol: what to plan.
    density: `[X, Y, Z]` relative to water; None: water inside the body.
    beside: `[E, T]` weights of plans that the patient has already; the new
      ones cover what those leave.

  Raises:
    PlanningError: body or targets are missing or empty, a target reaches out
      of the body or to the sides of the grid, or the optimisation does not
      converge.
  """
  if plans < 1:
    raise PlanningError(f'plans={plans} must be at least 1')
  model = Model.of(masks, spacing_mm, protocol, density)
  weights, start = cover(model, list(masks), plans, beside)
  solution = fluence_lib.solve(
    model.problem,
    jnp.asarray(weights, jnp.float32),
    start,
    gap=protocol.gap,
    most_iterations=protocol.most_iterations,
  )
  dose = model.scaled_gy(solution.fluence)
  names = (*model.sampled.names, 'roughness')
  return Plans(dose, weights, solution.values, solution.gap, names)


def cover(
  model: Model,
  structures: list[str],
  plans: int,
  beside: np.ndarray | None = None,
) -> tuple[np.ndarray, jax.Array]:
  """Chooses plans that cover the patient's front.

  Args:
    model: the patient.
    structures: that the patient has.
    plans: N.
    beside: see `plan_patient`.

  Returns:
    weights `[N, T + 1]`, fluences `[N, M]` near the optimum.

  Raises:
    PlanningError: several plans, and nothing to trade off.
  """
  trade_offs = TradeOffs.of(model.protocol, structures)
  if plans > 1 and not trade_offs.axes:
    raise PlanningError(
      f'protocol {model.protocol.name} has no trade-off for this patient, so '
      f'all {plans} plans would be the same: ask for one plan'
    )
  old = trade_offs.places(beside) if beside is not None else None
  first = trade_offs.anchors()[:plans] if old is None else old
  candidates = max(_CANDIDATES, _CANDIDATES_A_PLAN * plans)
  places = np.concatenate(
    [first, trade_offs.spread(max(candidates - len(first), plans))]
  )
  weights = trade_offs.weights(places)
  coarse = model.coarse()
  fluence = fluence_lib.approach(
    coarse.problem,
    jnp.asarray(weights, jnp.float32),
    coarse.flat(len(weights)),
    _COARSE_ITERATIONS,
  )
  curves = _curves(coarse, fluence)
  kept = 0 if old is None else len(old)
  chosen = pareto.choose(
    pareto.distances(curves, curves), plans + kept, len(first)
  )[kept:]
  parent = coarse.beamlets.around(model.beamlets)
  start = jnp.where(parent >= 0, fluence[chosen][:, parent], 0)
  return weights[chosen], start


def _curves(model: Model, fluence: jax.Array) -> np.ndarray:
  """`[C, S, K]` cumulative DVHs of the sampled voxels of each structure."""
  objectives = model.sampled.objectives
  dose = np.asarray(problem_lib.dose(fluence, model.problem.influence))
  dose = dose[:, : objectives.share.shape[1]]
  targets = np.flatnonzero((objectives.deviation > 0) & objectives.share.any(1))
  target = objectives.share[targets[-1]] > 0
  dose = dose / _coverage_dose(dose[:, target], model.protocol)[:, None]
  curves = []
  for share, linear in zip(objectives.share, objectives.linear):
    if linear or not share.any():
      continue
    inside = share > 0
    above = dose[:, inside, None] >= _LEVELS
    curves.append(np.einsum('cvk,v->ck', above, share[inside]))
  return np.stack(curves, 1)
