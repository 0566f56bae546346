"""Passes on what C++ writes to standard error, except JAX's last messages.

A program of its own: JAX's service aborts a process when another one of the
training is gone, and only this one is left to say so, in one line. It imports
nothing of the package.
"""

import os
import re
import select
import sys

# What the service says before it aborts, and at times without doing so.
_WARNING = re.compile(
  rb'^[EW]\d{4} .*(coordination_\w+|preemption_\w+)\.cc', re.MULTILINE
)
_END = re.compile(
  rb'^F\d{4} .*Terminating process because the JAX distributed service',
  re.MULTILINE,
)
# The process leaves in order: what comes after is not shown.
QUIET = b'\0'
# A warning is held back for so long.
_HELD_S = 3.0


def main(said: str) -> None:
  """Copies standard input to standard error.

  Args:
    said: in place of the service's messages.
  """
  held = b''
  ended = said_itself = False
  while True:
    ready, _, _ = select.select([0], [], [], _HELD_S if held else None)
    text = os.read(0, 65536) if ready else b''
    if ready and not text:
      break
    if ended:
      # The process may have said itself what is wrong, a moment later.
      said_itself |= QUIET in text
      continue
    text, *quiet = text.split(QUIET, 1)
    held += text
    if quiet:
      warning = _WARNING.search(held)
      os.write(2, held[: warning.start()] if warning else held)
      while os.read(0, 65536):
        pass
      return
    if end := _END.search(held):
      ended = True
      warning = _WARNING.search(held)
      held = held[: min(warning.start() if warning else len(held), end.start())]
    if ended or not ready or not _WARNING.search(held):
      os.write(2, held)
      held = b''
  if ended and not said_itself:
    os.write(2, f'\nerror: {said}\n'.encode())
  elif held:
    os.write(2, held)


if __name__ == '__main__':
  main(sys.argv[1])
