"""Reads regions of interest of an RTSTRUCT file."""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.io import dicom_files as files

# Kinds of contours that enclose an area.
_CLOSED = ('CLOSED_PLANAR', 'CLOSEDPLANAR_XOR')


@dataclasses.dataclass(frozen=True)
class Roi:
  """A region of interest.

  Attributes:
    number: ROINumber.
    name: ROIName.
    contours: items of its ContourSequence.
  """

  number: int
  name: str
  contours: Sequence[Any]


def rois(
  dataset: Any, where: pathlib.Path, frames: frozenset[str]
) -> list[Roi]:
  """Regions in one of the frames of reference.

  Args:
    dataset: of the RTSTRUCT.
    where: its path, for errors.
    frames: UIDs.

  Raises:
    CohortError: if there is none, or a sequence is faulty.
  """
  items: dict[int, list[Any]] = {}
  for item in files.items(dataset, 'ROIContourSequence', where):
    number = int(files.numbers(item, 'ReferencedROINumber', where, 1)[0])
    items[number] = files.items(item, 'ContourSequence', where)
  found = []
  for item in files.items(dataset, 'StructureSetROISequence', where):
    number = int(files.numbers(item, 'ROINumber', where, 1)[0])
    frame = files.text(item, 'ReferencedFrameOfReferenceUID', where)
    if not frame or frame in frames:
      name = files.text(item, 'ROIName', where)
      found.append(Roi(number, name, items.get(number, [])))
  if not found:
    raise errors.CohortError(
      f"{where} has no structure in the dose's frame of reference"
    )
  return found


def contours(
  roi: Roi, where: pathlib.Path
) -> tuple[list[np.ndarray], list[str]]:
  """The closed contours of a region.

  Returns:
    `[N, 3]` points in mm each, and what was left out, a line each.
  """
  polygons, open_ones = [], 0
  for item in roi.contours:
    kind = files.text(item, 'ContourGeometricType', where)
    points = files.points(item, f'{where}, {roi.name}')
    if kind not in _CLOSED:
      open_ones += 1
    elif len(points):
      polygons.append(points)
  notes = [f'{open_ones} points or open contours left out'] if open_ones else []
  return polygons, notes
