"""Dose score and DVH score of the OpenKBP challenge.

Babier et al. 2021, Med Phys 48:5549, with the percentiles of the organisers'
evaluation code. Doses are in Gy; lower scores are better.

On the challenge's own grid the reference has dose only where dose is possible.
On a coarser one, voxels that are partly there have some of it too, while the
mask holds those that are filled by half: what is predicted in the others counts
as well, so that the reference itself scores 0 on every grid.
"""

from collections.abc import Iterable, Sequence
import dataclasses

import numpy as np

from dvhflax.dose_volume import Voxels
from dvhflax.patient import Structure

# Percentiles of a target's dose: D99, D95 and D1.
TARGET_PERCENTILES = (1, 5, 99)
# OARs are judged by the dose to their hottest 0.1 cc.
HOT_VOLUME_MM3 = 100


@dataclasses.dataclass(frozen=True)
class Case:
  """A patient's reference and predicted dose.

  Attributes:
    reference: `[X, Y, Z]` in Gy.
    predicted: `[X, Y, Z]` in Gy.
    possible_dose: `[X, Y, Z]`, 1 where dose can be received, in most of a
      voxel at least.
    masks: `[X, Y, Z, S]`, 0 or 1; all 0 where a structure is absent.
    spacing_mm: voxel size along each axis.
  """

  reference: np.ndarray
  predicted: np.ndarray
  possible_dose: np.ndarray
  masks: np.ndarray
  spacing_mm: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Scores:
  """Scores over all patients, in Gy.

  Attributes:
    dose: mean over patients of the mean absolute voxel difference.
    dvh: mean absolute difference over all patients' DVH metrics.
  """

  dose: float
  dvh: float


@dataclasses.dataclass(frozen=True)
class OfPatient:
  """What the scores are made of.

  Attributes:
    dose: see `dose_error`.
    dvh: `[S, 3]`, see `dvh_errors_of`.
  """

  dose: float
  dvh: np.ndarray


def of_patient(case: Case, structures: Sequence[Structure]) -> OfPatient:
  """A patient's part of the scores.

  Args:
    case: the patient.
    structures: `[S]`, in the order of the masks; `body` has no DVH metric.

  Raises:
    ValueError: no possible-dose voxel.
  """
  return OfPatient(dose_error(case), dvh_errors_of(case, structures))


def scores(found: Iterable[OfPatient]) -> Scores:
  """Both scores of patients.

  Returns:
    The scores; the DVH score is NaN where no patient has an OAR or target.

  Raises:
    ValueError: no patient.
  """
  dose_errors = []
  dvh_errors = []
  for one in found:
    dose_errors.append(one.dose)
    dvh_errors.append(one.dvh.ravel())
  if not dose_errors:
    raise ValueError('scores need at least one patient')
  cells = np.concatenate(dvh_errors)
  cells = cells[~np.isnan(cells)]
  # Pooled over cells, not patient by patient: patients with more structures
  # weigh more, as in the challenge.
  dvh = float(cells.mean()) if cells.size else float('nan')
  return Scores(dose=float(np.mean(dose_errors)), dvh=dvh)


def dose_error(case: Case) -> float:
  """Absolute difference summed over voxels, per possible-dose voxel, in Gy.

  Raises:
    ValueError: no possible-dose voxel.
  """
  possible_voxels = np.count_nonzero(case.possible_dose)
  if not possible_voxels:
    raise ValueError('the patient has no voxel that can receive dose')
  difference = np.subtract(case.reference, _masked(case), dtype=np.float64)
  return float(np.abs(difference).sum() / possible_voxels)


def dvh_errors_of(case: Case, structures: Sequence[Structure]) -> np.ndarray:
  """`[S, 3]` absolute differences of the DVH metrics, in Gy, NaN as there."""
  reference = dvh_metrics(
    case.reference, case.masks, structures, case.spacing_mm
  )
  predicted = dvh_metrics(
    _masked(case), case.masks, structures, case.spacing_mm
  )
  return np.abs(reference - predicted)


def dvh_metrics(
  dose: np.ndarray,
  masks: np.ndarray,
  structures: Sequence[Structure],
  spacing_mm: tuple[float, float, float],
) -> np.ndarray:
  """The challenge's DVH metrics of one dose.

  Args:
    dose: `[X, Y, Z]` in Gy.
    masks: `[X, Y, Z, S]`, 0 or 1.
    structures: `[S]`.
    spacing_mm: voxel size along each axis.

  Returns:
    `[S, 3]` in Gy: D99, D95, D1 of a target; D0.1cc, mean and NaN of an OAR;
    NaN for the body and for a structure without a voxel.

  Raises:
    ValueError: the masks' channels are not the structures.
  """
  if masks.shape[-1] != len(structures):
    raise ValueError(
      f'{masks.shape[-1]} mask channels for {len(structures)} structures'
    )
  # The even-rounding of halves is the challenge's as well.
  hot_voxels = max(1, round(float(HOT_VOLUME_MM3 / np.prod(spacing_mm))))
  metrics = np.full((len(structures), 3), np.nan)
  for s, structure in enumerate(structures):
    inside = Voxels(dose[masks[..., s] > 0].astype(np.float64))
    if not inside.dose.size:
      continue
    if structure.role == 'target':
      metrics[s] = [
        inside.dose_at_volume_percent(100 - percentile)
        for percentile in TARGET_PERCENTILES
      ]
    elif structure.role == 'oar':
      # A structure smaller than 0.1 cc has its minimum as D0.1cc.
      rank = max(0.0, 100 - 100 * hot_voxels / inside.dose.size)
      metrics[s, 0] = inside.dose_at_volume_percent(100 - rank)
      metrics[s, 1] = inside.mean_dose
  return metrics


def _masked(case: Case) -> np.ndarray:
  """Predicted dose, 0 where no dose can be received in any part of a voxel."""
  possible = (case.possible_dose > 0) | (case.reference != 0)
  return np.where(possible, case.predicted, 0)
