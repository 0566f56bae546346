"""A session that is open: its tuning, its goals, the pages that follow it."""

import asyncio
from collections.abc import Callable
import dataclasses
import time
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.app import faults, messages, volumes
from dvhflax.app.patients import Entry
from dvhflax.dvh import dvh_vectors
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Patient
from dvhflax.tuning import plan_metrics
from dvhflax.tuning.goals import GoalRange, check, ranges, refuse_untold
from dvhflax.tuning.session import Session
from dvhflax.tuning.steps import Answer, Step

# Of a handle's dose and volume, as a point has them.
_DIGITS = 4


class Opened:
  """A session and what the page knows of it beyond the trail.

  What computes runs in the thread of the network.

  Attributes:
    key: of the session, in addresses.
    entry: the patient.
    session: the tuning.
    ct: `[X, Y, Z]` int16 HU, None without one.
    goals: texts.
    revision: counts the changes.
    made: numbers of the steps whose deliverable dose is kept.
    read_as: what an uploaded patient's files were read with.
    jobs: keys of the jobs that run for it.
    changing: held while a step is taken.
    deleted: whether it is on disk no more, and is not to be again.
  """

  def __init__(
    self,
    key: str,
    entry: Entry,
    session: Session,
    ct: np.ndarray | None,
    read_as: messages.Import | None = None,
  ):
    """Wraps a session."""
    self.key, self.entry, self.session, self.ct = key, entry, session, ct
    self.goals: list[str] = []
    self.revision = 0
    self.made: list[int] = []
    self.read_as = read_as
    self.jobs: list[str] = []
    self.changing = asyncio.Lock()
    self.deleted = False
    self._judged: dict[int, tuple[list[dict[str, Any]], dict[str, Any]]] = {}
    self._judged_by: list[str] = []
    self._ranges: dict[str, GoalRange] = {}
    self._listeners: set[Callable[[], None]] = set()

  @property
  def in_use(self) -> bool:
    """Whether a page or a job follows it, or a step is taken."""
    return bool(self._listeners or self.jobs) or self.changing.locked()

  def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
    """Calls a function after every change, until what is returned is called."""
    self._listeners.add(listener)
    return lambda: self._listeners.discard(listener)

  def changed(self) -> None:
    """Tells the pages that follow."""
    self.revision += 1
    for listener in list(self._listeners):
      listener()

  def asked(self, wish: messages.Wish | messages.Move) -> dict[str, Any]:
    """What `Session.tune` and `Session.preview` are given for a wish.

    Raises:
      Conflict: if there is no dose yet.
      UserError: for curves that are not of the structures.
    """
    step = self.session.current
    if step is None:
      raise faults.Conflict('there is no dose yet to bend the DVH of')
    curves, reference = step.dvh, step.reference
    if step.wished_dvh is not None and wish.base != 'achieved':
      curves, reference = step.wished_dvh, step.desired_reference
    points = [
      f'{one.structure} V{one.dose_gy:.{_DIGITS}f} = '
      f'{one.volume_percent:.{_DIGITS}f}%'
      for one in wish.handles
    ]
    points += wish.points
    given = getattr(wish, 'curves', None)
    if given:
      names = [s.name for s in self.session.cohort.structures]
      curves = curves.copy()
      for name, vector in given.items():
        if name not in names or len(vector) != curves.shape[1]:
          raise errors.WishError(
            f'curves are of {", ".join(names)}, with {curves.shape[1]} '
            'elements each'
          )
        curves[names.index(name)] = vector
    return {'points': points, 'curves': curves, 'reference_gy': reference.gy}

  def set_goals(self, goals: list[str]) -> None:
    """Replaces the goals.

    Raises:
      WishError: for what is no goal of the structures, or a new one that no
        dose can be told to keep.
    """
    checked = check(goals, self.session.cohort.structures)
    refuse_untold([text for text in checked if text not in self.goals])
    self.goals = list(checked)

  def can_have(self) -> dict[str, Any]:
    """The band of what can be had, and what plans have of the goals."""
    session = self.session
    front, cohort = session.front, session.cohort
    reference = DoseReference.of_prescription(session.record.prescription_gy)
    new = [text for text in self.goals if text not in self._ranges]
    found = ranges(
      new,
      front.prescribed,
      cohort.dvh_spec,
      reference,
      cohort.structures,
      session.volumes_cc,
    )
    self._ranges |= {one.text: one for one in found}
    self._ranges = {text: self._ranges[text] for text in self.goals}
    return {
      'kind': front.kind,
      'plans': front.plans,
      'usual': front.usual,
      'reference_gy': reference.gy,
      'low': front.low,
      'high': front.high,
      'goals': list(map(dataclasses.asdict, self._ranges.values())),
    }

  def measured(self, dose_gy: np.ndarray) -> dict[str, Any]:
    """DVHs of `[X, Y, Z]` Gy that no step has, and what it has of the goals."""
    session, cohort = self.session, self.session.cohort
    reference = DoseReference.of_prescription(session.record.prescription_gy)
    achieved = dvh_vectors(
      np.asarray(dose_gy, np.float32) / reference.gy,
      session.masks,
      cohort.dvh_spec,
    )
    goals = session.assess(self.goals, dose_gy)
    return {
      'reference_gy': reference.gy,
      'achieved': achieved,
      'goals': list(map(dataclasses.asdict, goals)),
      'metrics': {
        'achieved': plan_metrics.achieved(
          reference.to_fraction(dose_gy),
          session.masks,
          cohort.structures,
          reference,
        )
      },
    }

  def plans(self) -> list[dict[str, Any]]:
    """DVHs of all plans of the patient, those included that have no dose."""
    record, cohort = self.session.record, self.session.cohort
    if isinstance(record, Patient):
      curves = [
        dvh_vectors(dose, record.masks, cohort.dvh_spec) for dose in record.dose
      ]
    else:
      index = cohort.index(self.entry.id)
      curves = list(cohort.dvh[index][cohort.valid[index]])
    return [
      {
        'number': number,
        'dose': f'plan-{number}' if number < self.entry.plans else None,
        'reference_gy': float(record.reference_gy[number]),
        'achieved': achieved,
      }
      for number, achieved in enumerate(curves)
    ]

  def judged(self, step: Step) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a step has of the goals, and how far it is from what can be had."""
    if self._judged_by != self.goals:
      self._judged, self._judged_by = {}, list(self.goals)
    if step.number not in self._judged:
      self._judged[step.number] = self._judge(step)
    return self._judged[step.number]

  def _judge(
    self, answer: Answer
  ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    session = self.session
    results = session.assess(self.goals, answer)
    achieved = session.front.compare(answer.dvh)
    wish = None
    if answer.wished_dvh is not None:
      wish = session.front.compare(answer.wished_dvh)
    told = wish or achieved
    distance = {
      'wish': wish.distance if wish else None,
      'answer': achieved.distance,
      'in_reach': told.in_reach,
      'stands_in_the_way': told.in_the_way,
      'share': told.share,
    }
    return [dataclasses.asdict(one) for one in results], distance

  def tune(self, wish: messages.Wish) -> None:
    """One more step."""
    step = self.session.tune(**self.asked(wish))
    if wish.name:
      self.session.rename(step.number, wish.name)

  def preview(self, move: messages.Move) -> tuple[dict[str, Any], bytes]:
    """The answer to a move: the head, and the dose as `volumes` has it."""
    began = time.perf_counter()
    found = self.session.preview(**self.asked(move))
    goals, distance = self._judge(found)
    body, gy_per_unit = volumes.dose_bytes(found.dose_gy)
    head = {
      'type': 'preview',
      'seq': move.seq,
      'gy_per_unit': gy_per_unit,
      'desired': found.desired_dvh,
      'achieved': found.dvh,
      'reference_gy': found.reference.gy,
      'desired_reference_gy': found.desired_reference.gy,
      'points': found.points,
      'goals': goals,
      'distance': distance,
      'worse': found.worse,
    }
    head['ms'] = round(1000 * (time.perf_counter() - began), 1)
    return head, body
