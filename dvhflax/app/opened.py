"""A session that is open: its tuning, its steps' names, its listeners."""

import asyncio
from collections.abc import Callable
import time
from typing import Any

import numpy as np

from dvhflax import dvh as dvh_lib
from dvhflax.app import faults, messages, volumes
from dvhflax.app.patients import Entry
from dvhflax.tuning.session import Session
from dvhflax.wishes.bending import bend


class Opened:
  """A session and what the page knows of it beyond the trail.

  Everything but `changed` runs in the thread of the network.

  Attributes:
    key: of the session, in addresses.
    entry: the patient.
    session: the tuning.
    changing: held while a step is taken.
  """

  def __init__(self, key: str, entry: Entry, session: Session):
    """Wraps a session."""
    self.key, self.entry, self.session = key, entry, session
    self.changing = asyncio.Lock()
    self.names: dict[int, str] = {}
    self.notes: dict[int, str] = {}
    self.goals: list[str] = []
    self.locked: list[str] = []
    self.made: dict[int, np.ndarray] = {}
    self.ct: np.ndarray | None = None
    self._listeners: set[Callable[[], None]] = set()

  @property
  def live(self) -> bool:
    """Whether a page follows it."""
    return bool(self._listeners)

  def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
    """Calls a function after every change, until what is returned is called."""
    self._listeners.add(listener)
    return lambda: self._listeners.discard(listener)

  def changed(self) -> None:
    """Tells the pages that follow."""
    for listener in list(self._listeners):
      listener()

  def asked(self, wish: messages.Wish | messages.Move) -> dict[str, Any]:
    """What `Session.tune` is given for a wish."""
    step = self.session.current
    if step is None:
      raise faults.Conflict('there is no dose yet to bend the DVH of')
    base, reference = step.dvh, step.reference
    if step.desired_dvh is not None and wish.base != 'achieved':
      base, reference = step.desired_dvh, step.desired_reference
    points = [
      f'{h.structure} V{h.dose_gy:.4f} = {h.volume_percent:.4f}%'
      for h in wish.handles
    ] + list(wish.points)
    return {'points': points, 'curves': base, 'reference_gy': reference.gy}

  def tune(self, wish: messages.Wish) -> None:
    """One more step."""
    self.session.tune(**self.asked(wish))

  def preview(self, move: messages.Move) -> tuple[dict[str, Any], bytes]:
    """The answer to a move: the head and the dose."""
    began = time.perf_counter()
    session = self.session
    asked = self.asked(move)
    from dvhflax.normalisation import DoseReference

    reference = DoseReference(
      asked['reference_gy'], session.record.prescription_gy
    )
    spec = session.cohort.dvh_spec
    desired = bend(
      asked['curves'], session._points(asked['points'], reference), spec
    )
    dose = session._network.decode(session._encoded(), desired)
    achieved = session.cohort.normalisation.of_dose(
      dose,
      session.masks,
      session.cohort.structures,
      session.record.prescription_gy,
    )
    curves = dvh_lib.dvh_vectors(dose, session.masks, spec)
    body, unit = volumes.dose_bytes(achieved.to_gy(dose))
    head = {
      'type': 'preview',
      'seq': move.seq,
      'gy_per_unit': unit,
      'desired': desired.tolist(),
      'achieved': curves.tolist(),
      'reference_gy': achieved.gy,
      'desired_reference_gy': reference.gy,
      'goals': [],
      'distance': None,
      'ms': 1000 * (time.perf_counter() - began),
    }
    return head, body
