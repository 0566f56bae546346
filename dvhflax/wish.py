"""A desired DVH from curves in a file, or from another plan.

A file of curves is CSV with the columns `structure,dose,volume`, a row a point
of a curve, or JSON: a list of `{"structure": ..., "dose": [...],
"volume": [...]}`. Doses are in fractions of the prescription (in Gy, if the
column or key is `dose_gy`; in %, if it is `dose_percent`), volumes in fractions
of the structure (in %, if it is `volume_percent`). A curve begins at a volume
of 1 and goes on to 0 or to the last dose level.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from dvhflax import errors, wish_file
from dvhflax.cohort.store import Cohort
from dvhflax.dvh import DVHSpec
from dvhflax.patient import Structure
from dvhflax.points import MOST_DOSE

# A rounding of the last digit of what another program wrote is no rise.
_ROUNDING = 1e-6
# Half of at least one target gets this much of the prescription in any wish;
# less is a dose in another unit.
_LEAST_TARGET_DOSE = 0.3


@dataclasses.dataclass(frozen=True)
class Curve:
  """A cumulative DVH of one structure.

  Attributes:
    dose: `[V]` ascending, in fractions of the prescription.
    volume: `[V]` share of the volume that receives that dose or more.
  """

  dose: np.ndarray
  volume: np.ndarray


def read_curves(path: str, prescription_gy: float) -> dict[str, Curve]:
  """Curves by structure, of a `.csv` or `.json` file.

  Args:
    path: of the file, see above.
    prescription_gy: what doses in Gy are divided by.

  Raises:
    WishError: a file that `wish_file.read` does not read, a curve that is no
      DVH, doses or volumes that can only be of another unit.
  """
  curves: dict[str, Curve] = {}
  for entry in wish_file.read(path):
    name, curve = _curve(entry, errors.plain(path, 200), prescription_gy)
    if name in curves:
      raise errors.WishError(
        f'{errors.plain(path, 200)} has two curves of {errors.plain(name)}'
      )
    curves[name] = curve
  return curves


def _curve(
  entry: dict[str, Any], path: str, prescription_gy: float
) -> tuple[str, Curve]:
  name = entry['structure']
  dose_key, volume_key = (
    next(key for key in keys if key in entry)
    for keys in (wish_file.DOSES, wish_file.VOLUMES)
  )
  one = {'dose': 1.0, 'dose_gy': prescription_gy, 'dose_percent': 100.0}
  dose = entry[dose_key] / one[dose_key]
  volume = entry[volume_key] / (100 if volume_key == 'volume_percent' else 1)
  where = f'{path}: {errors.plain(name)}'
  if dose.max(initial=0) > MOST_DOSE:
    raise errors.WishError(
      f'{where} has a {_unit_fault(entry, dose_key, wish_file.DOSES)}'
    )
  if volume_key == 'volume' and volume.max(initial=0) > 1 + _ROUNDING:
    raise errors.WishError(
      f'{where} leaves [0, 1]: it has a '
      f'{_unit_fault(entry, volume_key, wish_file.VOLUMES)}'
    )
  order = np.argsort(dose, kind='stable')
  curve = Curve(dose[order], volume[order])
  fault = fault_of(curve)
  if fault:
    raise errors.WishError(f'{path}: the curve of {errors.plain(name)} {fault}')
  return name, curve


def _unit_fault(
  entry: dict[str, Any], key: str, columns: Mapping[str, str]
) -> str:
  """Of a largest value that is too large for its unit."""
  others = ' or '.join(
    f'{name!r} ({unit})' for name, unit in columns.items() if name != key
  )
  return (
    f'{key.partition("_")[0]} of {entry[key].max():g} under {key!r}, which is '
    f'in {columns[key]}: is it of another unit? Then name it {others}'
  )


def fault_of(curve: Curve) -> str:
  """What keeps a curve from being a DVH; empty if nothing does."""
  dose, volume = curve.dose, curve.volume
  if len(dose) < 2:
    return 'has fewer than 2 points'
  if dose[0] < 0:
    return f'has a dose of {dose[0]:g}, below 0'
  if dose[-1] > MOST_DOSE:
    return (
      f'has a dose of {dose[-1]:g}, in fractions of the prescription: no plan '
      f'has more than {MOST_DOSE:g}'
    )
  outside = (volume < -_ROUNDING) | (volume > 1 + _ROUNDING)
  if outside.any():
    i = int(outside.argmax())
    return f'leaves [0, 1]: volume {volume[i]:g} at dose {dose[i]:.4g}'
  rises = np.diff(volume) > _ROUNDING
  if rises.any():
    i = int(rises.argmax())
    return (
      f'rises from volume {volume[i]:g} to {volume[i + 1]:g} at dose '
      f'{dose[i + 1]:.4g}'
    )
  if volume[0] < 1 - _ROUNDING:
    return f'begins at volume {volume[0]:g}: begin it at 1, as V(0) is'
  return ''


def from_curves(
  curves: Mapping[str, Curve],
  structures: Sequence[Structure],
  present: Sequence[bool],
  spec: DVHSpec,
) -> np.ndarray:
  """The DVH vectors of curves, by linear interpolation.

  Args:
    curves: one for each of the patient's structures.
    structures: `[S]`.
    present: `[S]`, whether the patient has them.
    spec: the elements of the vector.

  Returns:
    `[S, K]` float32; zeros for an absent structure.

  Raises:
    WishError: a curve of a structure that the patient lacks or that there is
      not, no curve of one that he has, one that ends too early or is no DVH;
      doses of another unit than fractions.
  """
  names = [s.name for s in structures]
  for name in curves:
    if name not in names:
      raise errors.WishError(
        f'a curve of {errors.plain(name)}: there is no such structure; there '
        f'are {", ".join(names)}'
      )
    if not present[names.index(name)]:
      raise errors.WishError(
        f'a curve of {name}, which the patient lacks: leave it out'
      )
  vectors = np.zeros((len(names), spec.points), np.float32)
  for s, name in enumerate(names):
    if not present[s]:
      continue
    if name not in curves:
      raise errors.WishError(f'there is no curve of {name}: give one')
    fault = fault_of(curves[name])
    if fault:
      raise errors.WishError(f'the curve of {name} {fault}')
    vectors[s] = _vector(name, curves[name], spec)
  _check_targets(curves, structures)
  return vectors


def _check_targets(
  curves: Mapping[str, Curve], structures: Sequence[Structure]
) -> None:
  """Raises a WishError if no target gets a dose that was prescribed."""
  medians = {
    s.name: _median(curves[s.name])
    for s in structures
    if s.role == 'target' and s.name in curves
  }
  if medians and max(medians.values()) < _LEAST_TARGET_DOSE:
    name = max(medians, key=lambda name: medians[name])
    raise errors.WishError(
      f'the curve of {name} gives half of it no more than '
      f'{100 * medians[name]:.3g}% of the prescription: are its doses of '
      'another unit than their column says?'
    )


def _median(curve: Curve) -> float:
  """The dose that half of the volume receives."""
  return float(np.interp(0.5, curve.volume[::-1], curve.dose[::-1]))


def _vector(name: str, curve: Curve, spec: DVHSpec) -> np.ndarray:
  dose, volume = curve.dose, np.clip(curve.volume, 0, 1)
  ends = volume[-1] <= _ROUNDING
  if spec.kind == 'volume_at_dose':
    if not ends and dose[-1] < spec.max_dose - _ROUNDING:
      raise errors.WishError(
        f'the curve of {name} ends with {100 * volume[-1]:.3g}% of the volume '
        f'at {100 * dose[-1]:.4g}% of the prescription: carry it on to 0'
      )
    vector = np.interp(spec.levels, dose, volume)
    if vector[-1] > 0.5:
      raise errors.WishError(
        f'the curve of {name} gives {100 * vector[-1]:.3g}% of it more than '
        f'{100 * spec.max_dose:g}% of the prescription, which is the last dose '
        'level: are its doses of another unit than their column says?'
      )
    return np.minimum.accumulate(vector).astype(np.float32)
  if not ends:
    raise errors.WishError(
      f'the curve of {name} ends with {100 * volume[-1]:.3g}% of the volume: '
      'carry it on to 0'
    )
  # A volume is kept up to the last dose that has it; 0, from the first on.
  last = np.append(np.diff(volume) < 0, False)
  last[np.flatnonzero(volume <= _ROUNDING)[0]] = True
  at, of = volume[last][::-1], dose[last][::-1]
  vector = np.interp(spec.levels, at, of)
  return np.maximum.accumulate(vector).astype(np.float32)


def from_plan(
  cohort: Cohort, patient: str, plan: int, present: np.ndarray
) -> np.ndarray:
  """The DVH of a plan of the cohort, as a wish for a patient.

  Args:
    cohort: of the plan.
    patient: whose plan it is.
    plan: its number, from 0.
    present: `[S]`, structures of the patient that the wish is for.

  Returns:
    `[S, K]` float32; zeros for a structure that either patient lacks, as in
    training.

  Raises:
    CohortError: if there is no such patient.
    WishError: if there is no such plan.
  """
  p = cohort.index(patient)
  plans = cohort.patients[p].plans
  if not 0 <= plan < plans:
    raise errors.WishError(
      f'{patient} has no plan {plan}: choose one of 0 to {plans - 1}'
    )
  return cohort.dvh[p, plan] * (present & cohort.present[p])[:, None]


def check(
  desired_dvh: np.ndarray,
  structures: Sequence[Structure],
  present: np.ndarray,
  spec: DVHSpec,
) -> np.ndarray:
  """A wish that an array holds, if it is one.

  Args:
    desired_dvh: `[S, K]`; zeros for a structure without a wish.
    structures: `[S]`.
    present: `[S]`, structures of the patient.
    spec: the elements of the vector.

  Returns:
    The same as float32.

  Raises:
    WishError: another shape, numbers that are none, a curve that is no DVH or
      is of a structure that the patient lacks.
  """
  desired_dvh = np.asarray(desired_dvh, np.float32)
  shape = len(structures), spec.points
  if desired_dvh.shape != shape:
    raise errors.WishError(
      f'a desired DVH is an array {shape}, not {desired_dvh.shape}'
    )
  for structure, has, vector in zip(structures, present, desired_dvh):
    if not vector.any():
      continue
    if not has:
      raise errors.WishError(
        f'a curve of {structure.name}, which the patient lacks: leave it out'
      )
    fault = 'holds numbers that are none'
    if np.isfinite(vector).all():
      fault = fault_of(_as_curve(vector.astype(np.float64), spec))
    if fault:
      raise errors.WishError(f'the curve of {structure.name} {fault}')
  return desired_dvh


def _as_curve(vector: np.ndarray, spec: DVHSpec) -> Curve:
  if spec.kind == 'volume_at_dose':
    return Curve(spec.levels, vector)
  order = np.argsort(vector, kind='stable')
  return Curve(vector[order], spec.levels.astype(np.float64)[order])
