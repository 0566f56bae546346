"""The workflow of figure 1: a first dose, a tuned DVH, the next dose.

  session = Session.open('runs/small', 'patient_0031')
  step = session.first_dose()
  step = session.tune('rectum V70 <= 10%; bladder mean <= 30 Gy')
  session.undo()
  session.save('trail.json')

For research, not for clinical use. Doses are as the network gives them, in
fractions of a step's reference; `step.dose_gy` has them in Gy.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
import os
from typing import Any

import numpy as np

from dvhflax import dvh as dvh_lib
from dvhflax import errors
from dvhflax import metrics as metrics_lib
from dvhflax.checksum import checksum
from dvhflax.cohort.schema import PatientRecord
from dvhflax.cohort.store import Cohort
from dvhflax.dose_volume import Curve
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Patient
from dvhflax.training.runs import Network, load_networks
from dvhflax.tuning import plan_metrics, wish
from dvhflax.tuning import trail as trail_lib
from dvhflax.wishes import points as points_lib
from dvhflax.wishes.bending import bend


@dataclasses.dataclass(frozen=True)
class Step:
  """A predicted dose.

  Attributes:
    dose: `[X, Y, Z]` float32, fraction of the reference.
    dvh: `[S, K]` that the dose has.
    desired_dvh: `[S, K]` that was asked for; None of an anatomy-only network.
    reference: what 1.0 of `dose` and `dvh` stands for, see `normalisation`.
    desired_reference: what 1.0 of `desired_dvh` stands for; another where 1.0
      is each plan's own target mean.
    metrics: `achieved` and `desired`, see `plan_metrics`; `reach`, how far the
      wish is from the training plans; `points`, each as asked and achieved;
      `reference_gy`, `prescription_gy` and `reference_from`; `cut_off`, the
      structures that reach the sides of the grid.
  """

  dose: np.ndarray
  dvh: np.ndarray
  desired_dvh: np.ndarray | None
  reference: DoseReference
  desired_reference: DoseReference
  metrics: dict[str, Any]

  @property
  def dose_gy(self) -> np.ndarray:
    """`[X, Y, Z]` float32 in Gy."""
    return self.reference.to_gy(self.dose)


class Session:
  """The history of one patient's doses."""

  def __init__(
    self,
    network: Network,
    cohort: Cohort,
    patient: str | Patient,
    anatomy: Network | None = None,
    who: str | None = None,
  ):
    """Use `Session.open`, or this to share networks between patients.

    Args:
      network: conditioned on the wish.
      cohort: of the training plans.
      patient: id in that cohort, or one of `ExternalPatients`.
      anatomy: anatomy-only network for the first dose.
      who: name for the audit trail.

    Raises:
      CohortError: if there is no such patient, or its grid or structures are
        not those of the cohort.
      SessionError: if `network` is anatomy-only, or `anatomy` is not.
    """
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
    if isinstance(patient, Patient):
      wanted = (*cohort.grid, len(cohort.structures))
      if patient.masks.shape != wanted:
        raise errors.CohortError(
          f'patient {patient.id}: masks {patient.masks.shape}, wanted {wanted}'
        )
      self.record = patient
      self.masks, self.present = patient.masks, patient.present
    else:
      index = cohort.index(patient)
      self.record = cohort.patients[index]
      self.masks, self.present = cohort.masks(index), cohort.present[index]
    self._network, self._mean_dvh = network, network.mean_dvh
    self._anatomy = anatomy
    self._who = who
    self._features: Any = None
    self._reach = plan_metrics.reach_of(cohort, self.present)
    self._steps: list[Step] = []
    self._entries: list[dict[str, Any]] = []

  @classmethod
  def open(
    cls,
    workdir: str | os.PathLike[str],
    patient: str | Patient,
    *,
    cohort_path: str | os.PathLike[str] | None = None,
    anatomy_workdir: str | os.PathLike[str] | None = None,
    which: str = 'best',
    who: str | None = None,
  ) -> 'Session':
    """A session with the checkpoints of training runs, or with bundles.

    Args:
      workdir: path of a training run, or of a bundle, such as
        `dvhflax.pretrained('prostate')`.
      patient: id in the cohort, or one of `ExternalPatients`.
      cohort_path: cohort store, if it moved since, or in place of a bundle's
        excerpt.
      anatomy_workdir: of an anatomy-only run, for the first dose.
      which: `best`, `latest` or a saved step.
      who: name for the audit trail.

    Raises:
      UserError: whatever does not fit together.
    """
    network, cohort, anatomy = load_networks(
      workdir, which, cohort_path, anatomy_workdir
    )
    return cls(network, cohort, patient, anatomy, who)

  @property
  def current(self) -> Step | None:
    """The last step that is not undone."""
    return self._steps[-1] if self._steps else None

  @property
  def identity(self) -> dict[str, Any]:
    """The checkpoints: workdirs' names, steps, SHA-256 of the weights."""
    anatomy = self._anatomy.identity if self._anatomy else None
    return {'network': self._network.identity, 'anatomy': anatomy}

  def first_dose(self) -> Step:
    """The dose without a wish of the physician's.

    It is the anatomy-only network's where there is one: that of the session,
    or the one within a network with `model.prior='first_dose'`. Else it is that
    for the mean DVH of the training plans, which the checkpoint holds. The
    trail has as `asked` which `of` these it is, see `trail.FIRST_DOSES`.

    Raises:
      SessionError: if there is a dose already.
    """
    if self._steps:
      raise errors.SessionError(
        'there is a first dose already: tune it, or begin a new session'
      )
    if self._anatomy:
      return self._first_dose('anatomy')
    within = self._network.first_dose(self._encoded()) is not None
    return self._first_dose('within' if within else 'mean_dvh')

  def _first_dose(self, of: str) -> Step:
    desired, dose = None, None
    if of == 'mean_dvh':
      desired = np.where(self.present[:, None], self._mean_dvh, 0)
      dose = self._network.decode(self._encoded(), desired)
    elif of == 'within':
      dose = self._network.first_dose(self._encoded())
    elif self._anatomy:
      shape = len(self.present), self.cohort.dvh_spec.points
      nothing = np.zeros(shape, np.float32)
      spacing_mm = self.record.spacing_mm
      features = self._anatomy.features(self.masks, spacing_mm)
      dose = self._anatomy.decode(features, nothing)
    if dose is None:
      raise errors.SessionError(f'the networks have no first dose {of!r}')
    return self._add('first_dose', {'of': of}, dose, desired, None, ())

  def tune(
    self,
    points: str | Sequence[str] = (),
    *,
    curves: np.ndarray | Mapping[str, Curve] | None = None,
    reference_gy: float | None = None,
  ) -> Step:
    """The dose for a new wish: curves, bent through points.

    Args:
      points: in clinicians' notation, see `points`; a text has them parted by
        semicolons.
      curves: `[S, K]` or by structure; None takes the DVH of the current dose.
        What earlier points asked for is in that only as far as it was reached.
      reference_gy: what 1.0 of `curves` in fractions stands for, where that is
        known better than by the normalisation: of a plan.

    Raises:
      WishError: a wish that cannot be, or cannot be read.
      SessionError: if there are neither points nor curves, or no current dose
        to bend the DVH of.
    """
    texts = points_lib.split(points) if isinstance(points, str) else [*points]
    if curves is None and not texts:
      raise errors.SessionError('give points or curves to tune to')
    asked: dict[str, Any] = {'points': texts}
    if curves is not None:
      base, reference = wish.vectors(
        curves,
        self.cohort,
        self.present,
        self.record.prescription_gy,
        reference_gy,
      )
      asked['curves'] = base.tolist()
      asked['reference_gy'] = reference.gy if reference else None
    elif self._steps:
      base, reference = self._steps[-1].dvh, self._steps[-1].reference
    else:
      raise errors.SessionError(
        'points bend the DVH of a dose: call first_dose() first'
      )
    desired = base
    if texts:
      if reference is None:
        raise errors.WishError(
          'points on these curves cannot be converted to Gy: the reference '
          'dose follows from the curve of a target; give one'
        )
      desired = bend(base, self._points(texts, reference), self.cohort.dvh_spec)
    dose = self._network.decode(self._encoded(), desired)
    return self._add('tune', asked, dose, desired, reference, texts)

  def undo(self) -> Step:
    """Takes the last wish back; the step before it is the current one.

    Raises:
      SessionError: if there is none before it.
    """
    if len(self._steps) < 2:
      raise errors.SessionError('there is nothing to undo')
    self._steps.pop()
    self._entries.append({**self._stamp(), 'action': 'undo'})
    return self._steps[-1]

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes the audit trail as JSON, whole or not at all."""
    trail_lib.write(path, self._subject(), self._entries)

  def replay(
    self, path: str | os.PathLike[str], *, atol: float = 0.0
  ) -> list[Step]:
    """Repeats the steps of an audit trail; tuning may continue from there.

    Args:
      path: a trail of this patient and these checkpoints.
      atol: 0 requires the identical doses. Another machine or version
        rounds otherwise: with more, the mean, the maximum, D98%, D95% and D2%
        of every structure may differ by so much, a fraction of the
        prescription.

    Returns:
      The steps that are not undone.

    Raises:
      SessionError: a trail that is unreadable or was changed, of another
        patient or checkpoint, or whose doses come out otherwise; this session
        has steps already.
    """
    if self._entries:
      raise errors.SessionError('replay a trail in a new session')
    trail = trail_lib.read(path, self._subject())
    try:
      for number, entry in enumerate(trail.steps):
        step = self._redo(entry)
        if entry['action'] != 'undo':
          trail.require(number, step.dose, step.metrics['achieved'], atol)
    except Exception:
      self._steps, self._entries = [], []
      raise
    self._entries = trail.steps
    return list(self._steps)

  def _redo(self, entry: Mapping[str, Any]) -> Step:
    if entry['action'] == 'undo':
      return self.undo()
    if entry['action'] == 'first_dose':
      return self._first_dose(trail_lib.first_dose_of(entry))
    asked = entry['asked']
    curves = asked.get('curves')
    curves = None if curves is None else np.array(curves, np.float32)
    return self.tune(
      asked['points'], curves=curves, reference_gy=asked.get('reference_gy')
    )

  def _points(
    self, texts: Sequence[str], reference: DoseReference
  ) -> list[points_lib.Point]:
    """The points, their doses in fractions of a reference."""
    volumes_cc = self.masks.sum((0, 1, 2)) * np.prod(self.record.spacing_mm)
    return [
      points_lib.parse(
        text, self.cohort.structures, reference, volumes_cc / 1000
      )
      for text in texts
    ]

  def _encoded(self) -> Any:
    if self._features is None:
      self._features = self._network.features(
        self.masks, self.record.spacing_mm
      )
    return self._features

  def _add(
    self,
    action: str,
    asked: dict[str, Any] | None,
    dose: np.ndarray,
    desired_dvh: np.ndarray | None,
    desired_reference: DoseReference | None,
    points: Sequence[str],
  ) -> Step:
    step = self._step(dose, desired_dvh, desired_reference, points)
    self._steps.append(step)
    self._entries.append(
      {
        **self._stamp(),
        'action': action,
        'asked': asked,
        'desired_dvh': None if desired_dvh is None else desired_dvh.tolist(),
        'achieved_dvh': step.dvh.tolist(),
        'metrics': step.metrics,
        'dose_sha256': checksum(dose),
      }
    )
    return step

  def _step(
    self,
    dose: np.ndarray,
    desired_dvh: np.ndarray | None,
    desired_reference: DoseReference | None,
    points: Sequence[str],
  ) -> Step:
    """Measures a dose; a wish without a reference is taken to have its own."""
    structures, spec = self.cohort.structures, self.cohort.dvh_spec
    reference = self.cohort.normalisation.of_dose(
      dose, self.masks, structures, self.record.prescription_gy
    )
    desired_reference = desired_reference or reference
    metrics: dict[str, Any] = {
      **reference.to_json(),
      'achieved': plan_metrics.achieved(
        dose, self.masks, structures, reference
      ),
    }
    if desired_dvh is not None:
      metrics['desired'] = plan_metrics.desired(
        desired_dvh, structures, spec, desired_reference
      )
      metrics['reach'] = self._reach.compare(desired_dvh)
    cut = metrics_lib.at_edge(self.masks)
    metrics['cut_off'] = [s.name for s, off in zip(structures, cut) if off]
    # What was asked in Gy is asked of this dose in its own fractions.
    metrics['points'] = [
      plan_metrics.point_achieved(
        point, dose[self.masks[..., point.structure] > 0], reference
      )
      for point in self._points(points, reference)
    ]
    curves = dvh_lib.dvh_vectors(dose, self.masks, spec)
    return Step(
      dose, curves, desired_dvh, reference, desired_reference, metrics
    )

  def _stamp(self) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {'time': now.isoformat(timespec='seconds'), 'who': self._who}

  def _subject(self) -> dict[str, Any]:
    """What a trail is about."""
    return {
      'checkpoint': self.identity,
      'patient': {
        'id': self.record.id,
        'masks_sha256': checksum(self.masks),
        'prescription_gy': self.record.prescription_gy,
      },
    }
