"""Files that are there whole or not at all."""

from collections.abc import Iterator
import contextlib
import json
import math
import os
import pathlib
from typing import Any


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a path to write aside; renames it to `path` on success.

  A reader, or a run that is killed, never sees a half-written file. On an
  error the old file stays as it was.

  Args:
    path: the file to make or replace; its directory is made if need be.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # The suffix stays last: matplotlib takes the format from it.
  aside = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
  try:
    yield aside
    os.replace(aside, path)
  finally:
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


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes UTF-8 text, whole or not at all."""
  with replacing(path) as aside:
    aside.write_text(text, encoding='utf-8')
