"""SHA-256 of all files of a folder, in a file that `sha256sum -c` reads."""

import hashlib
import os
import pathlib

from dvhflax import errors, files

SUMS = 'SHA256SUMS'


def write(folder: str | os.PathLike[str]) -> None:
  """Writes the sums of all files below a folder."""
  folder = pathlib.Path(folder)
  lines = [f'{_sha256(folder / name)}  {name}\n' for name in _names(folder)]
  files.write_text(folder / SUMS, ''.join(lines))


def fault(folder: str | os.PathLike[str]) -> str | None:
  """What is wrong with the first file that is not as it was; None if nothing.

  A file that came later is a fault too, since it may be one whose sum was lost;
  but for hidden ones, which file managers leave.
  """
  folder = pathlib.Path(folder)
  try:
    text = (folder / SUMS).read_text(encoding='utf-8')
  except (OSError, ValueError):
    return f'{SUMS} is missing or damaged'
  wanted: dict[str, str] = {}
  for line in text.splitlines():
    value, _, name = line.partition('  ')
    wanted[name] = value
  there = _names(folder)
  for name, value in wanted.items():
    if name not in there:
      return f'{errors.plain(name)} is missing'
    if _sha256(folder / name) != value:
      return f'{errors.plain(name)} is damaged or another one'
  for name in there:
    if name not in wanted:
      return f'{errors.plain(name)} does not belong there: it is not in {SUMS}'
  return None


def _names(folder: pathlib.Path) -> list[str]:
  """Of all files but the sums and hidden ones; parted by `/`."""
  found = [p.relative_to(folder) for p in folder.rglob('*') if p.is_file()]
  return sorted(
    p.as_posix()
    for p in found
    if p.as_posix() != SUMS and not any(x.startswith('.') for x in p.parts)
  )


def _sha256(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
