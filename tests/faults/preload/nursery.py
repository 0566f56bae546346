"""Starts commands from a process that has imported what they need.

A line of standard input is a command as JSON: `arguments`, `environment`, and
the files `out` and `err`. Its process id is written, and once it has ended, its
status. Nothing has run yet when it is forked: to import is all that is shared.
"""

import importlib
import json
import os
import sys
import traceback

import watching

for name in (
  'dvhflax.cli.build',
  'dvhflax.cli.train',
  'dvhflax.cli.main',
  'dvhflax.sources.build',
  'dvhflax.training.train',
  'nibabel',
):
  importlib.import_module(name)


def _run(wanted):
  os.environ.update(wanted['environment'])
  for number, name in ((1, 'out'), (2, 'err')):
    file = os.open(wanted[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, number)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  watching.watch(os.environ)
  sys.argv = ['dvhflax', *wanted['arguments']]
  sys.modules['dvhflax.cli.main'].main()


for line in iter(sys.stdin.readline, ''):
  pid = os.fork()
  if not pid:
    try:
      # Leaves as a command does: by sys.exit, with what `atexit` has.
      _run(json.loads(line))
    except SystemExit:
      raise
    except BaseException:
      traceback.print_exc()
      sys.exit(1)
  print(pid, flush=True)
  print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
