"""Dose and plan metrics: structures, targets, DVHs and paired doses.

Doses are in any one unit. A prediction may be any finite number, negative ones
included. `dose_volume` has what is read off a single structure.
"""

import numpy as np

from dvhflax.dose_volume import ReadOffs, Voxels


def homogeneity_index(dose: ReadOffs) -> float:
  """HI = (D2% - D98%) / D50% of a target; 0 is homogeneous (ICRU 83).

  Args:
    dose: of the target's voxels, or its DVH.

  Returns:
    HI, or NaN where D50% is not positive, as in an untrained prediction.

  Raises:
    ValueError: no voxel.
  """
  d2, d50, d98 = (dose.dose_at_volume_percent(x) for x in (2, 50, 98))
  return (d2 - d98) / d50 if d50 > 0 else float('nan')


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
  return conformity(
    int(np.count_nonzero(inside)),
    int(np.count_nonzero(covered)),
    int(np.count_nonzero(inside & covered)),
  )


def conformity(target: int, isodose: int, shared: int) -> float:
  """The same of numbers of voxels: of either volume, and of both."""
  return shared**2 / (target * isodose) if isodose else 0.0


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


def means_and_maxima(
  dose: np.ndarray, masks: np.ndarray, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Mean and maximum dose of every structure.

  Args:
    dose: `[X, Y, Z]`.
    masks: `[X, Y, Z, S]`, 0 or 1.
    present: `[S]` bool.

  Returns:
    `[S]` each, in the unit of `dose`; NaN where a structure is absent or has
    no voxel.
  """
  means = np.full(masks.shape[-1], np.nan)
  maxima = means.copy()
  for s in np.flatnonzero(present):
    inside = Voxels(dose[masks[..., s] > 0])
    if inside.dose.size:
      means[s], maxima[s] = inside.mean_dose, inside.max_dose
  return means, maxima


def at_edge(masks: np.ndarray) -> np.ndarray:
  """Which structures reach the sides of the grid, so that a part is cut off.

  Args:
    masks: `[X, Y, Z, S]`, 0 or 1.

  Returns:
    `[S]` bool.
  """
  found = np.zeros(masks.shape[-1], bool)
  for axis in range(3):
    for side in (0, -1):
      found |= np.take(masks, side, axis).any((0, 1))
  return found


def dose_errors(
  true: np.ndarray,
  predicted: np.ndarray,
  masks: np.ndarray,
  present: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Errors of table 1: mean and maximum dose, true minus predicted.

  Args:
    true: `[X, Y, Z]`, a fraction of any reference.
    predicted: `[X, Y, Z]`, the same unit.
    masks, present: see `means_and_maxima`.

  Returns:
    mean_error `[S]` and max_error `[S]`, float64, in percent of the
    reference; NaN where a structure is absent or has no voxel.
  """
  of_true = means_and_maxima(true, masks, present)
  of_predicted = means_and_maxima(predicted, masks, present)
  mean_error, max_error = (
    100 * (one - other) for one, other in zip(of_true, of_predicted)
  )
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


def _target(target: np.ndarray) -> np.ndarray:
  inside = np.asarray(target) > 0
  if not inside.any():
    raise ValueError('the target has no voxel')
  return inside
