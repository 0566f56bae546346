"""A patient, and the networks that predict for it: a dose for a wish."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from dvhflax import dvh as dvh_lib
from dvhflax import errors
from dvhflax.checksum import checksum
from dvhflax.cohort.schema import PatientRecord
from dvhflax.cohort.store import Cohort
from dvhflax.dose_volume import Curve, Ranked
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Patient
from dvhflax.training.runs import Network
from dvhflax.tuning import plan_metrics
from dvhflax.tuning import wish as wish_lib
from dvhflax.tuning.steps import Preview, Step
from dvhflax.tuning.voxels import StructureVoxels
from dvhflax.wishes import points as points_lib


@dataclasses.dataclass(frozen=True)
class Wish:
  """What a dose is asked for.

  Attributes:
    desired: `[S, K]`; None for the dose of an anatomy-only network.
    reference: what 1.0 of it stands for; None where that is not known.
    texts: the points that its curves were bent through.
  """

  desired: np.ndarray | None
  reference: DoseReference | None
  texts: Sequence[str] = ()


class Subject:
  """See `Session`, whose arguments these are.

  Attributes:
    cohort: of the training plans.
    record: of the patient.
    masks: `[X, Y, Z, S]`.
    present: `[S]`.
    own: the patient's place in the cohort; None for one from outside.
    voxels: of the structures.
  """

  def __init__(
    self,
    network: Network,
    cohort: Cohort,
    patient: str | Patient,
    anatomy: Network | None,
  ):
    """Raises what `Session` does."""
    if network.mean_dvh is None:
      raise errors.SessionError(
        f'{network.identity["workdir"]} is an anatomy-only network, not '
        'conditioned on a wish: name another run'
      )
    if anatomy and anatomy.mean_dvh is not None:
      raise errors.SessionError(
        f'{anatomy.identity["workdir"]} is not an anatomy-only network: name a '
        "run with model.conditioning='none'"
      )
    self.cohort = cohort
    self.record: PatientRecord | Patient
    self.own: int | None = None
    if isinstance(patient, Patient):
      wanted = (*cohort.grid, len(cohort.structures))
      if patient.masks.shape != wanted:
        raise errors.CohortError(
          f'patient {patient.id}: masks {patient.masks.shape}, wanted {wanted}'
        )
      self.record = patient
      self.masks, self.present = patient.masks, patient.present
    else:
      self.own = index = cohort.index(patient)
      self.record = cohort.patients[index]
      self.masks, self.present = cohort.masks(index), cohort.present[index]
    self.voxels = StructureVoxels(
      self.masks, cohort.structures, self.record.spacing_mm
    )
    self._network, self._mean_dvh = network, network.mean_dvh
    self._anatomy = anatomy
    self._features: Any = None
    self._reach = plan_metrics.reach_of(cohort, self.present)
    # The dose that was last ranked: goals are often read off it as well.
    self._ranked: tuple[np.ndarray, list[Ranked | None]] | None = None

  @property
  def identity(self) -> dict[str, Any]:
    """See `Session.identity`."""
    anatomy = self._anatomy.identity if self._anatomy else None
    return {'network': self._network.identity, 'anatomy': anatomy}

  def to_json(self) -> dict[str, Any]:
    """What a trail is about."""
    return {
      'checkpoint': self.identity,
      'patient': {
        'id': self.record.id,
        'masks_sha256': checksum(self.masks),
        'prescription_gy': self.record.prescription_gy,
      },
    }

  def dose(self, wish: Wish) -> np.ndarray:
    """`[X, Y, Z]` for curves."""
    desired = wish.desired
    assert desired is not None
    return self._network.decode(self._encoded(), desired)

  def first_of(self) -> str:
    """Which of `trail.FIRST_DOSES` the first dose is."""
    if self._anatomy:
      return 'anatomy'
    within = self._network.first_dose(self._encoded()) is not None
    return 'within' if within else 'mean_dvh'

  def first_dose(self, of: str) -> tuple[np.ndarray, Wish]:
    """`[X, Y, Z]`, and the wish that it is for.

    Args:
      of: one of `trail.FIRST_DOSES`.

    Raises:
      SessionError: if there is no such network.
    """
    if of == 'mean_dvh':
      mean = Wish(np.where(self.present[:, None], self._mean_dvh, 0), None)
      return self.dose(mean), mean
    dose = None
    if of == 'within':
      dose = self._network.first_dose(self._encoded())
    elif self._anatomy:
      shape = len(self.present), self.cohort.dvh_spec.points
      nothing = np.zeros(shape, np.float32)
      spacing_mm = self.record.spacing_mm
      features = self._anatomy.features(self.masks, spacing_mm)
      dose = self._anatomy.decode(features, nothing)
    if dose is None:
      raise errors.SessionError(f'the networks have no first dose {of!r}')
    return dose, Wish(None, None)

  def read(self, dose: np.ndarray) -> tuple[list[Ranked | None], DoseReference]:
    """`[S]` structures of a dose, ranked, and what 1.0 of it stands for."""
    if self._ranked is None or self._ranked[0] is not dose:
      self._ranked = dose, self.voxels.rank(dose)
    doses = self._ranked[1]
    reference = self.cohort.normalisation.of_doses(
      doses, self.cohort.structures, self.record.prescription_gy
    )
    return doses, reference

  def read_gy(
    self, dose_gy: np.ndarray
  ) -> tuple[list[Ranked | None], DoseReference]:
    """The same of `[X, Y, Z]` Gy, such as of a plan."""
    reference = DoseReference(1.0, self.record.prescription_gy, 'Gy')
    return self.voxels.rank(dose_gy), reference

  def preview(self, dose: np.ndarray, wish: Wish) -> Preview:
    """Reads no more of a dose than can be read while a handle is dragged."""
    doses, reference = self.read(dose)
    return Preview(
      dose,
      self.dvh(doses),
      wish.desired,
      reference,
      wish.reference or reference,
      self.points_achieved(wish.texts, doses, reference),
    )

  def step(self, dose: np.ndarray, wish: Wish) -> Step:
    """Measures a dose; a wish without a reference is taken to have its own."""
    structures, spec = self.cohort.structures, self.cohort.dvh_spec
    doses, reference = self.read(dose)
    of_wish = wish.reference or reference
    metrics: dict[str, Any] = {
      **reference.to_json(),
      'achieved': plan_metrics.of_structures(
        doses, dose, structures, reference
      ),
    }
    if wish.desired is not None:
      metrics['desired'] = plan_metrics.desired(
        wish.desired, structures, spec, of_wish
      )
      metrics['reach'] = self._reach.compare(wish.desired)
    metrics['cut_off'] = self.voxels.cut_off
    metrics['points'] = self.points_achieved(wish.texts, doses, reference)
    return Step(
      dose, self.dvh(doses), wish.desired, reference, of_wish, metrics
    )

  def dvh(self, doses: Sequence[Ranked | None]) -> np.ndarray:
    """`[S, K]` of ranked structures."""
    return dvh_lib.ranked_vectors(doses, self.cohort.dvh_spec)

  def vectors(
    self,
    curves: np.ndarray | Mapping[str, Curve],
    reference_gy: float | None,
  ) -> tuple[np.ndarray, DoseReference | None]:
    """See `wish.vectors`."""
    return wish_lib.vectors(
      curves,
      self.cohort,
      self.present,
      self.record.prescription_gy,
      reference_gy,
    )

  def points(
    self, texts: Sequence[str], reference: DoseReference
  ) -> list[points_lib.Point]:
    """Points, their doses in fractions of a reference."""
    return [
      points_lib.parse(
        text, self.cohort.structures, reference, self.voxels.volumes_cc
      )
      for text in texts
    ]

  def points_achieved(
    self,
    texts: Sequence[str],
    doses: Sequence[Ranked | None],
    reference: DoseReference,
  ) -> list[dict[str, Any]]:
    """See `plan_metrics.point_achieved`."""
    achieved = []
    # What was asked in Gy is asked of this dose in its own fractions.
    for point in self.points(texts, reference):
      inside = doses[point.structure]
      assert inside is not None  # no curve of it could be bent
      achieved.append(plan_metrics.point_achieved(point, inside, reference))
    return achieved

  def _encoded(self) -> Any:
    if self._features is None:
      self._features = self._network.features(
        self.masks, self.record.spacing_mm
      )
    return self._features
