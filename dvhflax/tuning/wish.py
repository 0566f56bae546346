"""A desired DVH from curves, such as those of a file, or from another plan.

Doses of curves are in fractions of what 1.0 of the cohort stands for, see
`normalisation`, or in Gy, volumes in fractions of the structure. A curve begins
at a volume of 1 and goes on to 0 or to the last dose level. `wish_file` reads
files of them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.dose_volume import Curve
from dvhflax.dvh import DVHSpec
from dvhflax.normalisation import DoseReference, Normalisation
from dvhflax.patient import Structure
from dvhflax.wishes.points import MOST_DOSE

# A rounding of the last digit of what another program wrote is no rise.
ROUNDING = 1e-6
# Half of at least one target gets this much of the prescription in any wish;
# less is a dose in another unit.
_LEAST_TARGET_DOSE = 0.3


def fault_of(curve: Curve, most: float = MOST_DOSE) -> str:
  """What keeps a curve from being a DVH; empty if nothing does.

  Args:
    curve: of one structure.
    most: dose that no plan exceeds, in the curve's unit.
  """
  dose, volume = curve.dose, curve.volume
  if len(dose) < 2:
    return 'has fewer than 2 points'
  if dose[0] < 0:
    return f'has a dose of {dose[0]:g}, below 0'
  if dose[-1] > most:
    return f'has a dose of {dose[-1]:g}: no plan has more than {most:g}'
  outside = (volume < -ROUNDING) | (volume > 1 + ROUNDING)
  if outside.any():
    i = int(outside.argmax())
    return f'leaves [0, 1]: volume {volume[i]:g} at dose {dose[i]:.4g}'
  rises = np.diff(volume) > ROUNDING
  if rises.any():
    i = int(rises.argmax())
    return (
      f'rises from volume {volume[i]:g} to {volume[i + 1]:g} at dose '
      f'{dose[i + 1]:.4g}'
    )
  if volume[0] < 1 - ROUNDING:
    return f'begins at volume {volume[0]:g}: begin it at 1, as V(0) is'
  return ''


def in_fractions(
  curves: Mapping[str, Curve],
  structures: Sequence[Structure],
  normalisation: Normalisation,
  prescription_gy: float,
) -> tuple[dict[str, Curve], DoseReference | None]:
  """Curves with their doses in fractions, and what 1.0 stands for.

  Args:
    curves: by name; those without a unit are in fractions.
    structures: `[S]`.
    normalisation: of the cohort.
    prescription_gy: of the patient.

  Returns:
    The curves, and the reference; None where all came in fractions.

  Raises:
    WishError: for some in Gy and some not, or an unknown reference.
  """
  units = {getattr(curve, 'unit', 'fraction') for curve in curves.values()}
  if len(units) > 1:
    raise errors.WishError('some curves are in Gy, others not: use one unit')
  if units != {'gy'}:
    return dict(curves), None
  prescribed = DoseReference.of_prescription(prescription_gy)
  _check_targets(_divided(curves, prescribed), structures)
  reference = normalisation.of_curves_gy(curves, structures, prescription_gy)
  return _divided(curves, reference), reference


def _divided(
  curves: Mapping[str, Curve], reference: DoseReference
) -> dict[str, Curve]:
  """Curves in Gy as fractions of a reference."""
  return {
    name: Curve(reference.to_fraction(curve.dose), curve.volume)
    for name, curve in curves.items()
  }


def from_curves(
  curves: Mapping[str, Curve],
  structures: Sequence[Structure],
  present: Sequence[bool] | np.ndarray,
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
    WishError: a curve of a structure that is unknown or that the patient lacks,
      a missing curve of one that is present, a curve that ends too early or is
      not a DVH; doses of another unit than fractions.
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
    s.name: curves[s.name].dose_at_volume_percent(50)
    for s in structures
    if s.role == 'target' and s.name in curves
  }
  if medians and max(medians.values()) < _LEAST_TARGET_DOSE:
    name = max(medians, key=lambda name: medians[name])
    raise errors.WishError(
      f'the curve of {name} gives half of it no more than '
      f'{100 * medians[name]:.3g}% of what is prescribed: are its doses of '
      'another unit than their column says?'
    )


def _vector(name: str, curve: Curve, spec: DVHSpec) -> np.ndarray:
  dose, volume = curve.dose, np.clip(curve.volume, 0, 1)
  ends = volume[-1] <= ROUNDING
  if spec.kind == 'volume_at_dose':
    if not ends and dose[-1] < spec.max_dose - ROUNDING:
      raise errors.WishError(
        f'the curve of {name} ends with {100 * volume[-1]:.3g}% of the volume '
        f'at {100 * dose[-1]:.4g}% of the reference dose: carry it on to 0'
      )
    vector = np.interp(spec.levels, dose, volume)
    if vector[-1] > 0.5:
      raise errors.WishError(
        f'the curve of {name} gives {100 * vector[-1]:.3g}% of it more than '
        f'{100 * spec.max_dose:g}% of the reference dose, the last dose '
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
  last[np.flatnonzero(volume <= ROUNDING)[0]] = True
  at, of = volume[last][::-1], dose[last][::-1]
  vector = np.interp(spec.levels, at, of)
  return np.maximum.accumulate(vector).astype(np.float32)


def vectors(
  curves: np.ndarray | Mapping[str, Curve],
  cohort: Cohort,
  present: np.ndarray,
  prescription_gy: float,
  reference_gy: float | None = None,
) -> tuple[np.ndarray, DoseReference | None]:
  """A wish in any form as DVH vectors, and what 1.0 of them stands for.

  Args:
    curves: `[S, K]` vectors, or curves by structure.
    cohort: of the network.
    present: `[S]`, structures of the patient.
    prescription_gy: of the patient.
    reference_gy: what 1.0 of curves in fractions stands for, where it is known
      better than by the normalisation: of a plan.

  Returns:
    `[S, K]` float32, and the reference; None where it is unknown.

  Raises:
    WishError: see `from_curves`, `check` and `in_fractions`.
  """
  structures, spec = cohort.structures, cohort.dvh_spec
  normalisation = cohort.normalisation
  reference = None
  if isinstance(curves, Mapping):
    curves, reference = in_fractions(
      curves, structures, normalisation, prescription_gy
    )
    wished = from_curves(curves, structures, present, spec)
  else:
    wished = check(curves, structures, present, spec)
  if reference is None and reference_gy is not None:
    reference = DoseReference(reference_gy, prescription_gy, 'given')
  if reference is None:
    read = [spec.curve(v) if v.any() else None for v in wished]
    reference = normalisation.of_vectors(read, structures, prescription_gy)
  return wished, reference


def from_plan(
  cohort: Cohort,
  patient: str,
  plan: int,
  present: np.ndarray,
  prescription_gy: float,
) -> tuple[np.ndarray, DoseReference]:
  """The DVH of a plan of the cohort, as a wish for a patient.

  Args:
    cohort: of the plan.
    patient: whose plan it is.
    plan: its number, from 0.
    present: `[S]`, structures of the patient that the wish is for.
    prescription_gy: of that patient.

  Returns:
    `[S, K]` float32; zeros for a structure that either patient lacks, as in
    training. And what 1.0 of it stands for in that patient: the same fraction
    of the prescription as in the plan.

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
  curves = cohort.dvh[p, plan] * (present & cohort.present[p])[:, None]
  own = cohort.reference(p, plan)
  gy = own.to_gy(1.0) / own.prescription_gy * prescription_gy
  return curves, DoseReference(gy, prescription_gy, 'plan')


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
    WishError: another shape, a value that is not finite, a curve that is no
      DVH or is of a structure that the patient lacks.
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
    fault = 'holds a value that is not finite'
    if np.isfinite(vector).all():
      fault = fault_of(_in_order(spec.curve(vector)))
    if fault:
      raise errors.WishError(f'the curve of {structure.name} {fault}')
  return desired_dvh


def _in_order(curve: Curve) -> Curve:
  """By dose: where doses do not ascend, the volume then rises."""
  order = np.argsort(curve.dose, kind='stable')
  return Curve(curve.dose[order], curve.volume[order])
