"""A plan's metrics, achieved and desired, and how usual a wish is.

Doses are in Gy, volumes in %. A desired DVH is read between its levels by
linear interpolation; what it cannot tell (CI and R50) is left out.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from dvhflax import metrics
from dvhflax.cohort.store import Cohort
from dvhflax.dvh import DVHSpec
from dvhflax.patient import Structure
from dvhflax.points import Point

# Shares of the prescription: doses of the V that organs are judged by, the
# isodose of a target's V and CI (ICRU 83 accepts 95% of it).
_ORGAN_LEVELS = (0.3, 0.5, 0.7, 0.9)
_COVERAGE = 0.95
# Half of the last digit that a point is printed to: 0.05% of the prescription
# or of the volume.
_PRINTED = 0.0005
# Training plans that the distribution of distances is taken over.
_MOST_PLANS = 1000

Table = dict[str, dict[str, float]]


def achieved(
  dose: np.ndarray,
  masks: np.ndarray,
  structures: Sequence[Structure],
  prescription_gy: float,
) -> Table:
  """Metrics of a dose by structure; structures without a voxel are left out.

  Args:
    dose: `[X, Y, Z]`, fraction of the prescription.
    masks: `[X, Y, Z, S]`, 0 or 1.
    structures: `[S]`.
    prescription_gy: of the highest target; CI and R50 of every target are with
      regard to it.
  """
  table: Table = {}
  for s, structure in enumerate(structures):
    inside = masks[..., s] > 0
    if not inside.any():
      continue
    voxels = dose[inside]
    row = {
      'mean': prescription_gy * metrics.mean_dose(voxels),
      'max': prescription_gy * metrics.max_dose(voxels),
    }
    for percent in (98, 95, 2):
      row[f'D{percent}%'] = prescription_gy * metrics.dose_at_volume_percent(
        voxels, percent
      )
    for level in _levels(structure):
      row[f'V{100 * level:.0f}%'] = metrics.volume_at_dose(voxels, level)
    if structure.role == 'target':
      row['HI'] = metrics.homogeneity_index(voxels)
      row['CI'] = metrics.paddick_conformity(dose, inside, _COVERAGE)
      row['R50'] = metrics.r50(dose, inside)
    table[structure.name] = row
  return table


def desired(
  desired_dvh: np.ndarray,
  structures: Sequence[Structure],
  spec: DVHSpec,
  prescription_gy: float,
) -> Table:
  """The same of a `[S, K]` desired DVH, as far as it tells them."""
  table: Table = {}
  for structure, vector in zip(structures, desired_dvh):
    if not vector.any():
      continue
    dose, volume = spec.levels.astype(np.float64), vector.astype(np.float64)
    if spec.kind == 'dose_at_volume':
      dose, volume = volume, dose

    def dose_at(percent, dose=dose, volume=volume):
      # Of equal volumes the last dose counts.
      return float(np.interp(-percent / 100, -volume, dose))

    row = {
      # The area under V(d), by parts where d is a function of the volume.
      'mean': prescription_gy
      * float(np.trapezoid(volume, dose) + dose[0] * volume[0]),
      'max': prescription_gy * _last_dose(dose, volume),
    }
    for percent in (98, 95, 2):
      row[f'D{percent}%'] = prescription_gy * dose_at(percent)
    for level in _levels(structure):
      row[f'V{100 * level:.0f}%'] = 100 * float(
        np.interp(level, dose, volume, right=0)
      )
    if structure.role == 'target' and dose_at(50) > 0:
      row['HI'] = (dose_at(2) - dose_at(98)) / dose_at(50)
    table[structure.name] = row
  return table


def point_achieved(
  point: Point, dose: np.ndarray, prescription_gy: float
) -> dict[str, Any]:
  """What was asked of a structure, and what its dose has of it.

  Args:
    point: what was asked.
    dose: `[V]` of the structure's voxels, fraction of the prescription.
    prescription_gy: as of `achieved`.

  Returns:
    `asked`; `achieved` in `unit`, Gy, % or cc; whether the point is `met`.
  """
  value = point.measure(dose)
  scale, unit = prescription_gy, 'Gy'
  if point.kind == 'V':
    scale, unit = (point.volume_cc, 'cc') if point.volume_cc else (100, '%')
  return {
    'asked': point.text,
    'achieved': scale * value,
    'unit': unit,
    'met': bool(point.keeps(value, _PRINTED)),
  }


def _levels(structure: Structure) -> tuple[float, ...]:
  return (_COVERAGE,) if structure.role == 'target' else _ORGAN_LEVELS


def _last_dose(dose: np.ndarray, volume: np.ndarray) -> float:
  """Where a falling curve meets 0, or its last dose."""
  positive = int(np.count_nonzero(volume > 0))
  return float(dose[min(positive, len(dose) - 1)])


@dataclasses.dataclass(frozen=True)
class Reach:
  """What the training plans reached, to hold a wish against.

  Attributes:
    dvh: `[N, S, K]` of the training plans.
    present: `[N, S]`, structures that their patients have.
    usual: `[M]` distances of (at most so many) training plans, ascending, each
      to the nearest plan of another patient.
  """

  dvh: np.ndarray
  present: np.ndarray
  usual: np.ndarray

  def compare(self, desired_dvh: np.ndarray) -> dict[str, float | None]:
    """How far a `[S, K]` wish is from the nearest training plan.

    Returns:
      `distance`, the L1 distance of equation (4) over the wished structures;
      `usual_median` and `usual_95`, the median and the 95th percentile of such
      distances among training plans; `farther_than`, the share of these that
      is smaller. None where it cannot be told.
    """
    distance = float(_nearest(desired_dvh, self.dvh, self.present))
    compared: dict[str, float | None] = {
      'distance': distance if np.isfinite(distance) else None,
      'usual_median': None,
      'usual_95': None,
      'farther_than': None,
    }
    if len(self.usual):
      median, high = np.percentile(self.usual, (50, 95))
      compared['usual_median'] = float(median)
      compared['usual_95'] = float(high)
      compared['farther_than'] = float(np.mean(self.usual < distance))
    return compared


def reach_of(cohort: Cohort, present: np.ndarray) -> Reach:
  """What the training plans of a cohort reached.

  Args:
    cohort: of the training.
    present: `[S]`, structures that count.
  """
  valid = cohort.valid.copy()
  valid[np.setdiff1d(np.arange(len(valid)), cohort.split('train'))] = False
  owners = np.argwhere(valid)[:, 0]
  curves = cohort.dvh[valid] * present[:, None]
  has = cohort.present[owners]
  chosen = np.unique(
    np.linspace(0, len(owners) - 1, min(len(owners), _MOST_PLANS)).astype(int)
  )
  usual = np.array(
    [
      _nearest(curves[n], curves[owners != owners[n]], has[owners != owners[n]])
      for n in chosen
    ]
  )
  return Reach(curves, has, np.sort(usual[np.isfinite(usual)]))


def _nearest(
  wish: np.ndarray, curves: np.ndarray, present: np.ndarray
) -> np.float64:
  """L1 distance over the wished structures to the nearest plan with them."""
  wished = wish.any(-1)
  curves = curves[present[:, wished].all(-1)][:, wished]
  distance = np.abs(curves - wish[wished]).sum((1, 2))
  return np.min(distance, initial=np.inf)
