"""The steps of a session: what can be undone and redone, and what was done."""

from collections.abc import Mapping
import dataclasses
import datetime
from typing import Any

from dvhflax import errors
from dvhflax.tuning.steps import Step

# Characters of a step's name, one line, and of its note.
MOST_NAME, MOST_NOTE = 80, 2000


class History:
  """Steps and the entries of the audit trail.

  Attributes:
    steps: that are not undone.
    entries: of the trail, all that was done.
    who: name for the trail.
  """

  def __init__(self, who: str | None = None):
    """Empty.

    Args:
      who: name for the trail.
    """
    self.steps: list[Step] = []
    self.entries: list[dict[str, Any]] = []
    self._undone: list[Step] = []
    self._made = 0
    self.who = who

  @property
  def current(self) -> Step | None:
    """The last step that is not undone."""
    return self.steps[-1] if self.steps else None

  @property
  def can_undo(self) -> bool:
    """Whether there is a step before the current one."""
    return len(self.steps) > 1

  @property
  def can_redo(self) -> bool:
    """Whether a step was undone, and none made since."""
    return bool(self._undone)

  def add(self, step: Step, entry: Mapping[str, Any]) -> Step:
    """Makes a step the current one; those that were undone are dropped.

    Args:
      step: without its number and time.
      entry: what the trail is to have of it, beside action and time.
    """
    self._record(step.action, entry)
    time = self.entries[-1]['time']
    step = dataclasses.replace(step, number=self._made, time=time)
    self._made += 1
    self._undone.clear()
    self.steps.append(step)
    return step

  def undo(self) -> Step:
    """See `Session.undo`."""
    if not self.can_undo:
      raise errors.SessionError('there is nothing to undo')
    self._undone.append(self.steps.pop())
    self._record('undo')
    return self.steps[-1]

  def redo(self) -> Step:
    """See `Session.redo`."""
    if not self.can_redo:
      raise errors.SessionError('there is nothing to redo')
    self.steps.append(self._undone.pop())
    self._record('redo')
    return self.steps[-1]

  def rename(self, number: int, name: str | None, note: str | None) -> Step:
    """See `Session.rename`."""
    given = {}
    if name is not None:
      given['name'] = _plain(name, 'name', MOST_NAME)
    if note is not None:
      given['note'] = _plain(note, 'note', MOST_NOTE)
    if not given:
      raise errors.SessionError('give a step a name or a note')
    for steps in (self.steps, self._undone):
      for place, step in enumerate(steps):
        if step.number == number:
          steps[place] = dataclasses.replace(
            step,
            name=given.get('name', step.name),
            note=given.get('note', step.note),
          )
          self._record('rename', {'number': number, **given})
          return steps[place]
    numbers = [step.number for step in self.steps]
    raise errors.SessionError(
      f'there is no step {errors.shown(number)}; there are {numbers}'
    )

  def lock(self, structures: list[str]) -> None:
    """Records that these are locked, and no others."""
    self._record('lock', {'structures': structures})

  def replayed(self, entries: list[dict[str, Any]]) -> None:
    """Takes times and names from the trail that was replayed."""
    self.entries = entries
    times = [
      entry.get('time') or '' for entry in entries if 'dose_sha256' in entry
    ]
    for steps in (self.steps, self._undone):
      steps[:] = [
        dataclasses.replace(step, time=times[step.number]) for step in steps
      ]

  def _record(
    self, action: str, entry: Mapping[str, Any] | None = None
  ) -> None:
    now = datetime.datetime.now(datetime.UTC)
    stamp = {'time': now.isoformat(timespec='seconds'), 'who': self.who}
    self.entries.append({**stamp, 'action': action, **(entry or {})})


def _plain(text: str, key: str, most: int) -> str:
  """A name or a note, if it is plain text."""
  if not isinstance(text, str):
    raise errors.SessionError(f'the {key} of a step is a text')
  text = text.strip()
  if len(text) > most:
    raise errors.SessionError(
      f'the {key} of a step has {len(text)} characters: {most} at most'
    )
  lines = '\n\t' if key == 'note' else ''
  if not all(c.isprintable() or c in lines for c in text):
    raise errors.SessionError(
      f'the {key} {errors.shown(text)} is not plain text: leave out control '
      'characters'
    )
  return text
