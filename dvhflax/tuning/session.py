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
import functools
import os
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.checksum import checksum
from dvhflax.cohort.store import Cohort
from dvhflax.dose_volume import Curve
from dvhflax.patient import Patient
from dvhflax.training.runs import Network, load_networks
from dvhflax.tuning import goals as goals_lib
from dvhflax.tuning import lock as lock_lib
from dvhflax.tuning import trail as trail_lib
from dvhflax.tuning.asking import ask
from dvhflax.tuning.front import Front, front_of
from dvhflax.tuning.goals import GoalResult
from dvhflax.tuning.history import History
from dvhflax.tuning.steps import Answer, Held, Preview, Step
from dvhflax.tuning.subject import Subject, Wish


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
    self._subject = subject = Subject(network, cohort, patient, anatomy)
    self.cohort, self.record = cohort, subject.record
    self.masks, self.present = subject.masks, subject.present
    self._history = History(who)
    self._locks: list[lock_lib.Lock] = []
    # Which of `trail.FIRST_DOSES` this session began with.
    self._first: str | None = None

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
  def steps(self) -> tuple[Step, ...]:
    """The steps that are not undone, the current one last."""
    return tuple(self._history.steps)

  @property
  def current(self) -> Step | None:
    """The last step that is not undone."""
    return self._history.current

  @property
  def can_undo(self) -> bool:
    """Whether there is a step before the current one."""
    return self._history.can_undo

  @property
  def can_redo(self) -> bool:
    """Whether a step was undone, and none made since."""
    return self._history.can_redo

  @property
  def locked(self) -> tuple[str, ...]:
    """Names of the structures that are locked, see `lock`."""
    return tuple(lock.structure.name for lock in self._locks)

  @property
  def identity(self) -> dict[str, Any]:
    """The checkpoints: workdirs' names, steps, SHA-256 of the weights."""
    return self._subject.identity

  @property
  def volumes_cc(self) -> np.ndarray:
    """`[S]`, 0 for a structure that the patient lacks."""
    return self._subject.voxels.volumes_cc

  @property
  def cut_off(self) -> list[str]:
    """Structures that reach the sides of the grid."""
    return self._subject.voxels.cut_off

  def first_dose(self) -> Step:
    """The dose without a wish of the physician's.

    It is the anatomy-only network's where there is one: that of the session,
    or the one within a network with `model.prior='first_dose'`. Else it is that
    for the mean DVH of the training plans, which the checkpoint holds. The
    trail has as `asked` which `of` these it is, see `trail.FIRST_DOSES`.

    Raises:
      SessionError: if there is a dose already.
    """
    if self.current:
      raise errors.SessionError(
        'there is a first dose already: tune it, or begin a new session'
      )
    return self._first_dose(self._subject.first_of())

  def balanced(self) -> Step:
    """Goes back to the first dose, as a new step, whatever is locked.

    Raises:
      SessionError: if there is no dose yet.
    """
    if not self.current:
      raise errors.SessionError('there is no dose yet: call first_dose()')
    return self._first_dose(self._first or self._subject.first_of(), 'balanced')

  def _first_dose(self, of: str, action: str = 'first_dose') -> Step:
    first = self._history.steps[:1]
    if first and of == self._first:
      dose = first[0].dose
      wish = Wish(first[0].desired_dvh, None)
    else:
      dose, wish = self._subject.first_dose(of)
    step = self._add(action, {'of': of}, wish, dose)
    if not first:
      self._first = of
    return step

  def tune(
    self,
    points: str | Sequence[str] = (),
    *,
    curves: np.ndarray | Mapping[str, Curve] | None = None,
    reference_gy: float | None = None,
  ) -> Step:
    """The dose for a new wish: curves, bent through points.

    While structures are locked, the wish is taken only as far as it makes none
    of them worse, see `lock`; `Step.held` tells how far, and what held it.

    Args:
      points: in clinicians' notation, see `points`; a text has them parted by
        semicolons.
      curves: `[S, K]` or by structure; None takes the DVH of the current dose.
        What earlier points asked for is in that only as far as it was reached.
      reference_gy: what 1.0 of `curves` in fractions stands for, where that is
        known better than by the normalisation: of a plan.

    Raises:
      WishError: a wish that cannot be, or cannot be read, or is of a locked
        structure; a dose that is worse than the locks already.
      SessionError: if there are neither points nor curves, or no current dose
        to bend the DVH of.
    """
    return self._tune(points, curves, reference_gy)

  def preview(
    self,
    points: str | Sequence[str] = (),
    *,
    curves: np.ndarray | Mapping[str, Curve] | None = None,
    reference_gy: float | None = None,
  ) -> Preview:
    """As `tune`, but neither kept nor in the trail, and without metrics.

    A lock does not hold the wish back: `Preview.worse` has the structures that
    would.
    """
    _, wish = self._wish(points, curves, reference_gy)
    dose = self._subject.dose(wish)
    preview = self._subject.preview(dose, wish)
    return dataclasses.replace(
      preview, worse=lock_lib.worse(self._locks, preview, self._subject)
    )

  def undo(self) -> Step:
    """Takes the last step back; the one before it is the current one.

    Raises:
      SessionError: if there is none before it.
    """
    return self._history.undo()

  def redo(self) -> Step:
    """Brings the step back that was undone last; its dose was kept.

    Raises:
      SessionError: if none was undone since the last new step.
    """
    return self._history.redo()

  def rename(
    self, number: int, name: str | None = None, note: str | None = None
  ) -> Step:
    """Gives a step a name or a note; both are in the trail.

    Args:
      number: of the step, see `Step.number`.
      name: one line of at most 80 characters; None leaves it as it is.
      note: plain text of at most 2,000.

    Raises:
      SessionError: for another text, or if there is no such step.
    """
    return self._history.rename(number, name, note)

  def lock(self, structures: Sequence[str]) -> tuple[str, ...]:
    """Locks structures, "not worse than now", and unlocks all others.

    The wish for a locked structure stays the curve that it had when it was
    locked, whatever `tune` is given; `tuning.lock` defines worse. One that is
    locked already stays held against the dose that was current then.

    Args:
      structures: their names; none unlocks all.

    Returns:
      `locked`.

    Raises:
      SessionError: if there is no dose yet.
      WishError: for a structure that the patient lacks.
    """
    step = self.current
    if not step:
      raise errors.SessionError('there is no dose to lock: call first_dose()')
    names = list(dict.fromkeys(structures))
    if set(names) == set(self.locked):
      return self.locked
    self._locks = lock_lib.locked(self._locks, names, step, self._subject)
    self._history.lock(names)
    return self.locked

  def assess(
    self, goals: Sequence[str], of: Answer | np.ndarray | None = None
  ) -> list[GoalResult]:
    """What a dose has of goals, see `tuning.goals`.

    Args:
      goals: in clinicians' notation, each a text.
      of: a step, a preview, or `[X, Y, Z]` in Gy; None takes the current dose.

    Raises:
      SessionError: if there is no dose.
      WishError: a goal in another notation, or of an unknown structure.
    """
    of = self.current if of is None else of
    if of is None:
      raise errors.SessionError('there is no dose yet: call first_dose()')
    if isinstance(of, Answer):
      doses, reference = self._subject.read(of.dose)
    else:
      doses, reference = self._subject.read_gy(of)
    return goals_lib.assess(
      goals, doses, reference, self.cohort.structures, self.volumes_cc
    )

  @functools.cached_property
  def front(self) -> Front:
    """What can be had for this patient, see `tuning.front`."""
    first = self._history.steps[:1]
    if first and first[0].action == 'first_dose':
      dvh = first[0].dvh
    else:
      dose, _ = self._subject.first_dose(self._subject.first_of())
      dvh = self._subject.dvh(self._subject.read(dose)[0])
    return front_of(self.cohort, self.present, dvh, self._subject.own)

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes the audit trail as JSON, whole or not at all."""
    trail_lib.write(path, self._subject.to_json(), self._history.entries)

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
    if self._history.entries:
      raise errors.SessionError('replay a trail in a new session')
    trail = trail_lib.read(path, self._subject.to_json())
    history, self._history = self._history, History(self._history.who)
    try:
      for number, entry in enumerate(trail.steps):
        try:
          self._repeat(entry)
        except errors.UserError as error:
          raise errors.SessionError(f'{path}, step {number}: {error}') from None
        step = self.current
        if entry['action'] in trail_lib.DOSES and step:
          trail.require(number, step.dose, step.metrics['achieved'], atol)
    except Exception:
      self._history, self._locks, self._first = history, [], None
      raise
    self._history.replayed(trail.steps)
    return list(self.steps)

  def _repeat(self, entry: Mapping[str, Any]) -> None:
    action = entry['action']
    if action == 'undo':
      self.undo()
    elif action == 'redo':
      self.redo()
    elif action == 'rename':
      self.rename(entry['number'], entry.get('name'), entry.get('note'))
    elif action == 'lock':
      self.lock(entry['structures'])
    elif action == 'tune':
      asked, held = entry['asked'], entry.get('held')
      curves = asked.get('curves')
      curves = None if curves is None else np.array(curves, np.float32)
      held = Held(**held) if held else None
      self._tune(asked['points'], curves, asked.get('reference_gy'), held)
    else:
      self._first_dose(trail_lib.first_dose_of(entry), action)

  def _tune(
    self,
    points: str | Sequence[str],
    curves: np.ndarray | Mapping[str, Curve] | None,
    reference_gy: float | None,
    held: Held | None = None,
  ) -> Step:
    """See `tune`; `held` repeats what a lock allowed."""
    asked, wish = self._wish(points, curves, reference_gy)
    if not self._locks:
      return self._add('tune', asked, wish, self._subject.dose(wish))
    start = lock_lib.start(self._locks, self.steps[-1], self._subject)
    if held is None:
      held = lock_lib.held(self._locks, start, wish, self._subject)
    if held.share:
      wish = lock_lib.part(start, wish, held.share)
      dose = self._subject.dose(wish)
    else:
      wish = Wish(start.desired_dvh, start.desired_reference, wish.texts)
      dose = start.dose
    return self._add('tune', asked, wish, dose, held)

  def _wish(
    self,
    points: str | Sequence[str],
    curves: np.ndarray | Mapping[str, Curve] | None,
    reference_gy: float | None,
  ) -> tuple[dict[str, Any], Wish]:
    """See `asking.ask`."""
    return ask(
      self._subject, self._locks, self.current, points, curves, reference_gy
    )

  def _add(
    self,
    action: str,
    asked: dict[str, Any] | None,
    wish: Wish,
    dose: np.ndarray,
    held: Held | None = None,
  ) -> Step:
    step = dataclasses.replace(
      self._subject.step(dose, wish), action=action, held=held
    )
    desired = step.desired_dvh
    entry = {
      'asked': asked,
      'desired_dvh': None if desired is None else desired.tolist(),
      'achieved_dvh': step.dvh.tolist(),
      'metrics': step.metrics,
      'dose_sha256': checksum(dose),
    }
    if held:
      entry['held'] = dataclasses.asdict(held)
    return self._history.add(step, entry)
