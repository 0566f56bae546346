"""Errors that a user can act on, and how messages show what a user wrote."""

import os


class UserError(Exception):
  """Something the user can fix: one line that names it and says what to do.

  The command-line programs print it without a traceback and exit with 2.
  """


class CohortError(UserError):
  """A cohort store that is missing, half-written, damaged or unsuitable."""


class ConfigError(UserError):
  """A configuration key that is unknown, mistyped or impossible."""


class CheckpointError(UserError):
  """A checkpoint that is missing or belongs to another network."""


class DamagedCheckpoint(CheckpointError):
  """A checkpoint that cannot be read, or is not what was saved.

  Attributes:
    step: of the checkpoint.
    before: the newest other one, None if there is none.
  """

  def __init__(self, message: str, step: int, before: int | None):
    super().__init__(message)
    self.step = step
    self.before = before


class StorageError(UserError):
  """A disk that does not take what is written: the fault of no patient."""


class PlanningError(UserError):
  """A patient that cannot be planned."""


class WishError(UserError):
  """A desired DVH, or a point of one, that is impossible or unreadable."""


class SessionError(UserError):
  """A tuning session, or its audit trail, that cannot be continued."""


class PartnerError(UserError):
  """Another process of a training has stopped, so this one must stop too."""


class Interrupted(Exception):
  """A signal stopped a run after its state was saved; not a user error.

  Attributes:
    signal: its number; a command exits with 128 + signal.
    step: number of updates in the saved state.
  """

  def __init__(self, message: str, signal: int, step: int):
    super().__init__(message)
    self.signal = signal
    self.step = step


# What the system says, and what the user can do.
_STORAGE = {
  'No space left': 'make room',
  'quota exceeded': 'make room',
  'File too large': 'allow larger files',
  'Read-only file system': 'make it writable, or name another folder',
  'Permission denied': 'make it writable, or name another folder',
  'Operation not permitted': 'make it writable, or name another folder',
  'Input/output error': 'see to the disk',
  'Stale file handle': 'see to the disk',
}


def storage(text: str) -> str:
  """What a file system has said, and what to do.

  Args:
    text: of an error of the system, or of a library that quotes it.
  """
  for said, advice in _STORAGE.items():
    if said.lower() in text.lower():
      return f'{text}: {advice}, and run the same command again'
  return text


def of_storage(error: OSError) -> str | None:
  """One line for an error of the file system; None if it is no such error."""
  said = error.strerror or str(error)
  if error.filename is not None:
    return f'{plain(os.fspath(error.filename), 400)}: {storage(said)}'
  return storage(said) if storage(said) != said else None


def plain(text: str, most: int = 80) -> str:
  """A text of unknown origin, made safe to show in a message.

  Args:
    text: whatever a file or a command line holds.
    most: characters; a longer text loses its middle.

  Returns:
    One line of printable characters; control characters are escaped.
  """
  left_out = len(text) > most
  # Cut before escaping, so that a huge text costs no more than a short one.
  if left_out:
    head = (most + 1) // 2
    text = f'{text[:head]}...{text[len(text) - (most - head) :]}'
  text = ''.join(c if c.isprintable() else _escaped(c) for c in text)
  return text if len(text) <= 3 * most else f'{text[: 3 * most]}...'


def shown(value: object, most: int = 80) -> str:
  """As `plain`: a text in quotes, any other value as its `repr`."""
  if isinstance(value, str):
    quote = '"' if "'" in value and '"' not in value else "'"
    return f'{quote}{plain(value, most)}{quote}'
  try:
    return plain(repr(value), most)
  except Exception:  # such as an integer with too many digits for `repr`
    return f'a value of type {type(value).__name__}'


def _escaped(character: str) -> str:
  return character.encode('unicode_escape').decode('ascii')
