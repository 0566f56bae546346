"""Reads regions of interest of an RTSTRUCT file.

Contours belong to a region by number. Files in which numbers are missing, or
given twice, are read as far as they are unambiguous.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.io.dicom import files

# Kinds of contours that enclose an area, without the underscores that some
# leave out: PS3.3 C.8.8.6.3, and planes that a planning system interpolated.
_XOR = ('CLOSEDPLANARXOR',)
_CLOSED = ('CLOSEDPLANAR', 'INTERPOLATEDPLANAR', *_XOR)
_OPEN = 'OPENPLANAR'
# Of an open contour that runs round an area.
_MEETING_MM = 0.5
# Contours of one plane.
_SAME_MM = 0.05


@dataclasses.dataclass(frozen=True)
class Roi:
  """A region of interest.

  Attributes:
    number: ROINumber.
    name: ROIName.
    contours: items of its ContourSequence, at least one of which may enclose
      an area.
  """

  number: int
  name: str
  contours: Sequence[Any]


def rois(
  dataset: Any, where: pathlib.Path, frames: frozenset[str]
) -> tuple[list[Roi], list[str]]:
  """Regions that have contours, in one of the frames of reference.

  Args:
    dataset: of the RTSTRUCT.
    where: its path, for errors.
    frames: UIDs.

  Returns:
    The regions, and notes on those left out.

  Raises:
    CohortError: if there is none, or a sequence is faulty.
  """
  regions = files.items(dataset, 'StructureSetROISequence', where)
  names = [files.text(item, 'ROIName', where) for item in regions]
  numbers = [_number(item, 'ROINumber', where) for item in regions]
  contours, notes = _contours_of(
    numbers, names, files.items(dataset, 'ROIContourSequence', where), where
  )
  found, elsewhere, empty = [], [], []
  for item, name, number, its_contours in zip(
    regions, names, numbers, contours
  ):
    frame = files.text(item, 'ReferencedFrameOfReferenceUID', where)
    if frame and frame not in frames:
      elsewhere.append(name)
    elif its_contours is None:
      continue
    elif any(_may_enclose(contour, where) for contour in its_contours):
      found.append(Roi(-1 if number is None else number, name, its_contours))
    else:
      empty.append(name)
  if len(elsewhere) == len(regions):
    raise errors.CohortError(
      f"{where} has no structure in the dose's frame of reference"
    )
  if empty:
    notes.append(f'without contours that enclose an area: {", ".join(empty)}')
  if elsewhere:
    notes.append(f'in another frame of reference: {", ".join(elsewhere)}')
  if not found:
    raise errors.CohortError(
      f'{where} has no structure with contours: {"; ".join(notes)}'
    )
  return found, notes


def marks(rois: Sequence[Roi]) -> list[str]:
  """What tells regions of one name apart: their numbers, or their places."""
  numbers = [roi.number for roi in rois]
  return [
    f'ROI {n}' if n >= 0 and numbers.count(n) == 1 else f'place {place}'
    for place, n in enumerate(numbers, 1)
  ]


def contours(
  roi: Roi, where: pathlib.Path
) -> tuple[list[np.ndarray], list[str]]:
  """The closed contours of a region.

  Returns:
    `[N, 3]` points in mm each, those that exclude each other in a plane
    (CLOSEDPLANAR_XOR) joined to one; and what was left out or taken for
    something else, a line each.

  Raises:
    CohortError: for points that cannot be read.
  """
  polygons, exclusive = [], []
  left_out: dict[str, int] = {}
  closed = undeclared = short = 0
  for item in roi.contours:
    kind = files.text(item, 'ContourGeometricType', where)
    plain = _plain(kind)
    points = files.points(item, f'{where}, {roi.name}')
    short += len(points) < _stated_points(item, where)
    if plain in _XOR and len(points):
      exclusive.append(points)
      continue
    if plain == _OPEN and _comes_back(points):
      closed += 1
    elif not plain and len(points) > 2:
      undeclared += 1
    elif plain not in _CLOSED:
      left_out[kind or 'undeclared'] = left_out.get(kind or 'undeclared', 0) + 1
      continue
    if len(points):
      polygons.append(points)
  notes = [
    f'{count} {kind} contours left out: they enclose no area'
    for kind, count in left_out.items()
  ]
  if closed:
    notes.append(
      f'{closed} OPEN_PLANAR contours, whose ends meet, taken as closed'
    )
  if undeclared:
    notes.append(
      f'{undeclared} contours without ContourGeometricType taken as closed'
    )
  if short:
    notes.append(
      f'{short} contours have fewer points than NumberOfContourPoints says: '
      'are they cut off?'
    )
  return polygons + list(_joined(exclusive)), notes


def _stated_points(item: Any, where: pathlib.Path) -> float:
  """NumberOfContourPoints of a contour, 0 if it does not say."""
  try:
    return files.numbers(item, 'NumberOfContourPoints', where, 1)[0]
  except errors.CohortError:
    return 0.0


def _number(item: Any, keyword: str, where: pathlib.Path) -> int | None:
  """A region's number, None if it has none."""
  if files.value(item, keyword, where) is None:
    return None
  return int(files.numbers(item, keyword, where, 1)[0])


def _contours_of(
  numbers: Sequence[int | None],
  names: Sequence[str],
  lists: Sequence[Any],
  where: pathlib.Path,
) -> tuple[list[Sequence[Any] | None], list[str]]:
  """Contours of each region; None where they are ambiguous.

  Args:
    numbers, names: of the regions.
    lists: items of the ROIContourSequence.
    where: names the file in errors.
  """
  of_list = [_number(one, 'ReferencedROINumber', where) for one in lists]
  contours = [files.items(one, 'ContourSequence', where) for one in lists]
  # Regions and lists were written side by side if their numbers come in the
  # same order; some regions may have no list.
  side_by_side = of_list == [n for n in numbers if n in of_list]
  found: list[Sequence[Any] | None] = [[] for _ in numbers]
  notes = []
  for number in dict.fromkeys(numbers):
    regions = [i for i, n in enumerate(numbers) if n == number]
    its_lists = [i for i, n in enumerate(of_list) if n == number]
    what = ' and '.join(names[i] for i in regions)
    called = 'no ROINumber' if number is None else f'ROINumber {number}'
    if len(regions) > 1 and len(its_lists) > 1 and side_by_side:
      for region, one in zip(regions, its_lists):
        found[region] = contours[one]
      notes.append(
        f'{what} have {called} alike: told apart by their order in the file; '
        'look whether each is what its name says'
      )
      continue
    filled = [i for i in its_lists if contours[i]]
    if len(filled) > 1 or (filled and (len(regions) > 1 or number is None)):
      for region in regions:
        found[region] = None
      notes.append(
        f'{what} left out: {len(regions)} with {called} have '
        f'{len(its_lists)} lists of contours, and nothing tells whose are '
        'whose; export the structure set again'
      )
    elif filled:
      found[regions[0]] = contours[filled[0]]
  stray = sum(
    1 for n, one in zip(of_list, contours) if one and n not in numbers
  )
  if stray:
    notes.append(f'{stray} lists of contours left out: they name no structure')
  return found, notes


def _plain(kind: str) -> str:
  """A ContourGeometricType as most write it, without what joins its words."""
  return ''.join(c for c in kind.upper() if c.isalnum())


def _may_enclose(item: Any, where: pathlib.Path) -> bool:
  """Whether a contour has a kind and a number of points that can."""
  kind = _plain(files.text(item, 'ContourGeometricType', where))
  try:
    points = files.points(item, where)
  except errors.CohortError:
    # The fault is reported where the region is read.
    return True
  if kind in _CLOSED or not kind:
    return len(points) > 2
  return kind == _OPEN and _comes_back(points)


def _comes_back(points: np.ndarray) -> bool:
  """Whether a line of `[N, 3]` points ends where it begins."""
  gap = points[-1:] - points[:1]
  return len(points) > 3 and bool(np.linalg.norm(gap) < _MEETING_MM)


def _joined(contours: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
  """Contours of each plane as one, there and back along lines between them.

  What such a contour encloses by the even-odd rule is what they do by XOR.
  """
  heights = np.array([contour[0, 2] for contour in contours])
  order = np.argsort(heights, kind='stable')
  planes = np.split(
    order, np.flatnonzero(np.diff(heights[order]) > _SAME_MM) + 1
  )
  for plane in planes if len(order) else []:
    first = contours[plane[0]]
    parts = [first, first[:1]]
    for i in plane[1:]:
      parts += [contours[i], contours[i][:1], first[:1]]
    yield np.concatenate(parts)
