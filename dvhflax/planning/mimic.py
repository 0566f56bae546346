"""Dose mimicking: the deliverable dose that is closest to any given one.

Turns a prediction into a plan and reports how far the prediction is from the
closest dose that the protocol's beams can deliver. Closest means the least mean
squared difference, all structures weighted alike, plus the protocol's penalty
on the roughness of the fluence.
"""

from collections.abc import Callable, Mapping
import dataclasses

import jax.numpy as jnp
import numpy as np

from dvhflax import errors
from dvhflax.normalisation import DoseReference
from dvhflax.planning import fluence as fluence_lib
from dvhflax.planning.planner import Model
from dvhflax.sites.protocol import Protocol

# Solved when the squared difference, over all structures, is known to be within
# this of the least: 0.3% of the prescription, squared. It is much closer then.
_ENOUGH = 1e-5
# Of the roughness, below which fluences are what the dose asks for.
_ROUGHNESS = 1e-4


@dataclasses.dataclass(frozen=True)
class Mimicked:
  """A deliverable dose.

  Attributes:
    dose_gy: `[X, Y, Z]` float32, not scaled; 0 out of the body.
    fluence: `[M]` of `model.beamlets.active`.
    model: the patient with the protocol's beams.
    difference: by structure, in % of the prescription: `mean` of deliverable
      minus given dose, `mean_absolute`, and `largest` magnitude.
  """

  dose_gy: np.ndarray
  fluence: np.ndarray
  model: Model
  difference: dict[str, dict[str, float]]


def mimic(
  dose_gy: np.ndarray,
  masks: Mapping[str, np.ndarray],
  spacing_mm: tuple[float, float, float],
  protocol: Protocol,
  density: np.ndarray | None = None,
  prescription_gy: float | None = None,
  progress: Callable[[float], None] | None = None,
  prepared: Callable[[], None] | None = None,
) -> Mimicked:
  """Finds the fluence whose dose is closest to a given one.

  Args:
    dose_gy: `[X, Y, Z]`, what to come close to.
    masks: `[X, Y, Z]` by name, see `planner.plan_patient`.
    spacing_mm: voxel size.
    protocol: of the beams and the effort.
    density: `[X, Y, Z]` relative to water; None: water inside the body.
    prescription_gy: of the patient, which differences are in % of; None: the
      protocol's highest.
    progress: told again and again how much wider than enough the gap to the
      closest dose still is; see `fluence.solve`.
    prepared: called once the dose of the beams is known, which is a large part
      of the time.

  Raises:
    PlanningError: a dose of another shape, negative or not finite; a patient
      that cannot be planned.
  """
  shape = masks['body'].shape if 'body' in masks else dose_gy.shape
  if dose_gy.shape != shape:
    raise errors.PlanningError(
      f'the dose has shape {dose_gy.shape}, but the masks {shape}'
    )
  if not np.isfinite(dose_gy).all() or dose_gy.min() < 0:
    raise errors.PlanningError(
      'the dose has voxels that are negative or not finite'
    )
  model = Model.of(masks, spacing_mm, protocol, density)
  if prepared:
    prepared()
  wanted = protocol.reference.to_fraction(dose_gy[tuple(model.sampled.index.T)])
  old = model.problem.objectives
  # Each structure once: the means of OARs go, overdoses become deviations.
  keep = jnp.asarray(1 - old.linear)
  threshold = np.zeros(old.share.shape[1], np.float32)
  threshold[: len(wanted)] = wanted
  objectives = dataclasses.replace(
    old,
    share=old.share * keep[:, None],
    threshold=jnp.tile(threshold, (len(old.share), 1)),
    deviation=jnp.ones_like(old.deviation),
    linear=jnp.zeros_like(old.linear),
  )
  problem = dataclasses.replace(model.problem, objectives=objectives)
  weights = jnp.ones((1, len(old.share) + 1)).at[:, -1].set(_ROUGHNESS)
  solution = fluence_lib.solve(
    problem,
    weights,
    model.flat(1),
    gap=protocol.gap,
    most_iterations=10 * protocol.most_iterations,
    negligible=_ENOUGH / protocol.gap,
    progress=progress,
  )
  dose = model.dose_gy(solution.fluence)[0]
  return Mimicked(
    dose,
    np.asarray(solution.fluence[0]),
    model,
    differences(
      dose,
      dose_gy,
      masks,
      DoseReference.of_prescription(
        prescription_gy or protocol.prescription_gy
      ),
    ),
  )


def differences(
  dose_gy: np.ndarray,
  other_gy: np.ndarray,
  masks: Mapping[str, np.ndarray],
  reference: DoseReference,
) -> dict[str, dict[str, float]]:
  """See `Mimicked.difference`."""
  percent = reference.to_percent(reference.to_fraction(dose_gy - other_gy))
  found = {}
  for name, mask in masks.items():
    if mask.any():
      off = percent[mask > 0]
      found[name] = {
        'mean': float(off.mean()),
        'mean_absolute': float(np.abs(off).mean()),
        'largest': float(np.abs(off).max()),
      }
  return found
