"""A desired DVH from curves in a file, or from another plan.

A file of curves is CSV with the columns `structure,dose,volume`, a row a point
of a curve, or JSON: a list of `{"structure": ..., "dose": [...],
"volume": [...]}`. Doses are in fractions of the prescription (or in Gy, if the
column or key is `dose_gy`), volumes in fractions of the structure. A curve
begins at a volume of 1 and goes on to 0 or to the last dose level.
"""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import json
import os

import numpy as np

from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.dvh import DVHSpec
from dvhflax.patient import Structure

# A rounding of the last digit of what another program wrote is no rise.
_ROUNDING = 1e-6


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
    WishError: a missing or unreadable file, a missing column or key, a number
      that is none, a curve that is no DVH.
  """
  ending = os.path.splitext(path)[1].lower()
  if ending not in ('.csv', '.json'):
    raise errors.WishError(f'{path}: curves are read from .csv or .json')
  try:
    with open(path, newline='', encoding='utf-8-sig') as file:
      listed = _of_csv(file, path) if ending == '.csv' else json.load(file)
  except (OSError, ValueError) as error:
    reason = error.strerror if isinstance(error, OSError) else error
    raise errors.WishError(f'{path} is not read: {reason}') from None
  if not isinstance(listed, list) or not listed:
    raise errors.WishError(f'{path} has no list of curves')
  curves: dict[str, Curve] = {}
  for entry in listed:
    name, curve = _curve(entry, path, prescription_gy)
    if name in curves:
      raise errors.WishError(f'{path} has two curves of {name}')
    curves[name] = curve
  return curves


def _of_csv(file, path: str) -> list[dict]:
  reader = csv.DictReader(file, skipinitialspace=True)
  columns = reader.fieldnames or ()
  dose = 'dose_gy' if 'dose_gy' in columns else 'dose'
  missing = [c for c in ('structure', dose, 'volume') if c not in columns]
  if missing:
    raise errors.WishError(f'{path} has no column {missing[0]!r}')
  entries: dict[str, dict] = {}
  for row in reader:
    name = (row['structure'] or '').strip()
    entry = entries.setdefault(
      name, {'structure': name, dose: [], 'volume': []}
    )
    for key in (dose, 'volume'):
      entry[key].append(row[key])
  return list(entries.values())


def _curve(
  entry: object, path: str, prescription_gy: float
) -> tuple[str, Curve]:
  if not isinstance(entry, Mapping):
    raise errors.WishError(f'{path}: a curve is no object with keys')
  name = entry.get('structure')
  if not isinstance(name, str) or not name:
    raise errors.WishError(f"{path}: a curve has no 'structure'")
  key = 'dose_gy' if 'dose_gy' in entry else 'dose'
  where = f'{path}: {name}'
  dose, volume = (_numbers(entry, k, where) for k in (key, 'volume'))
  if len(dose) != len(volume):
    raise errors.WishError(
      f'{path}: {name} has {len(dose)} doses but {len(volume)} volumes'
    )
  if key == 'dose_gy':
    dose = dose / prescription_gy
  order = np.argsort(dose, kind='stable')
  curve = Curve(dose[order], volume[order])
  fault = fault_of(curve)
  if fault:
    raise errors.WishError(f'{path}: the curve of {name} {fault}')
  return name, curve


def _numbers(entry: Mapping, key: str, where: str) -> np.ndarray:
  if key not in entry:
    raise errors.WishError(f'{where} has no {key!r}')
  try:
    values = np.array(entry[key], np.float64)
  except (TypeError, ValueError):
    values = np.array(np.nan)
  if values.ndim != 1 or not np.isfinite(values).all():
    raise errors.WishError(f'{where}: {key!r} is not a list of numbers')
  return values


def fault_of(curve: Curve) -> str:
  """What keeps a curve from being a DVH; empty if nothing does."""
  dose, volume = curve.dose, curve.volume
  if len(dose) < 2:
    return 'has fewer than 2 points'
  if dose[0] < 0:
    return f'has a dose of {dose[0]:g}, below 0'
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
      not, no curve of one that he has, one that ends too early.
  """
  names = [s.name for s in structures]
  for name in curves:
    if name not in names:
      raise errors.WishError(
        f'a curve of {name}: there is no such structure; there are '
        f'{", ".join(names)}'
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
    vectors[s] = _vector(name, curves[name], spec)
  return vectors


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
