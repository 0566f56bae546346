"""Errors that a user can act on, and how messages show what a user wrote."""


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
