"""Runs a program's main: a user's error is one line and no traceback."""

from collections.abc import Callable
import sys
from typing import NoReturn

from absl import app, flags, logging

from dvhflax import compiled, errors


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except (flags.Error, errors.UserError) as error:
    _leave(error)
  except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    # ml_collections reports unknown and mistyped keys by these.
    _leave(error)


def _leave(error: Exception) -> NoReturn:
  text = str(error.args[0] if isinstance(error, KeyError) else error)
  if 'Traceback' in text:
    # config_flags wraps an error of the config file with its whole trace.
    text = text.strip().splitlines()[-1]
  print(f'error: {" ".join(text.split())}', file=sys.stderr)
  sys.exit(2)


def run(main: Callable[[list[str]], object]) -> None:
  """`absl.app.run`, with exit status 2 and one line for a UserError."""

  def guarded(argv):
    # Else JAX tells which accelerators this machine does not have.
    logging.set_verbosity(logging.WARNING)
    compiled.keep()
    try:
      return main(argv)
    except errors.UserError as error:
      _leave(error)

  app.run(guarded, flags_parser=_parse)
