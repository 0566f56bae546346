"""What a planner is asked for: beams, prescription, objectives, effort."""

import dataclasses

import numpy as np

from dvhflax.errors import PlanningError


@dataclasses.dataclass(frozen=True)
class Protocol:
  """A planning protocol.

  Attributes:
    name: recorded with every plan.
    beams: equidistant coplanar beams, the first at gantry angle 0.
    prescription_gy: dose that 95% of the target receive.
    target: name of the target.
    oars: organs at risk whose sparing the plans trade off.
    oar_threshold: fraction of the prescription beyond which an OAR's
      overdose counts.
    sad_mm: distance from the source to the isocentre.
    beamlet_mm: beamlet width in the plane of the isocentre.
    margin_mm: open beamlets reach so far beyond the target's projection.
    body_near_mm, body_far_mm: spacing of the body voxels that the optimiser
      sees, within `near_mm` of the target and beyond.
    near_mm: see above.
    oar_mm: spacing of the voxels of an OAR of more than `oar_voxels`.
    oar_voxels: see above.
    iterations: of the fluence optimisation.
    oar_weights: least and most weight of each OAR, relative to the target's.
    body_weights: least and most weight of the body, likewise.
    roughness_weight: weight of the fluence's roughness in every plan.
  """

  name: str
  beams: int
  prescription_gy: float
  target: str
  oars: tuple[str, ...]
  oar_threshold: float = 0.4
  sad_mm: float = 1000.0
  beamlet_mm: float = 5.0
  margin_mm: float = 6.0
  body_near_mm: float = 10.0
  body_far_mm: float = 16.0
  near_mm: float = 45.0
  oar_mm: float = 7.0
  oar_voxels: int = 4096
  iterations: int = 280
  oar_weights: tuple[tuple[float, float], ...] = (
    (4e-3, 0.05),
    (2e-3, 0.06),
  )
  body_weights: tuple[float, float] = (8.0, 12.0)
  roughness_weight: float = 0.01

  def __post_init__(self):
    if self.beams < 1 or self.iterations < 1:
      raise PlanningError(f'protocol {self.name}: needs beams and iterations')
    if min(self.beamlet_mm, self.sad_mm, self.prescription_gy) <= 0:
      raise PlanningError(f'protocol {self.name}: lengths and doses are > 0')
    bounds = (*self.oar_weights, self.body_weights)
    if min(self.roughness_weight, *map(min, bounds)) <= 0:
      raise PlanningError(
        f'protocol {self.name}: weights are > 0, or plans are not '
        'Pareto-optimal'
      )

  @property
  def angles(self) -> np.ndarray:
    """`[B]` gantry angles in radians."""
    return 2 * np.pi * np.arange(self.beams) / self.beams


# The paper's seven beams; 78 Gy as in the trials that design margins for it.
PROSTATE = Protocol(
  name='prostate-7-beams',
  beams=7,
  prescription_gy=78.0,
  target='PTV',
  oars=('rectum', 'bladder'),
)
