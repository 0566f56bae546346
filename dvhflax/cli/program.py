"""Runs a program's main: a user's error is one line and no traceback."""

from collections.abc import Callable, Iterator
import os
import sys
import traceback
from typing import NoReturn

from absl import app, flags, logging
import ml_collections
from ml_collections import config_flags

from dvhflax import errors
from dvhflax.cli import compiled

# Characters of a message, which may tell of many patients.
_MOST = 4000


def define_config(default: str) -> None:
  """Defines the flag `--config`, of a file with a `get_config`.

  Args:
    default: path of the file to take where the command line names none; that
      is read at once.
  """
  try:
    config_flags.DEFINE_config_file('config', default)
  except Exception as error:
    _leave(_flag_fault(error, sys.argv, default))


def _parse(argv: list[str]) -> list[str]:
  try:
    rest = flags.FLAGS(argv)
  except Exception as error:
    _leave(_flag_fault(error, argv))
  if 'config' in flags.FLAGS:
    fault = _unreadable_config()
    if fault:
      _leave(fault)
  return rest


def _unreadable_config() -> str:
  """Why there is no configuration; empty if there is one, or none named."""
  flag = flags.FLAGS['config']
  if flag.value is None and not flag.present:
    return ''
  if isinstance(flag.value, ml_collections.ConfigDict):
    return ''
  name = config_flags.get_config_filename(flag)
  try:
    hasattr(flag.value, 'lock')  # raises why the file was not loaded
  except OSError as error:
    return _config_fault(error, name)
  return (
    f'--config={name}: its get_config() returned {errors.shown(flag.value)}, '
    'not a ConfigDict such as dvhflax.config.default()'
  )


def _file_fault(name: str) -> str:
  """Why a configuration file cannot be read, empty if it can."""
  path = name.partition(':')[0]
  if not path or not os.path.exists(path):
    return (
      f'--config={name}: there is no such file; give one, such as '
      'configs/prostate.py:small, by its path from this folder'
    )
  try:
    with open(path, 'rb'):
      return ''
  except OSError as error:
    return f'--config={name} is not read: {error.strerror}'


def _flag_fault(
  error: Exception, argv: list[str], default: str | None = None
) -> str:
  """What is wrong with the command line or the file that it names.

  absl and ml_collections report what is unknown and mistyped by many types of
  error, and a configuration file may raise whatever there is.
  """
  name = _config_name(argv) or default
  fault = _config_fault(error, name) if name else ''
  if fault or isinstance(error, flags.Error | errors.UserError):
    return fault or str(error)
  while error.args and isinstance(error.args[0], Exception):
    error = error.args[0]
  text = str(error.args[0] if isinstance(error, KeyError) else error)
  overrides = [a.partition('=')[0] for a in argv if a.startswith('--config.')]
  return f'{" or ".join(overrides)}: {text}' if overrides else text


def _config_fault(error: Exception, name: str) -> str:
  """What is wrong in a configuration file; empty if nothing is."""
  path, _, variant = name.partition(':')
  for cause in _causes(error):
    if isinstance(cause, errors.UserError):
      return str(cause)
    what = f'{type(cause).__name__}: {errors.plain(str(cause), 300)}'
    if isinstance(cause, SyntaxError):
      return f'{path}, line {cause.lineno or 1}: {cause.msg}'
    for frame in reversed(traceback.extract_tb(cause.__traceback__)):
      if frame.filename == path:
        return f'{path}, line {frame.lineno}: {what}'
    if "no attribute 'get_config'" in str(cause):
      return f'{path} has no function get_config: is it a configuration?'
    if variant and 'get_config() takes' in str(cause):
      return f'--config={name}: {path} has no variants, leave out :{variant}'
  return _file_fault(name)


def _config_name(argv: list[str]) -> str | None:
  """What stands after the last `--config`, None if that is not there."""
  name = None
  for word, following in zip(argv, [*argv[1:], '']):
    flag, equals, value = word.partition('=')
    if flag in ('--config', '-config'):
      name = value if equals else following
  return name


def _causes(error: BaseException | None) -> Iterator[BaseException]:
  """An error and those that it wraps, the first one first."""
  if error is not None:
    yield from _causes(error.__cause__ or error.__context__)
    yield error


def _leave(error: Exception | str) -> NoReturn:
  # What a file or a name holds must not steer the terminal.
  text = errors.plain(' '.join(str(error).split()), _MOST)
  print(f'error: {text}', file=sys.stderr)
  sys.exit(2)


def run(main: Callable[[list[str]], object]) -> None:
  """`absl.app.run`, with exit status 2 and one line for a UserError.

  So it is for a file or folder that cannot be read or written.
  """

  def guarded(argv):
    # Else JAX tells which accelerators this machine does not have.
    logging.set_verbosity(logging.WARNING)
    compiled.keep()
    if len(argv) > 1:
      _leave(
        f'{errors.shown(argv[1])} is no flag: write --NAME=VALUE (--help lists '
        'the names)'
      )
    try:
      return main(argv)
    except errors.UserError as error:
      _leave(error)
    except OSError as error:
      if error.filename is None:
        raise
      _leave(f'{error.filename}: {error.strerror}')

  app.run(guarded, flags_parser=_parse)
