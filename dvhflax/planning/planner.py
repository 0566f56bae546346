"""Pareto-optimal plans for one patient's contours."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from dvhflax.errors import PlanningError
from dvhflax.planning import fluence as fluence_lib
from dvhflax.planning.beams import open_beamlets
from dvhflax.planning.grid import VoxelGrid
from dvhflax.planning.influence import CHUNK, Influence
from dvhflax.planning.objectives import sample_objectives
from dvhflax.planning.protocol import Protocol
from dvhflax.planning.raytrace import depth_maps


@dataclasses.dataclass(frozen=True)
class Plans:
  """N plans of a patient.

  Attributes:
    dose_gy: `[N, X, Y, Z]` float32, scaled so that D95 of the target is the
      prescription; 0 out of the body.
    weights: `[N, T]` objective weights.
    values: `[N, T]` objectives of the solved fluence, before the scaling.
    objectives: `[T]` their names.
  """

  dose_gy: np.ndarray
  weights: np.ndarray
  values: np.ndarray
  objectives: tuple[str, ...]


def trade_off_weights(plans: int, protocol: Protocol) -> np.ndarray:
  """Weights that spread over the trade-offs.

  First the corners, each OAR spared or not, then a Sobol sequence, both on a
  logarithmic scale between the protocol's bounds; overdose and mean of an OAR
  go together, the body varies on its own, the roughness does not vary.

  Args:
    plans: N.
    protocol: names and bounds.

  Returns:
    `[N, T]` in the order of `sample_objectives`, the target's being 1, then
    the roughness.
  """
  oars = len(protocol.oars)
  corners = np.array(
    [[i >> k & 1 for k in range(oars)] for i in range(1, 2**oars)]
  )
  corners = np.hstack([corners, np.full((len(corners), 1), 0.5)])
  # Skipping the sequence's first point, the corner where nothing is spared.
  sobol = qmc.Sobol(oars + 1, scramble=False).fast_forward(1)
  inner = sobol.random(max(plans - len(corners), 1))
  places = np.concatenate([corners, inner])[:plans]

  def between(bounds, place):
    low, high = np.log(bounds)
    return np.exp(low + (high - low) * place)

  columns = [np.ones(plans)]
  for k in range(oars):
    weight = between(protocol.oar_weights[k], places[:, k])
    columns += [weight, weight / 4]
  columns.append(between(protocol.body_weights, places[:, -1]))
  columns.append(np.full(plans, protocol.roughness_weight))
  return np.stack(columns, 1)


def plan_patient(
  masks: dict[str, np.ndarray],
  spacing_mm: tuple[float, float, float],
  plans: int,
  protocol: Protocol,
) -> Plans:
  """Plans a patient, water inside the body.

  Args:
    masks: `[X, Y, Z]` by name: `body`, the target, the OARs.
    spacing_mm: voxel size.
    plans: N >= 1.
    protocol: what to plan.

  Raises:
    PlanningError: a structure is missing, the target is empty, reaches out
      of the body or the border of the grid.
  """
  if plans < 1:
    raise PlanningError(f'{plans} plans were asked for; at least one is needed')
  if protocol.target not in masks:
    raise PlanningError(f'{protocol.target} is missing: nothing to treat')
  target = masks[protocol.target] > 0
  grid = VoxelGrid(target.shape, spacing_mm)
  beamlets = open_beamlets(
    target,
    grid,
    angles=protocol.angles,
    sad_mm=protocol.sad_mm,
    width_mm=protocol.beamlet_mm,
    margin_mm=protocol.margin_mm,
  )
  sampled = sample_objectives(masks, grid, protocol, CHUNK)
  body = masks['body'] > 0
  influence = Influence(beamlets, depth_maps(body, grid, beamlets))
  matrix = influence.rows(grid.centres(sampled.index))

  weights = jnp.asarray(trade_off_weights(plans, protocol), jnp.float32)
  # In units where open fields give the target the prescription on average.
  flat = matrix.sum(1)
  scale = 1 / (sampled.objectives.share[0] * flat).sum()
  start = jnp.where(jnp.asarray(beamlets.active) >= 0, 1.0, 0.0)
  fluence, values = fluence_lib.optimise(
    matrix * scale,
    jnp.asarray(beamlets.neighbours),
    sampled.objectives,
    weights,
    jnp.tile(start, (plans, 1)),
    protocol.iterations,
  )
  index = np.argwhere(body)
  dose = np.zeros((plans, *grid.shape), np.float32)
  dose[:, body] = influence.dose(grid.centres(index), fluence * scale)
  d95 = np.quantile(dose[:, target], 0.05, axis=1)
  dose *= (protocol.prescription_gy / d95)[:, None, None, None]
  names = (*sampled.names, 'roughness')
  return Plans(dose, np.asarray(weights), np.asarray(values), names)
