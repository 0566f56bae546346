"""Files that are there whole or not at all."""

from collections.abc import Iterator
import contextlib
import json
import math
import os
import pathlib
import re
from typing import Any
import uuid

# What is written aside: `.history.0f...e1.part.csv` beside `history.csv`.
_ASIDE = re.compile(r'\..+\.[0-9a-f]{32}\.part(\.[^.]*)?')


@contextlib.contextmanager
def replacing(
  path: str | os.PathLike[str],
  *,
  durable: bool = False,
  make_folder: bool = True,
) -> Iterator[pathlib.Path]:
  """Yields a path to write aside; renames it to `path` on success.

  A reader, or a run that is killed, never sees a half-written file. On an
  error the old file stays as it was. The name aside is of no other writer, on
  this host or on another of the same file system.

  Args:
    path: the file to make or replace.
    durable: the content reaches the disk before the name does, so that a
      machine that fails leaves no empty file.
    make_folder: whether its folder is made if it is missing.

  Raises:
    OSError: if the disk does not take it; it names a file.
  """
  path = pathlib.Path(path)
  if make_folder:
    path.parent.mkdir(parents=True, exist_ok=True)
  # The suffix stays last: matplotlib takes the format from it.
  aside = path.with_name(f'.{path.stem}.{uuid.uuid4().hex}.part{path.suffix}')
  try:
    yield aside
    if durable:
      with open(aside, 'rb') as file:
        os.fsync(file.fileno())
    os.replace(aside, path)
  except OSError as error:
    # One of a write names no file.
    if error.filename is None and error.errno is not None:
      raise OSError(error.errno, error.strerror, str(path)) from error
    raise
  finally:
    # Nor must it hide that error.
    with contextlib.suppress(OSError):
      aside.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], values: Any) -> None:
  """Writes JSON, whole or not at all; NaN, which JSON lacks, becomes null."""
  write_text(path, json.dumps(without_nan(values), indent=2) + '\n')


def without_nan(values: Any) -> Any:
  """JSON-serialisable values, None in the place of what is not finite."""
  if isinstance(values, dict):
    return {key: without_nan(value) for key, value in values.items()}
  if isinstance(values, (list, tuple)):
    return [without_nan(value) for value in values]
  if isinstance(values, float) and not math.isfinite(values):
    return None
  return values


def write_text(
  path: str | os.PathLike[str],
  text: str,
  *,
  durable: bool = False,
  make_folder: bool = True,
) -> None:
  """Writes UTF-8 text, whole or not at all; see `replacing`."""
  with replacing(path, durable=durable, make_folder=make_folder) as aside:
    aside.write_text(text, encoding='utf-8')


def remove_leftovers(folder: str | os.PathLike[str], stem: str = '') -> None:
  """Removes what killed writers left aside in a folder.

  Args:
    folder: that no other process writes to meanwhile.
    stem: with it, no other process writes files of that stem.
  """
  for name in os.listdir(folder):
    if _ASIDE.fullmatch(name) and name.startswith(f'.{stem}'):
      pathlib.Path(folder, name).unlink(missing_ok=True)
