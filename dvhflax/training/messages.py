"""Passes on what C++ writes to standard error, but for JAX's last words.

A program of its own: JAX's service aborts a process when another one of the
training is gone, so that this one is left to say so, in a line. It imports
nothing of the package.
"""

import os
import re
import select
import sys

# What the service says before, which may also come to nothing.
_OMEN = re.compile(
  rb'^[EW]\d{4} .*(coordination_\w+|preemption_\w+)\.cc', re.MULTILINE
)
_END = re.compile(
  rb'^F\d{4} .*Terminating process because the JAX distributed service',
  re.MULTILINE,
)
# The process leaves in order: nothing more is worth to be said.
QUIET = b'\0'
# An omen is held back for so long.
_HELD_S = 3.0


def main(said: str) -> None:
  """Copies standard input to standard error.

  Args:
    said: in place of the service's messages.
  """
  held = b''
  ended = False
  while True:
    ready, _, _ = select.select([0], [], [], _HELD_S if held else None)
    text = os.read(0, 65536) if ready else b''
    if ready and not text:
      break
    if ended:
      continue
    text, *quiet = text.split(QUIET, 1)
    held += text
    if quiet:
      omen = _OMEN.search(held)
      os.write(2, held[: omen.start()] if omen else held)
      while os.read(0, 65536):
        pass
      return
    if end := _END.search(held):
      ended = True
      omen = _OMEN.search(held)
      held = held[: min(omen.start() if omen else len(held), end.start())]
    if ended or not ready or not _OMEN.search(held):
      os.write(2, held)
      held = b''
  if ended:
    os.write(2, f'\nerror: {said}\n'.encode())
  elif held:
    os.write(2, held)


if __name__ == '__main__':
  main(sys.argv[1])
