"""Errors that are answered with another status than 400."""

from dvhflax import errors


class NotThere(errors.UserError):
  """404: what is asked for is not there."""


class Conflict(errors.UserError):
  """409: not now, or not after what was done."""


class TooLarge(errors.UserError):
  """413: more than is taken."""


_STATUS: tuple[tuple[type[errors.UserError], int], ...] = (
  (NotThere, 404),
  (Conflict, 409),
  (TooLarge, 413),
  (errors.SessionError, 409),
)


def status_of(error: errors.UserError) -> int:
  """The HTTP status of an error that the user can act on."""
  return next((code for kind, code in _STATUS if isinstance(error, kind)), 400)
