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
from dvhflax.dose_volume import ReadOffs, Voxels
from dvhflax.dvh import DVHSpec
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Structure
from dvhflax.planning.pareto import distances
from dvhflax.tuning.voxels import StructureVoxels
from dvhflax.wishes.points import Point

# In % of the prescription: doses of the V that organs are judged by, the
# isodose of a target's V and CI (ICRU 83 accepts 95% of it).
_ORGAN_LEVELS = (30, 50, 70, 90)
_COVERAGE = 95
# Volumes in % that doses are read at.
_DOSES_AT = (98, 95, 2)
# Half of the last digit that a point is printed to, in % of the prescription or
# of the volume.
_PRINTED = 0.05
# Training plans that the distribution of distances is taken over.
_MOST_PLANS = 1000

Table = dict[str, dict[str, float]]


def achieved(
  dose: np.ndarray,
  masks: np.ndarray,
  structures: Sequence[Structure],
  reference: DoseReference,
) -> Table:
  """Metrics of a dose by structure; structures without a voxel are left out.

  Args:
    dose: `[X, Y, Z]`, fraction of the reference.
    masks: `[X, Y, Z, S]`, 0 or 1.
    structures: `[S]`.
    reference: of the dose. V, CI and R50 of every structure are with regard to
      its prescription.
  """
  voxels = StructureVoxels(masks, structures)
  return of_structures(voxels.rank(dose), dose, structures, reference)


def of_structures(
  doses: Sequence[Voxels | None],
  dose: np.ndarray,
  structures: Sequence[Structure],
  reference: DoseReference,
) -> Table:
  """As `achieved`, where the doses of structures are known already.

  Args:
    doses: `[S]`, None for a structure without a voxel.
    dose: `[X, Y, Z]`, of all voxels.
    structures: `[S]`.
    reference: of the doses.
  """
  table: Table = {}
  for structure, inside in zip(structures, doses):
    if inside is None:
      continue
    row = _read(inside, structure, reference)
    if structure.role == 'target':
      volume = len(inside.dose)
      level = reference.percent_to_fraction(_COVERAGE)
      covered = int(np.count_nonzero(dose >= level))
      shared = volume * float(inside.volume_fraction_at_dose(level))
      half = np.count_nonzero(dose >= reference.percent_to_fraction(100) / 2)
      row['HI'] = metrics.homogeneity_index(inside)
      row['CI'] = metrics.conformity(volume, covered, round(shared))
      row['R50'] = half / volume
    table[structure.name] = row
  return table


def desired(
  desired_dvh: np.ndarray,
  structures: Sequence[Structure],
  spec: DVHSpec,
  reference: DoseReference,
) -> Table:
  """The same of a `[S, K]` desired DVH, as far as it determines them."""
  table: Table = {}
  for structure, vector in zip(structures, desired_dvh):
    if not vector.any():
      continue
    curve = spec.curve(vector)
    row = _read(curve, structure, reference)
    homogeneity = metrics.homogeneity_index(curve)
    if structure.role == 'target' and np.isfinite(homogeneity):
      row['HI'] = homogeneity
    table[structure.name] = row
  return table


def point_achieved(
  point: Point, dose: Voxels, reference: DoseReference
) -> dict[str, Any]:
  """What was asked of a structure, and what its dose has of it.

  Args:
    point: what was asked; its doses are fractions of the reference.
    dose: of the structure's voxels, fraction of the reference.
    reference: of the dose.

  Returns:
    `asked`; `achieved` in `unit`, Gy, % or cc; whether the point is `met`.
  """
  value = point.read(dose)
  scale, unit = in_unit(point, reference)
  return {
    'asked': point.text,
    'achieved': scale * value,
    'unit': unit,
    'met': is_met(point, value, reference),
  }


def is_met(point: Point, value: float, reference: DoseReference) -> bool:
  """Whether a value is what was asked, to the digit that it is printed to.

  Args:
    point: what was asked.
    value: volume in [0, 1], or dose in fractions of the reference.
    reference: of the point and the value.
  """
  tolerance = _PRINTED / 100
  if point.kind != 'V':
    tolerance = reference.percent_to_fraction(_PRINTED)
  return bool(point.keeps(value, tolerance))


def in_unit(point: Point, reference: DoseReference) -> tuple[float, str]:
  """What 1.0 of a point's value is in the unit that it is shown in."""
  if point.kind != 'V':
    return reference.to_gy(1.0), 'Gy'
  return (point.volume_cc, 'cc') if point.volume_cc else (100.0, '%')


def _read(
  dose: ReadOffs, structure: Structure, reference: DoseReference
) -> dict[str, float]:
  """What both a dose and a DVH tell of a structure."""
  row = {
    'mean': reference.to_gy(dose.mean_dose),
    'max': reference.to_gy(dose.max_dose),
  }
  for percent in _DOSES_AT:
    row[f'D{percent}%'] = reference.to_gy(dose.dose_at_volume_percent(percent))
  levels = (_COVERAGE,) if structure.role == 'target' else _ORGAN_LEVELS
  for percent in levels:
    row[f'V{percent}%'] = dose.volume_percent_at_dose(
      reference.percent_to_fraction(percent)
    )
  return row


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
      is smaller. None where it is unknown.
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
  usual = np.full(len(chosen), np.inf)
  wished = curves[chosen].any(-1)
  for asked in np.unique(wished, axis=0):
    rows = (wished == asked).all(-1)
    held = has[:, asked].all(-1)
    of, theirs = chosen[rows], curves[held][:, asked]
    if not len(theirs):
      continue
    apart = distances(curves[of][:, asked], theirs)
    apart[owners[of][:, None] == owners[held]] = np.inf
    usual[rows] = apart.min(1)
  return Reach(curves, has, np.sort(usual[np.isfinite(usual)]))


def _nearest(
  wish: np.ndarray, curves: np.ndarray, present: np.ndarray
) -> np.float64:
  """L1 distance over the wished structures to the nearest plan with them."""
  wished = wish.any(-1)
  curves = curves[present[:, wished].all(-1)][:, wished]
  distance = np.abs(curves - wish[wished]).sum((1, 2))
  return np.min(distance, initial=np.inf)
