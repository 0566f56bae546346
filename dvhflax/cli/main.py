"""The command `dvhflax`: one of its commands, or a list of them.

A command is a module of this folder: its docstring is the help, `define`
defines its flags, and `main` takes the positional arguments. What `main` needs
it imports itself: no help text is to wait for JAX.
"""

import difflib
import importlib
import inspect
import os
import sys
import types

import dvhflax
from dvhflax import errors
from dvhflax.cli import program

COMMANDS = (
  'train',
  'evaluate',
  'predict',
  'app',
  'build',
  'validate',
  'report',
  'mimic',
  'export',
  'bundle',
)
_HELP = ('--help', '-help', '-h', '-?', '--helpshort')


def main() -> None:
  """Runs what `sys.argv` says and exits."""
  first, *rest = sys.argv[1:] or ['--help']
  if first in _HELP:
    _show(_list())
  elif first in ('--version', '-V'):
    print(f'dvhflax {dvhflax.__version__}')
  elif first in COMMANDS:
    run(first, rest, f'dvhflax {first}')
  else:
    close = difflib.get_close_matches(first, COMMANDS, 1)
    hint = f'did you mean {close[0]}? ' if close else ''
    program.leave(
      f'there is no command {errors.shown(first)}: {hint}dvhflax --help lists '
      'the commands'
    )


def run(name: str, argv: list[str], called: str) -> None:
  """Runs a command and exits.

  Args:
    name: of the command.
    argv: what follows it.
    called: how users call it, for its help.
  """
  command = importlib.import_module(f'dvhflax.cli.{name}')
  if any(word in _HELP for word in argv):
    _show(_help(name, command, called))
    sys.exit()
  program.run(command.define, command.main, [called, *argv])


def _show(text: str) -> None:
  """Prints a help text, of which a pager or `head` may read a part only."""
  try:
    print(text, flush=True)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _list() -> str:
  lines = [
    f'dvhflax {dvhflax.__version__}: radiotherapy dose prediction for a wish',
    'For research, not for clinical use.',
    '',
    'commands:',
  ]
  for name in COMMANDS:
    text = inspect.getdoc(importlib.import_module(f'dvhflax.cli.{name}')) or ''
    lines.append(f'  {name:10}{text.splitlines()[0]}')
  lines += ['', '`dvhflax COMMAND --help` shows flags and an example.']
  return '\n'.join(lines)


def _help(name: str, command: types.ModuleType, called: str) -> str:
  text = (inspect.getdoc(command) or '').replace(f'dvhflax {name}', called)
  arguments = [p.upper() for p in inspect.signature(command.main).parameters]
  flags = program.describe_flags(command.define)
  usage = ' '.join(
    [called, *arguments, *(['[--FLAG=VALUE ...]'] if flags else [])]
  )
  parts = [f'usage: {usage}', text, *([f'flags:\n{flags}'] if flags else [])]
  return '\n\n'.join(parts)
