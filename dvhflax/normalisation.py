"""What 1.0 of a dose stands for, and the way from fractions to Gy and back.

Networks, cohorts and DVH vectors hold doses as fractions of a reference. Two
normalisations are known:

`prescription`: 1.0 is the patient's prescription. A prediction's Gy follow
exactly.

`target_mean`, the paper's: 1.0 is the plan's own mean dose in the highest
target that the patient has. A stored plan keeps its reference. For a new
prediction nobody knows it; but all plans were scaled alike, so that a known
share of that target (`coverage_percent`) receives a known part of the
prescription (`coverage`, 1 for plans of the planner). The reference is the
number of Gy that makes this true of the prediction too.

No other module turns fractions into Gy.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, Literal, TypeVar

import numpy as np

from dvhflax import dose_volume, errors
from dvhflax.dose_volume import Curve, ReadOffs, Voxels
from dvhflax.patient import Patient, Structure, occupied

Kind = Literal['prescription', 'target_mean']
KINDS: tuple[Kind, ...] = ('prescription', 'target_mean')
# Of the highest target, where no protocol says otherwise (ICRU 83: D95%).
COVERAGE_PERCENT = 95.0
# A reference of more prescriptions than this is that of no usable prediction:
# the network is hardly trained.
_MOST_PRESCRIPTIONS = 4.0
# Of a mean dose, by a store in float16.
_ROUNDED = 5e-4
# Training plans that were scaled alike agree to this.
_ALIKE = 0.005

Number = TypeVar('Number', float, np.ndarray)


@dataclasses.dataclass(frozen=True)
class DoseReference:
  """The dose that 1.0 stands for.

  Attributes:
    gy: of 1.0.
    prescription_gy: of the patient's highest target.
    origin: where `gy` is from, for people.
  """

  gy: float
  prescription_gy: float
  origin: str = 'prescription'

  @classmethod
  def of_prescription(cls, prescription_gy: float) -> 'DoseReference':
    """1.0 is the prescription."""
    return cls(prescription_gy, prescription_gy)

  def to_gy(self, fraction: Number) -> Number:
    """Gy of a fraction; arrays come in float32 or better."""
    return _floating(fraction) * self.gy

  def to_fraction(self, dose_gy: Number) -> Number:
    """The fraction of a dose in Gy."""
    return _floating(dose_gy) / self.gy

  def percent_to_fraction(self, percent: Number) -> Number:
    """The fraction of a dose in % of the prescription."""
    return _floating(percent) * (self.prescription_gy / self.gy / 100)

  def to_percent(self, fraction: Number) -> Number:
    """% of the prescription of a fraction."""
    return _floating(fraction) * (100 * self.gy / self.prescription_gy)

  def to_json(self) -> dict[str, Any]:
    """For metrics and trails."""
    return {
      'reference_gy': self.gy,
      'prescription_gy': self.prescription_gy,
      'reference_from': self.origin,
    }


@dataclasses.dataclass(frozen=True)
class Normalisation:
  """What a cohort's doses are fractions of.

  Attributes:
    kind: see above.
    coverage_percent: of `target_mean`: the share of the highest target whose
      dose tells the reference.
    coverage: of `target_mean`: by name of the highest target, the mean and the
      standard deviation over the training plans of the dose that
      `coverage_percent` of it receives, in fractions of the prescription.
  """

  kind: Kind
  coverage_percent: float = COVERAGE_PERCENT
  coverage: Mapping[str, tuple[float, float]] = dataclasses.field(
    default_factory=dict
  )

  @property
  def words(self) -> str:
    """What 1.0 is, for tables and figures."""
    if self.kind == 'prescription':
      return 'the prescription'
    return 'the target mean dose'

  def of_dose(
    self,
    dose: np.ndarray,
    masks: np.ndarray,
    structures: Sequence[Structure],
    prescription_gy: float,
  ) -> DoseReference:
    """The reference of a predicted dose.

    Args:
      dose: `[X, Y, Z]`, as the network gives it.
      masks: `[X, Y, Z, S]`, 0 or 1.
      structures: `[S]`, targets in ascending order of prescription.
      prescription_gy: of the patient's highest target.

    Raises:
      SessionError: for a dose that no reference follows from.
    """
    there = occupied(masks)
    doses: list[ReadOffs | None] = [None] * len(there)
    if self.kind != 'prescription':
      target = highest_target(structures, there)
      doses[target] = Voxels(dose[masks[..., target] > 0])
    return self.of_doses(doses, structures, prescription_gy)

  def of_doses(
    self,
    doses: Sequence[ReadOffs | None],
    structures: Sequence[Structure],
    prescription_gy: float,
  ) -> DoseReference:
    """The reference of a predicted dose, by the doses of its structures.

    Args:
      doses: `[S]`, as the network gives them; None for an absent structure.
      structures: `[S]`, targets in ascending order of prescription.
      prescription_gy: of the patient's highest target.

    Raises:
      SessionError: for a dose that no reference follows from.
    """
    if self.kind == 'prescription':
      return DoseReference.of_prescription(prescription_gy)
    present = [one is not None for one in doses]
    target = highest_target(structures, present)
    inside, name = doses[target], structures[target].name
    assert inside is not None
    covered = inside.dose_at_volume_percent(self.coverage_percent)
    reference = self._of_coverage(covered, name, prescription_gy)
    if reference is None:
      raise errors.SessionError(
        f'D{self.coverage_percent:g}% of {name} is {covered:.3g} of the mean '
        'dose that the network was trained to give it: such a dose cannot be '
        'converted to Gy; train the network longer, or on a cohort of '
        "cohort.normalisation='prescription'"
      )
    return reference

  def of_vectors(
    self,
    vectors: Sequence[Curve | None],
    structures: Sequence[Structure],
    prescription_gy: float,
  ) -> DoseReference | None:
    """The reference of DVHs in fractions; `[S]`, None where there is none.

    Returns:
      None if no target's curve tells it.
    """
    if self.kind == 'prescription':
      return DoseReference.of_prescription(prescription_gy)
    targets = [
      (structure.name, curve)
      for structure, curve in zip(structures, vectors)
      if structure.role == 'target' and curve is not None
    ]
    if not targets:
      return None
    name, curve = targets[-1]
    covered = curve.dose_at_volume_percent(self.coverage_percent)
    return self._of_coverage(covered, name, prescription_gy)

  def of_curves_gy(
    self,
    curves: Mapping[str, Curve],
    structures: Sequence[Structure],
    prescription_gy: float,
  ) -> DoseReference:
    """The reference that DVHs in Gy are to be divided by.

    Args:
      curves: by name of the structure, in Gy.
      structures: `[S]`, targets in ascending order of prescription.
      prescription_gy: of the patient's highest target.

    Raises:
      WishError: for `target_mean`, no curve of a target, or one of 0 Gy.
    """
    if self.kind == 'prescription':
      return DoseReference.of_prescription(prescription_gy)
    named = [s.name for s in structures if s.role == 'target']
    named = [name for name in named if name in curves]
    if not named:
      raise errors.WishError(
        'curves in Gy need one of a target: this network takes doses in '
        'fractions of its mean dose'
      )
    mean = curves[named[-1]].mean_dose
    if not mean > 0:
      raise errors.WishError(f'the curve of {named[-1]} has a mean of 0 Gy')
    return DoseReference(
      mean, prescription_gy, f"mean dose of the wish's {named[-1]}"
    )

  def _of_coverage(
    self, covered: float, target: str, prescription_gy: float
  ) -> DoseReference | None:
    """None for a dose far from any plan's."""
    if target not in self.coverage:
      raise errors.SessionError(
        f'{target} is the highest target here, but was that of no training '
        'patient: the Gy of this prediction cannot be known; use a network of '
        "cohort.normalisation='prescription'"
      )
    mean, spread = self.coverage[target]
    wanted_gy = mean * prescription_gy
    name = f'D{self.coverage_percent:g}% of {target}'
    if not covered * _MOST_PRESCRIPTIONS > mean:
      return None
    origin = f'{name} = {wanted_gy:.4g} Gy, as in the training plans'
    if spread > _ALIKE * mean:
      origin += f' ({100 * mean:.3g} ± {100 * spread:.2g}% of prescription)'
    return DoseReference(wanted_gy / covered, prescription_gy, origin)

  def to_json(self) -> dict[str, Any]:
    """For checkpoints; the inverse of `from_json`."""
    values: dict[str, Any] = {'kind': self.kind}
    if self.kind == 'target_mean':
      values['coverage_percent'] = self.coverage_percent
      values['coverage'] = {k: list(v) for k, v in self.coverage.items()}
    return values

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> 'Normalisation':
    """Raises KeyError, TypeError or ValueError for other values."""
    if values['kind'] not in KINDS:
      raise ValueError(f'normalisation {values["kind"]!r}')
    coverage = {
      name: (float(mean), float(spread))
      for name, (mean, spread) in values.get('coverage', {}).items()
    }
    percent = float(values.get('coverage_percent', COVERAGE_PERCENT))
    return cls(values['kind'], percent, coverage)


def highest_target(
  structures: Sequence[Structure], present: Sequence[bool] | np.ndarray
) -> int:
  """Index of the target of the highest prescription that there is.

  Args:
    structures: `[S]`, targets in ascending order of prescription.
    present: `[S]`.

  Raises:
    ValueError: if there is none.
  """
  targets = [
    s
    for s, structure in enumerate(structures)
    if structure.role == 'target' and present[s]
  ]
  if not targets:
    raise ValueError('there is no target')
  return targets[-1]


def renormalised(
  patient: Patient, kind: Kind, structures: Sequence[Structure]
) -> Patient:
  """A patient whose doses are fractions of what a cohort wants.

  Args:
    patient: with doses in fractions of any reference, plan by plan.
    kind: wanted.
    structures: `[S]`, targets in ascending order of prescription.

  Raises:
    CohortError: for `target_mean`, a plan that leaves the target without dose.
  """
  if not len(patient.dose):
    return patient
  wanted_gy = np.full(len(patient.dose), float(patient.prescription_gy))
  if kind == 'target_mean':
    target = highest_target(structures, patient.present)
    inside = patient.dose[:, patient.masks[..., target] > 0]
    wanted_gy = inside.mean(1, dtype=np.float64) * patient.reference_gy
    if not np.all(wanted_gy > 0):
      raise errors.CohortError(
        f'patient {patient.id}: a plan gives {structures[target].name} no '
        "dose: use cohort.normalisation='prescription', or leave the plan out"
      )
  by = (np.asarray(patient.reference_gy) / wanted_gy).astype(np.float32)
  # What a store has rounded is not scaled by its rounding.
  as_wanted = np.abs(by - 1) < _ROUNDED
  by[as_wanted] = 1
  wanted_gy[as_wanted] = np.asarray(patient.reference_gy)[as_wanted]
  return dataclasses.replace(
    patient,
    dose=patient.dose * by[:, None, None, None],
    reference_gy=wanted_gy,
  )


def coverage_gy(
  dose: np.ndarray,
  target: np.ndarray,
  reference_gy: Sequence[float] | np.ndarray,
  percent: float,
) -> np.ndarray:
  """The dose that a share of a target receives, plan by plan.

  Args:
    dose: `[N, X, Y, Z]` in fractions.
    target: `[X, Y, Z]`, 0 or 1.
    reference_gy: `[N]`, of 1.0.
    percent: the share.

  Returns:
    `[N]` Gy.
  """
  covered = dose_volume.dose_at_volume_fraction(
    dose[:, target > 0], percent / 100
  )
  return covered * np.asarray(reference_gy, np.float64)


def _floating(values: Any) -> Any:
  """Arrays in float32 or better: a float16 does not hold Gy."""
  if not isinstance(values, np.ndarray):
    return values
  kind = np.promote_types(values.dtype, np.float32)
  return values.astype(kind, copy=False)
