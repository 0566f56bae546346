"""Errors that a user can act on."""


class UserError(Exception):
  """Something the user can mend: one line that names it and says what to do.

  The command-line programs print it without a traceback and exit with 2.
  """


class CohortError(UserError):
  """A cohort store that is missing, half-written, damaged or unsuitable."""


class ConfigError(UserError):
  """A configuration key that is unknown, mistyped or impossible."""


class CheckpointError(UserError):
  """A checkpoint that is missing or belongs to another network."""


class PlanningError(UserError):
  """A patient that cannot be planned."""


class WishError(UserError):
  """A desired DVH, or a point of one, that cannot be or cannot be read."""


class SessionError(UserError):
  """A tuning session, or its audit trail, that cannot go on."""


class PartnerError(UserError):
  """Another process of a training is gone, which then cannot go on."""


class Interrupted(Exception):
  """A signal stopped a run, whose state is saved: no error of the user's.

  Attributes:
    signal: its number; a command leaves with status 128 more.
    step: updates made, as saved.
  """

  def __init__(self, message: str, signal: int, step: int):
    super().__init__(message)
    self.signal = signal
    self.step = step
