"""Flags and errors of a command: an error is one line and no traceback."""

from collections.abc import Callable, Iterator
import inspect
import os
import signal
import sys
import textwrap
import traceback
from typing import NoReturn

from absl import app, flags, logging
import ml_collections
from ml_collections import config_flags

from dvhflax import errors

# Characters of a message, which may tell of many patients.
_MOST = 4000
_CONFIG = ('--config', '-config')
_QUOTES = '\'"'


def define_config(default: str | None, use: str = '') -> None:
  """Defines the flag `--config`, see `config.named`; nothing is read yet.

  Args:
    default: name of the configuration where the command line has none.
    use: what it is for, if not for all of the command.
  """
  config_flags.DEFINE_config_file(
    'config',
    None,
    'A configuration that comes with dvhflax (dicom, openkbp, prostate; '
    'NAME:VARIANT for a variant), or the path of a file. '
    f'--config.KEY=VALUE sets a field of it. {use}'.rstrip(),
  )
  flags.FLAGS['config'].default_as_str = default


def describe_flags(define: Callable[[], None]) -> str:
  """The flags that a function defines, for a help text."""
  others = set(flags.FLAGS)
  define()
  wrapper = textwrap.TextWrapper(
    80, initial_indent=' ' * 6, subsequent_indent=' ' * 6
  )
  lines = []
  for name in flags.FLAGS:
    if name in others:
      continue
    flag = flags.FLAGS[name]
    text = flag.help or ''
    if flag.default_as_str and not flag.boolean:
      text += f' Default: {flag.default_as_str.strip(_QUOTES)}.'
    lines += [f'  --{name}', *wrapper.wrap(text)]
  return '\n'.join(lines)


def _with_config(argv: list[str]) -> list[str]:
  """Flags with those of `--flagfile` and the path of the configuration.

  That of the default one is put first, before what changes its fields.
  """
  from dvhflax.config import named

  argv = list(flags.FLAGS.read_flags_from_files(argv, force_gnu=False))
  default = flags.FLAGS['config'].default_as_str
  if default and _config_name(argv) is None:
    argv.insert(0, f'--config={default}')
  for i, word in enumerate(argv):
    flag, equals, value = word.partition('=')
    if flag in _CONFIG and equals:
      argv[i] = f'{flag}={named.locate(value)}'
    elif flag in _CONFIG and i + 1 < len(argv):
      argv[i + 1] = named.locate(argv[i + 1])
  return argv


def _parse(argv: list[str]) -> list[str]:
  try:
    if 'config' in flags.FLAGS:
      argv = [argv[0], *_with_config(argv[1:])]
      sys.argv = argv  # where ml_collections looks for changed fields
    rest = flags.FLAGS(argv)
  except Exception as error:
    leave(_flag_fault(error, argv))
  if 'config' in flags.FLAGS:
    fault = _unreadable_config()
    if fault:
      leave(fault)
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
      f'--config={name}: there is no such file; give its path from this '
      'folder, or the name of one that comes with dvhflax: prostate:small'
    )
  try:
    with open(path, 'rb'):
      return ''
  except OSError as error:
    return f'--config={name} is not read: {error.strerror}'


def _flag_fault(error: Exception, argv: list[str]) -> str:
  """What is wrong with the command line or the file that it names.

  absl and ml_collections report what is unknown and mistyped by many types of
  error, and a configuration file may raise whatever there is.
  """
  name = _config_name(argv)
  fault = _config_fault(error, name) if name else ''
  if fault or isinstance(error, flags.Error | errors.UserError):
    return fault or str(error)
  while error.args and isinstance(error.args[0], Exception):
    error = error.args[0]
  text = str(error)
  if isinstance(error, KeyError):
    text = f'unknown configuration key {error.args[0]}'
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
    if flag in _CONFIG:
      name = value if equals else following
  return name


def _causes(error: BaseException | None) -> Iterator[BaseException]:
  """An error and those that it wraps, the first one first."""
  if error is not None:
    yield from _causes(error.__cause__ or error.__context__)
    yield error


def leave(error: Exception | str) -> NoReturn:
  """Says what is wrong in one line and exits with 2."""
  # What a file or a name holds must not steer the terminal.
  text = errors.plain(' '.join(str(error).split()), _MOST)
  print(f'error: {text}', file=sys.stderr)
  sys.exit(2)


def run(
  define: Callable[[], None],
  main: Callable[..., int | None],
  argv: list[str],
) -> NoReturn:
  """Runs a command and exits.

  A UserError, and a file or folder that cannot be read or written, is one line
  and status 2; Ctrl-C is status 130.

  Args:
    define: defines the command's flags.
    main: given the positional arguments; returns the exit status, None for 0.
    argv: how the command is called, and what follows.
  """
  define()

  def guarded(given: list[str]) -> int | None:
    # Else JAX lists accelerators that this machine does not have.
    logging.set_verbosity(logging.WARNING)
    _check_arguments(main, given)
    from dvhflax.cli import compiled

    compiled.keep()
    try:
      return main(*given[1:])
    except errors.UserError as error:
      leave(error)
    except OSError as error:
      fault = errors.of_storage(error)
      if fault is None:
        raise
      leave(fault)
    except KeyboardInterrupt:
      print('interrupted', file=sys.stderr)
      return 128 + signal.SIGINT

  app.run(guarded, argv, flags_parser=_parse)


def _check_arguments(main: Callable[..., object], given: list[str]) -> None:
  wanted = [name.upper() for name in inspect.signature(main).parameters]
  called, *found = given
  if len(found) < len(wanted):
    leave(f'{wanted[len(found)]} is missing: {" ".join([called, *wanted])}')
  if len(found) > len(wanted):
    leave(
      f'unexpected {errors.shown(found[len(wanted)])}: write flags as '
      f'--NAME=VALUE ({called} --help lists them)'
    )
