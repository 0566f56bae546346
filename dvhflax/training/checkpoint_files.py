"""The folder of a workdir's checkpoints, by its files alone, without Orbax.

So that it can be asked before anything is opened, be a checkpoint damaged.
"""

import itertools
import json
import os
from typing import Any

FOLDER = 'checkpoints'
# A checkpoint has it from when it is whole until it is removed.
MARKER = '_CHECKPOINT_METADATA'


def steps(path: str) -> list[int]:
  """Of a folder of checkpoints, be they damaged."""
  names = os.listdir(path) if os.path.isdir(path) else []
  return [int(name) for name in names if name.isdigit()]


def has_checkpoint(workdir: str) -> bool:
  """Whether a workdir has a checkpoint, be it damaged."""
  return bool(steps(os.path.join(workdir, FOLDER)))


def newest_data(workdir: str) -> dict[str, Any] | None:
  """The `data` item of the newest checkpoint that has one to be read.

  Returns:
    The item, None if there is none.
  """
  path = os.path.join(workdir, FOLDER)
  for step in sorted(steps(path), reverse=True):
    try:
      with open(os.path.join(path, str(step), 'data', 'metadata')) as file:
        values = json.load(file)
    except (OSError, ValueError):
      continue
    if isinstance(values, dict):
      return values
  return None


def set_aside(workdir: str, step: int) -> str:
  """Moves a checkpoint out of the way; returns where it lies now."""
  folder = os.path.join(workdir, 'damaged')
  os.makedirs(folder, exist_ok=True)
  names = (f'{step}' if n == 0 else f'{step}-{n}' for n in itertools.count())
  aside = next(
    path
    for name in names
    if not os.path.lexists(path := os.path.join(folder, name))
  )
  os.rename(os.path.join(workdir, FOLDER, str(step)), aside)
  return aside


def identity(path: str) -> tuple[int, int] | None:
  """Which folder it is; None if there is none."""
  try:
    found = os.stat(path)
  except OSError:
    return None
  return found.st_dev, found.st_ino
