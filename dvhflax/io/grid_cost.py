"""Loss of accuracy on the cohort grid, and warnings on suspicious values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dvhflax.dose_volume import Curve, ReadOffs, Voxels
from dvhflax.normalisation import DoseReference

# Dose levels of the reported volumes, in % of the reference dose.
_LEVELS = (50, 70, 90, 95)
# Volumes of the reported doses, in % of the structure.
_COVERAGES = (95, 50, 2)


def cost(
  before: Curve, after: np.ndarray, reference_gy: float
) -> dict[str, dict[str, float]]:
  """Doses in % of the reference and volumes in %, on either grid.

  Args:
    before: on the source grids, in Gy.
    after: `[V]` Gy of the cohort grid's voxels, measured as evaluation does.
    reference_gy: the plan's prescription.
  """
  unit = DoseReference.of_prescription(reference_gy)
  return {'source': _read(unit, before), 'cohort': _read(unit, Voxels(after))}


def _read(unit: DoseReference, dose_gy: ReadOffs) -> dict[str, float]:
  """Mean, Dx and Vx."""

  def percent(gy: float) -> float:
    return unit.to_percent(unit.to_fraction(gy))

  read = {'mean': percent(dose_gy.mean_dose)}
  for volume in _COVERAGES:
    read[f'D{volume}'] = percent(dose_gy.dose_at_volume_percent(volume))
  for level in _LEVELS:
    level_gy = unit.to_gy(unit.percent_to_fraction(level))
    read[f'V{level}'] = dose_gy.volume_percent_at_dose(level_gy)
  return read


def warnings(
  found: Mapping[str, Any], plans: Sequence[dict[str, Any]], target: str
) -> list[str]:
  """Warnings on a patient, a line each."""
  lines = []
  for name, entry in found.items():
    for key, place in (('outside_grid', 'grid'), ('outside_dose', 'dose')):
      if entry[key] > 0.001:
        lines.append(f'{entry[key]:.1%} of {name} lie outside of the {place}')
    if not entry['mask_cc']:
      lines.append(f'{name} lies outside of the grid')
  for plan, cost in zip(plans, found[target]['plans']):
    median = cost['source']['D50']
    if not 50 < median < 200:
      lines.append(
        f'{plan["label"]}: D50 of {target} is {median:.0f}% of the reference '
        'dose; is the dose of one fraction, or the prescription of another '
        'target?'
      )
  return lines
