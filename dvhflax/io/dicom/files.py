"""Reads DICOM files, any of which may be faulty.

Every fault raises a CohortError that names the file and the attribute. Sizes
are checked before memory is allocated for them.
"""

from collections.abc import Iterator, Sequence
import contextlib
import io
import logging
import pathlib
from typing import Any
import warnings

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement

from dvhflax import errors

# 512 x 512 x 256; read, scaled and resampled it stays below 1 GB.
MOST_VOXELS = 2**26
MOST_BYTES = 2**29
_DEFLATED = '1.2.840.10008.1.2.1.99'
_BIG_ENDIAN = '1.2.840.10008.1.2.2'
_UNDEFINED = 0xFFFFFFFF


def looks_like_dicom(path: pathlib.Path) -> bool:
  """Whether a file begins as DICOM does, with its preamble or without.

  Without, elements of the file meta information or of group 8 come first,
  whichever of them there are.
  """
  with path.open('rb') as file:
    start = file.read(132)
  if start[128:] == b'DICM':
    return True
  if len(start) < 8 or start[:2] not in (b'\x08\x00', b'\x02\x00'):
    return False
  representation, length = start[4:6], int.from_bytes(start[4:8], 'little')
  if representation.isalpha() and representation.isupper():
    return True
  # The length of a group is a number of four bytes; 8 as a number of 4 or 8
  # bytes, which other files begin with, is none.
  if start[2:4] == b'\0\0':
    return length == 4
  return length <= path.stat().st_size


def read(path: pathlib.Path, only: Sequence[str] | None = None) -> Any:
  """A file's dataset.

  Args:
    path: of the file.
    only: keywords to read, without pixels; by default everything.

  Raises:
    CohortError: for what cannot be read, is too large, or is deflated.
  """
  size = path.stat().st_size
  if size > MOST_BYTES:
    raise errors.CohortError(
      f'{path}: {size / 2**20:.0f} MB is too large for a structure set or dose'
    )
  try:
    with quiet(), _Bounded(path, size) as file:
      # Inflated, a small file could fill the memory.
      if file.read(132)[128:] == b'DICM' and _is_deflated(file):
        raise errors.CohortError(
          f'{path} is deflated: save it with an uncompressed transfer syntax'
        )
      file.seek(0)
      content = file if only else io.BytesIO(file.read())
      dataset = pydicom.dcmread(
        content,
        stop_before_pixels=bool(only),
        specific_tags=list(only) if only else None,
        force=True,
      )
  except errors.CohortError:
    raise
  except Exception as error:
    # pydicom raises whatever the malformed bytes happen to lead to.
    raise errors.CohortError(
      f'{path} cannot be read as DICOM: {_reason(error)}'
    ) from None
  _check_whole(dataset, path)
  return dataset


def value(dataset: Any, keyword: str, where: Any) -> Any:
  """An attribute's value, None if it is absent or empty.

  Args:
    dataset: a dataset or an item of a sequence.
    keyword: of the attribute.
    where: names the file in errors.

  Raises:
    CohortError: if the value cannot be read.
  """
  try:
    with quiet():
      found = dataset.get(keyword)
  except Exception as error:  # see `read`
    raise errors.CohortError(
      f'{where}: {keyword} cannot be read: {_reason(error)}'
    ) from None
  return None if found is None or found == '' else found


def text(dataset: Any, keyword: str, where: Any) -> str:
  """An attribute as text, '' if it is absent."""
  found = value(dataset, keyword, where)
  return '' if found is None else str(found).strip(' \0')


def code(dataset: Any, keyword: str, where: Any) -> str:
  """A code string in capitals; '' if it is absent."""
  return text(dataset, keyword, where).upper()


def items(dataset: Any, keyword: str, where: Any) -> list[Any]:
  """Items of a sequence; none if it is absent or empty."""
  found = value(dataset, keyword, where)
  if found is None:
    return []
  if not isinstance(found, pydicom.Sequence):
    raise errors.CohortError(f'{where}: {keyword} is not a sequence')
  return list(found)


def numbers(
  dataset: Any, keyword: str, where: Any, count: int | None = None
) -> np.ndarray:
  """`[count]` finite float64 of a numeric attribute.

  Raises:
    CohortError: if it is absent, not finite, or has another count.
  """
  found = value(dataset, keyword, where)
  if found is None:
    raise errors.CohortError(f'{where}: {keyword} is missing')
  try:
    result = np.atleast_1d(np.asarray(found, np.float64))
  except (TypeError, ValueError, OverflowError):
    raise errors.CohortError(f'{where}: {keyword} is not a number') from None
  if result.ndim != 1 or not np.isfinite(result).all():
    raise errors.CohortError(f'{where}: {keyword} is not finite')
  if count is not None and len(result) != count:
    raise errors.CohortError(
      f'{where}: {keyword} has {len(result)} values; expected {count}'
    )
  return result


def whole(dataset: Any, keyword: str, where: Any) -> int:
  """The whole number of an attribute.

  Raises:
    CohortError: if it is absent or not a whole number.
  """
  number = numbers(dataset, keyword, where, 1)[0]
  if number != int(number):
    raise errors.CohortError(
      f'{where}: {keyword}={number} is not a whole number'
    )
  return int(number)


def points(contour: Any, where: Any) -> np.ndarray:
  """`[N, 3]` float64 points in mm of a contour's ContourData.

  The bytes are parsed here: a body has some 100,000 numbers, each of which
  pydicom would make an object.
  """
  try:
    element = contour.get_item('ContourData')
    if element is None or not element.value:
      return np.zeros((0, 3))
    raw = element.value
    if isinstance(element, RawDataElement):
      cells = np.array(raw.rstrip(b' \0').split(b'\\'), dtype='S')
      flat = cells.astype(np.float64)
    else:
      flat = np.asarray(raw, np.float64)
    return flat.reshape(-1, 3)
  except Exception as error:  # see `read`
    raise errors.CohortError(
      f'{where}: ContourData is not a list of points: {_reason(error)}'
    ) from None


def pixels(dataset: Any, where: Any, single: str = '') -> np.ndarray:
  """`[frames, rows, columns]` stored integers, uncompressed.

  Args:
    dataset: of the image.
    where: names the file in errors.
    single: what the image is, if it has one frame only; by default a dose.

  Raises:
    CohortError: for a compressed, unknown or inconsistent pixel format.
  """
  frames = 1 if single else whole(dataset, 'NumberOfFrames', where)
  rows, columns = (
    whole(dataset, keyword, where) for keyword in ('Rows', 'Columns')
  )
  sizes = (frames, rows, columns)
  what = single or 'dose grid'
  if min(sizes) < 1 or frames * rows * columns > MOST_VOXELS:
    raise errors.CohortError(
      f'{where}: {frames} frames of {rows} x {columns}: not a valid {what}'
    )
  bits = whole(dataset, 'BitsAllocated', where)
  if bits not in (16, 32) or whole(dataset, 'SamplesPerPixel', where) != 1:
    raise errors.CohortError(
      f'{where}: a {what} has one sample of 16 or 32 bits a voxel, not {bits}'
    )
  meta = getattr(dataset, 'file_meta', None)
  syntax = getattr(meta, 'TransferSyntaxUID', None)
  if syntax is not None and not pydicom.uid.UID(syntax).is_transfer_syntax:
    raise errors.CohortError(
      f'{where}: TransferSyntaxUID {errors.shown(str(syntax))} is unknown: '
      'save it with an uncompressed transfer syntax'
    )
  if syntax is not None and pydicom.uid.UID(syntax).is_compressed:
    raise errors.CohortError(
      f'{where} is compressed: save it with an uncompressed transfer syntax'
    )
  content = value(dataset, 'PixelData', where)
  length = frames * rows * columns * bits // 8
  if not isinstance(content, bytes) or not (
    length <= len(content) <= length + 1
  ):
    have = len(content) if isinstance(content, bytes) else 0
    raise errors.CohortError(
      f'{where}: PixelData has {have} bytes; expected {length}: truncated?'
    )
  order = '>' if str(syntax) == _BIG_ENDIAN else '<'
  kind = 'i' if value(dataset, 'PixelRepresentation', where) else 'u'
  stored = np.frombuffer(
    content, f'{order}{kind}{bits // 8}', frames * rows * columns
  )
  return stored.reshape(frames, rows, columns)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Silences pydicom's warnings: the values used here are checked anyway."""
  logger = logging.getLogger('pydicom')
  before = logger.disabled
  logger.disabled = True
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logger.disabled = before


def _check_whole(dataset: Any, path: pathlib.Path) -> None:
  """Raises a CohortError if the file ends within an element.

  pydicom accepts such a file; the contours of half an organ would pass.
  """
  for element in dataset.values():
    if (
      isinstance(element, RawDataElement)
      and element.length != _UNDEFINED
      and len(element.value or b'') != element.length
    ):
      raise errors.CohortError(f'{path} is truncated')


class _Bounded(io.BufferedReader):
  """A file of which no more is asked for than there is.

  A length that a faulty file claims must not be allocated.
  """

  def __init__(self, path: pathlib.Path, size: int):
    super().__init__(io.FileIO(path))
    self._size = size

  def read(self, size: int | None = -1, /) -> bytes:
    left = max(self._size - self.tell(), 0)
    return super().read(left if size is None or size < 0 else min(size, left))


def _is_deflated(file: io.BufferedReader) -> bool:
  """Whether the meta information, which begins here, says so."""
  meta = pydicom.filereader.read_dataset(
    file, False, True, stop_when=lambda tag, *_: tag.group != 2
  )
  return str(meta.get('TransferSyntaxUID', '')) == _DEFLATED


def _reason(error: Exception) -> str:
  """The error's first line, cut short."""
  lines = str(error).splitlines() or ['']
  return f'{type(error).__name__} {lines[0][:120]}'.strip()
