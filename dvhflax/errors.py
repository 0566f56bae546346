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
