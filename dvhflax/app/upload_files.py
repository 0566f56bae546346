"""Files that a page sends, kept apart until they are imported.

DICOM files get names of the server's. NIfTI files keep theirs, which tell the
structures: every part of a path is checked, and nothing is written elsewhere
than below the upload's own folder.
"""

from collections.abc import AsyncIterator, Iterator
import contextlib
import os
import pathlib
import re
import secrets
import shutil
from typing import Literal
import unicodedata

import msgspec

from dvhflax import errors
from dvhflax.app import faults

Kind = Literal['dicom', 'nifti']

MOST_FILES = 20_000
MOST_FILE_BYTES, MOST_BYTES = 2**30, 8 * 2**30
_MOST_UPLOADS = 100
_MOST_DEPTH, _MOST_PART_BYTES, _MOST_PATH = 10, 200, 1000
# What a folder that is dropped as loose files is called.
_LOOSE = 'dropped'
_KEY = re.compile('[0-9a-f]{16}')


class Found(msgspec.Struct, frozen=True):
  """A patient of an upload."""

  id: str
  prescription_gy: float | None
  plans: int
  faults: str | None = None


class Record(msgspec.Struct):
  """What is kept of an upload.

  Attributes:
    kind: of the files.
    prescription_gy: see `ExternalPatients`.
    patients: that were imported, in order.
  """

  kind: Kind
  prescription_gy: float | None = None
  patients: list[Found] = []


class Upload:
  """The files of one drop.

  Attributes:
    key: random, in addresses.
    record: what is kept of it.
  """

  def __init__(self, folder: pathlib.Path, record: Record):
    """Of a folder that is there."""
    self.key, self.record = folder.name, record
    self._folder = folder
    found = [p for p in self.files.rglob('*') if p.is_file()]
    self._count = len(found)
    self._bytes = sum(p.stat().st_size for p in found)

  @property
  def files(self) -> pathlib.Path:
    """The folder of the files."""
    return self._folder / _LOOSE

  @property
  def names(self) -> pathlib.Path:
    """The file of the table of names."""
    return self._folder / 'names.json'

  def save(self) -> None:
    """Writes the record."""
    path = self._folder / 'upload.json'
    aside = path.with_name(f'.upload.{secrets.token_hex(16)}.part.json')
    aside.write_bytes(msgspec.json.encode(self.record))
    os.replace(aside, path)

  async def add(self, path: str, content: AsyncIterator[bytes]) -> int:
    """Takes a file.

    Args:
      path: relative, within the folder that was dropped.
      content: its bytes.

    Returns:
      How many there were.

    Raises:
      UserError: for a path that is not within.
      TooLarge: for too much, or too many files.
      Conflict: for a path that there is already.
    """
    parts = checked(path)
    if self._count >= MOST_FILES:
      raise faults.TooLarge(
        f'an upload has {MOST_FILES} files at most: drop fewer at once'
      )
    self._count += 1
    # The library that reads them goes by the content.
    target = self.files / f'{self._count:06}'
    if self.record.kind == 'nifti':
      target = self.files.joinpath(*parts)
    aside = self._folder / f'.{secrets.token_hex(16)}.part'
    size = 0
    try:
      file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
      with os.fdopen(file, 'wb') as opened:
        async for chunk in content:
          size += len(chunk)
          self._bytes += len(chunk)
          if self._bytes > MOST_BYTES:
            raise faults.TooLarge(
              f'an upload has {MOST_BYTES // 2**30} GiB at most: drop fewer '
              'patients at once'
            )
          opened.write(chunk)
      try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if target.exists():
          raise FileExistsError(17, 'there is one of that name already')
        os.replace(aside, target)
      except OSError as error:
        raise faults.Conflict(
          f'{errors.shown(path)} cannot be kept beside what there is: '
          f'{error.strerror}'
        ) from None
    except BaseException:
      self._bytes -= size
      self._count -= 1
      raise
    finally:
      with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    return size

  def delete(self) -> None:
    """Removes all."""
    shutil.rmtree(self._folder, ignore_errors=True)


class Uploads:
  """The uploads of a folder."""

  def __init__(self, folder: pathlib.Path):
    """Lists what is there; what was never imported goes."""
    self._folder = folder
    self._there: dict[str, Upload] = {}
    for inner in sorted(folder.iterdir()):
      if not (inner.is_dir() and _KEY.fullmatch(inner.name)):
        continue
      try:
        text = (inner / 'upload.json').read_bytes()
        record = msgspec.json.decode(text, type=Record)
      except (OSError, msgspec.MsgspecError):
        record = None
      if record and record.patients:
        self._there[inner.name] = Upload(inner, record)
      else:
        shutil.rmtree(inner, ignore_errors=True)

  def __iter__(self) -> Iterator[Upload]:
    return iter(list(self._there.values()))

  def begin(self, kind: Kind) -> Upload:
    """A new one.

    Raises:
      Conflict: if there are too many.
    """
    if len(self._there) >= _MOST_UPLOADS:
      raise faults.Conflict(
        f'there are {_MOST_UPLOADS} uploads: delete those that are done with'
      )
    folder = self._folder / secrets.token_hex(8)
    (folder / _LOOSE).mkdir(mode=0o700, parents=True)
    upload = Upload(folder, Record(kind))
    self._there[upload.key] = upload
    return upload

  def find(self, key: str) -> Upload:
    """One by its key.

    Raises:
      NotThere: if there is none.
    """
    if key not in self._there:
      raise faults.NotThere('there is no such upload: begin a new one')
    return self._there[key]

  def delete(self, key: str) -> None:
    """Removes one."""
    self.find(key).delete()
    del self._there[key]


def checked(path: str) -> list[str]:
  """The parts of a relative path that stays within.

  Raises:
    UserError: for any other.
  """
  shown = errors.shown(path)
  parts = unicodedata.normalize('NFC', path).split('/')
  if len(path) > _MOST_PATH or len(parts) > _MOST_DEPTH:
    raise errors.UserError(f'{shown} is too long for the path of a file')
  for part in parts:
    if part in ('', '.', '..') or part.startswith('~'):
      raise errors.UserError(
        f'{shown} does not stay within the folder that was dropped'
      )
    if not part.isprintable() or any(c in part for c in '\\:'):
      raise errors.UserError(
        f'{shown} has characters that a file name cannot have everywhere: '
        'rename it'
      )
    if len(part.encode()) > _MOST_PART_BYTES:
      raise errors.UserError(f'{shown} is too long for the name of a file')
  return parts
