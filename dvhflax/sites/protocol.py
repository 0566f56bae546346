"""What a planner is asked for: beams, prescriptions, objectives, effort."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NoReturn

import numpy as np

from dvhflax.errors import PlanningError
from dvhflax.normalisation import DoseReference


@dataclasses.dataclass(frozen=True)
class Oar:
  """What spares an organ at risk.

  Attributes:
    threshold_gy: dose beyond which its squared overdose counts.
    weights: least and most weight of the overdose, relative to the target's.
      Plans trade the organ off between them; the same twice fixes it.
    mean_share: weight of its mean dose, in parts of the overdose's; 0 where
      only its highest doses matter.
  """

  threshold_gy: float
  weights: tuple[float, float]
  mean_share: float = 0.25


@dataclasses.dataclass(frozen=True)
class Protocol:
  """A planning protocol.

  Attributes:
    name: of the protocol, for people.
    beams: equidistant coplanar beams, the first at gantry angle 0.
    targets: prescription in Gy by name. Where targets overlap, the highest
      prescription rules.
    oars: organs at risk by name; a patient may lack some.
    coverage_percent: the dose is scaled so that this much of the target of the
      highest prescription receives it.
    sad_mm: distance from the source to the isocentre.
    beamlet_mm: beamlet width in the plane of the isocentre.
    margin_mm: open beamlets reach so far beyond the targets' projection.
    most_fluence: of a beamlet, in multiples of the open fields that give the
      targets their prescription on average.
    skin_mm: the optimiser sees no target this close to the body's surface,
      where the dose builds up and no fluence helps.
    body_near_mm: spacing of the body voxels that the optimiser sees within
      `near_mm` of a target.
    body_far_mm: the same beyond `near_mm`.
    near_mm: see above.
    oar_mm: spacing of the voxels of an OAR of more than `oar_voxels`.
    oar_voxels: see above.
    body_weights: least and most weight of the body, relative to the target's.
    body_fall: dose that the body may have at a target and `body_fall_mm` away,
      in fractions of the target's and of the highest prescription.
    body_fall_mm: see above.
    roughness_weight: weight of the fluence's roughness in every plan.
    gap: a plan is solved when its objective is within this fraction of the
      least possible.
    most_iterations: a plan that takes more is refused.
  """

  name: str
  beams: int
  targets: Mapping[str, float]
  oars: Mapping[str, Oar]
  coverage_percent: float = 95.0
  sad_mm: float = 1000.0
  beamlet_mm: float = 5.0
  margin_mm: float = 6.0
  most_fluence: float = 4.0
  skin_mm: float = 0.0
  body_near_mm: float = 10.0
  body_far_mm: float = 16.0
  near_mm: float = 45.0
  oar_mm: float = 7.0
  oar_voxels: int = 4096
  body_weights: tuple[float, float] = (8.0, 12.0)
  body_fall: tuple[float, float] = (0.95, 0.4)
  body_fall_mm: float = 30.0
  roughness_weight: float = 0.01
  gap: float = 0.006
  most_iterations: int = 2000

  def __post_init__(self) -> None:
    if not self.targets:
      self._refuse('needs a target')
    if self.beams < 1 or self.most_iterations < 1:
      self._refuse('needs beams and iterations')
    positive = (
      'sad_mm', 'beamlet_mm', 'most_fluence', 'body_near_mm', 'body_far_mm',
      'oar_mm', 'body_fall_mm', 'gap',
    )  # fmt: skip
    for field in positive:
      if not getattr(self, field) > 0:
        self._refuse(f'{field}={getattr(self, field)} must be positive')
    for name, prescription in self.targets.items():
      if not prescription > 0:
        self._refuse(f'targets.{name}={prescription} must be positive')
    if not 0 < self.coverage_percent < 100:
      self._refuse(f'coverage_percent={self.coverage_percent} is no share')
    bounds = {f'oars.{k}.weights': oar.weights for k, oar in self.oars.items()}
    bounds['body_weights'] = self.body_weights
    bounds['roughness_weight'] = (self.roughness_weight,) * 2
    for key, (least, most) in bounds.items():
      if not 0 < least <= most:
        self._refuse(
          f'{key}=({least}, {most}): least and most weight must ascend and be '
          'positive, or plans are not Pareto-optimal'
        )
    for name, oar in self.oars.items():
      if oar.threshold_gy < 0 or oar.mean_share < 0:
        self._refuse(f'oars.{name} needs threshold_gy and mean_share >= 0')

  def _refuse(self, why: str) -> NoReturn:
    raise PlanningError(f'protocol {self.name}: {why}')

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'Protocol':
    """The inverse of `to_dict`.

    Raises:
      PlanningError: for a key that is unknown or missing, or a value that
        cannot be.
    """
    name = values.get('name', 'without a name')
    fields = dict(values)
    try:
      fields['targets'] = {k: float(v) for k, v in fields['targets'].items()}
      fields['oars'] = {
        k: Oar(**{**v, 'weights': tuple(v['weights'])})
        for k, v in fields['oars'].items()
      }
      for key in ('body_weights', 'body_fall'):
        if key in fields:
          fields[key] = tuple(fields[key])
      return cls(**fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise PlanningError(f'protocol {name}: {error}') from None

  def to_dict(self) -> dict[str, Any]:
    """JSON-serialisable; equal for equal protocols."""
    values = dataclasses.asdict(self)
    values['targets'] = dict(self.targets)
    values['oars'] = {k: dataclasses.asdict(v) for k, v in self.oars.items()}
    return values

  def changed(self) -> dict[str, Any]:
    """As `to_dict`, without the fields that have their default."""
    defaults = {f.name: f.default for f in dataclasses.fields(self)}
    values = self.to_dict()
    return {k: v for k, v in values.items() if v != defaults[k]}

  @property
  def angles(self) -> np.ndarray:
    """`[B]` gantry angles in radians."""
    return 2 * np.pi * np.arange(self.beams) / self.beams

  @property
  def prescription_gy(self) -> float:
    """The highest prescription."""
    return max(self.targets.values())

  @property
  def reference(self) -> DoseReference:
    """The planner's unit: 1.0 is the highest prescription."""
    return DoseReference.of_prescription(self.prescription_gy)

  @property
  def ascending(self) -> list[str]:
    """Targets in ascending order of prescription."""
    return sorted(self.targets, key=lambda name: self.targets[name])
