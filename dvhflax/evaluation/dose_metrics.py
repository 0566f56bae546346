"""What evaluation reads off doses: of a patient's plans, each read once."""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from dvhflax import dose_volume
from dvhflax.cohort.store import Cohort
from dvhflax.dose_volume import Voxels
from dvhflax.normalisation import highest_target
from dvhflax.patient import Structure

# Doses, in fractions of the reference, that a part of an organ receives or
# more: half of it, the volume that lower doses spread over, and 90%, the volume
# next to the target. For 78 Gy these are V39 and V70.
LEVELS = (0.5, 0.9)
# Shares of the highest target, in %, whose dose is its coverage.
COVERAGE = (95.0, 98.0)


@dataclasses.dataclass(frozen=True)
class DoseMetrics:
  """What is read off one dose; NaN where a structure is absent.

  Attributes:
    mean: `[S]` mean dose, in the unit of the dose.
    max: `[S]` maximum dose.
    volume: `[S, L]` volume fractions that receive `LEVELS` or more.
    coverage: `[2]` doses that `COVERAGE` of the highest target receives.
  """

  mean: np.ndarray
  max: np.ndarray
  volume: np.ndarray
  coverage: np.ndarray


class Inside:
  """Where a patient's structures are: looked up once, for many doses."""

  def __init__(
    self,
    masks: np.ndarray,
    present: np.ndarray,
    structures: Sequence[Structure],
  ):
    """Args: `[X, Y, Z, S]` of 0 or 1; `[S]` bool; `[S]`."""
    self._voxels = [
      np.flatnonzero(masks[..., s]) if present[s] else np.array([], int)
      for s in range(len(structures))
    ]
    self._target = highest_target(structures, present)

  def measure(self, dose: np.ndarray) -> DoseMetrics:
    """The metrics of a `[X, Y, Z]` dose in fractions of the reference."""
    flat = dose.reshape(-1)
    mean, top = np.full((2, len(self._voxels)), np.nan)
    volume = np.full((len(self._voxels), len(LEVELS)), np.nan)
    for s, voxels in enumerate(self._voxels):
      if voxels.size:
        inside = Voxels(flat[voxels])
        mean[s], top[s] = inside.mean_dose, inside.max_dose
        volume[s] = dose_volume.volume_fraction_at_dose(inside.dose, LEVELS)
    target = flat[self._voxels[self._target]]
    coverage = [
      dose_volume.dose_at_volume_fraction(target, percent / 100)
      for percent in COVERAGE
    ]
    return DoseMetrics(mean, top, volume, np.array(coverage))


class PlanMetrics:
  """The metrics of a cohort's plans; a plan is read when it is first asked for.

  A patient may have hundreds of plans, of which no two are in memory at once.
  """

  def __init__(self, cohort: Cohort):
    self._cohort = cohort
    self._inside: dict[int, Inside] = {}
    self._found: dict[tuple[int, int], DoseMetrics] = {}

  def inside(self, patient: int) -> Inside:
    """The structures of a patient."""
    if patient not in self._inside:
      cohort = self._cohort
      # Of one patient only: the places of a body are millions of numbers.
      self._inside = {
        patient: Inside(
          cohort.masks(patient), cohort.present[patient], cohort.structures
        )
      }
    return self._inside[patient]

  def of(self, patient: int, plan: int) -> DoseMetrics:
    """The metrics of a plan."""
    key = int(patient), int(plan)
    if key not in self._found:
      dose = self._cohort.dose(*key)
      self._found[key] = self.inside(key[0]).measure(dose)
    return self._found[key]

  def read(self, patient: int) -> dict[int, DoseMetrics]:
    """Number -> metrics of the patient's plans that were asked for."""
    return {n: found for (p, n), found in self._found.items() if p == patient}

  def add(self, patient: int, found: Mapping[int, DoseMetrics]) -> None:
    """Adds what was read elsewhere, see `read`."""
    self._found |= {(patient, n): metrics for n, metrics in found.items()}
