"""Dose and plan metrics: structures, targets, DVHs and paired doses.

Doses are in any one unit; inside the package it is the fraction of the
prescription, so 0.02 is 2%. A prediction may be any finite number, negative
ones included.
"""

import numpy as np


def dose_at_volume_percent(dose: np.ndarray, percent: float) -> float:
  """Dx%: the dose that the hottest `percent` of a structure receive.

  Args:
    dose: `[V]` doses of the structure's voxels.
    percent: x of Dx%, in [0, 100].

  Returns:
    The 100 - x percentile, interpolated between ranked voxels.

  Raises:
    ValueError: no voxel, or `percent` outside [0, 100].
  """
  if not 0 <= percent <= 100:
    raise ValueError(f'percent must lie in [0, 100], got {percent}')
  return float(np.percentile(_voxels(dose), 100 - percent))


def volume_at_dose(dose: np.ndarray, threshold: float) -> float:
  """Vx: the share of a structure that receives a dose or more.

  Args:
    dose: `[V]` doses of the structure's voxels.
    threshold: dose x of Vx, in the unit of `dose`.

  Returns:
    Percent of the structure's volume.

  Raises:
    ValueError: no voxel.
  """
  return float(100 * np.mean(_voxels(dose) >= threshold))


def mean_dose(dose: np.ndarray) -> float:
  """Mean over `[V]` doses; ValueError without a voxel."""
  return float(_voxels(dose).mean())


def max_dose(dose: np.ndarray) -> float:
  """Largest of `[V]` doses; ValueError without a voxel."""
  return float(_voxels(dose).max())


def homogeneity_index(dose: np.ndarray) -> float:
  """HI = (D2% - D98%) / D50% of a target; 0 is homogeneous (ICRU 83).

  Args:
    dose: `[V]` doses of the target's voxels.

  Returns:
    HI, or NaN where D50% is not positive, as in an untrained prediction.

  Raises:
    ValueError: no voxel.
  """
  d2, d50, d98 = np.percentile(_voxels(dose), [98, 50, 2])
  return float((d2 - d98) / d50) if d50 > 0 else float('nan')


def paddick_conformity(
  dose: np.ndarray, target: np.ndarray, isodose: float = 1.0
) -> float:
  """Paddick conformity index of a target and an isodose volume.

  CI = V(target and isodose)^2 / (V_target V_isodose), at most 1, which is a
  perfect fit (Paddick 2000, J Neurosurg 93 suppl 3:219).

  Args:
    dose: `[X, Y, Z]`.
    target: `[X, Y, Z]`, 0 or 1.
    isodose: the prescribed isodose, in the unit of `dose`.

  Returns:
    CI; 0 where no voxel reaches the isodose.

  Raises:
    ValueError: the target has no voxel.
  """
  inside = _target(target)
  covered = dose >= isodose
  isodose_voxels = np.count_nonzero(covered)
  if not isodose_voxels:
    return 0.0
  shared = np.count_nonzero(inside & covered)
  return shared**2 / (np.count_nonzero(inside) * isodose_voxels)


def r50(
  dose: np.ndarray, target: np.ndarray, prescription: float = 1.0
) -> float:
  """R50: volume of the half-prescription isodose over the target's volume.

  Args:
    dose: `[X, Y, Z]`.
    target: `[X, Y, Z]`, 0 or 1.
    prescription: in the unit of `dose`.

  Raises:
    ValueError: the target has no voxel.
  """
  half = np.count_nonzero(dose >= 0.5 * prescription)
  return half / np.count_nonzero(_target(target))


def dose_errors(
  true: np.ndarray,
  predicted: np.ndarray,
  masks: np.ndarray,
  present: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Errors of table 1: mean and maximum dose, true minus predicted.

  Args:
    true: `[X, Y, Z]`, fraction of the prescription.
    predicted: `[X, Y, Z]`, the same unit.
    masks: `[X, Y, Z, S]`, 0 or 1.
    present: `[S]` bool.

  Returns:
    mean_error `[S]` and max_error `[S]`, float64, in percent of the
    prescription; NaN where a structure is absent or has no voxel.
  """
  structures = masks.shape[-1]
  mean_error = np.full(structures, np.nan)
  max_error = np.full(structures, np.nan)
  for s in range(structures):
    inside = masks[..., s] > 0
    if not present[s] or not inside.any():
      continue
    # float64: a float16 sum over a body overflows, a float32 one drifts.
    of_true = true[inside].astype(np.float64)
    of_predicted = predicted[inside].astype(np.float64)
    mean_error[s] = 100 * (of_true.mean() - of_predicted.mean())
    max_error[s] = 100 * (of_true.max() - of_predicted.max())
  return mean_error, max_error


def dvh_fidelity(
  desired: np.ndarray, predicted: np.ndarray, present: np.ndarray
) -> float:
  """How far a predicted DVH lies from the desired one; 0 is as desired.

  Args:
    desired: `[S, K]` DVH vector.
    predicted: `[S, K]` DVH vector.
    present: `[S]` bool, structures that count: contoured in the patient, and
      where that can differ, in the patient the wish came from too.

  Returns:
    Mean absolute difference over the present curves, in the unit of the
    vector; NaN where none is present.
  """
  present = np.asarray(present, bool)
  if not present.any():
    return float('nan')
  difference = np.subtract(desired, predicted, dtype=np.float64)
  return float(np.abs(difference[present]).mean())


def pareto_gap(
  predicted: np.ndarray, pareto: np.ndarray, valid: np.ndarray
) -> float:
  """L1 distance of a predicted DVH to the patient's nearest plan.

  The distance is that of the projection, equation (4).

  Args:
    predicted: `[S, K]` DVH vector.
    pareto: `[N, S, K]` DVH vectors of the patient's plans.
    valid: `[N]` bool, False for the padding of patients with fewer plans.

  Raises:
    ValueError: no valid plan.
  """
  valid = np.asarray(valid, bool)
  if not valid.any():
    raise ValueError('a Pareto gap needs at least one valid plan')
  difference = np.subtract(pareto[valid], predicted, dtype=np.float64)
  return float(np.abs(difference).sum((1, 2)).min())


def _voxels(dose: np.ndarray) -> np.ndarray:
  dose = np.asarray(dose, np.float64)
  if not dose.size:
    raise ValueError('the structure has no voxel')
  return dose


def _target(target: np.ndarray) -> np.ndarray:
  inside = np.asarray(target) > 0
  if not inside.any():
    raise ValueError('the target has no voxel')
  return inside
