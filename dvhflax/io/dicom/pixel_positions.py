"""Axial planes of DICOM images: where their pixels lie."""

import dataclasses
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.grid import Axes
from dvhflax.io.dicom import files

# Tolerance of direction cosines.
_EXACT = 1e-3
_FARTHEST_MM = 1e4


@dataclasses.dataclass(frozen=True)
class Plane:
  """Where the pixels of an axial plane lie, in mm.

  Attributes:
    columns_mm, rows_mm: `[C]`, `[R]` positions of columns and of rows, as
      stored: x and y, or y and x of a plane that is turned.
    turned: whether a row of pixels runs along y, as of a patient who lies on
      the side.
    height_mm: z of the (first) plane.
    normal: 1 or -1, the direction of the planes' normal along z.
  """

  columns_mm: np.ndarray
  rows_mm: np.ndarray
  turned: bool
  height_mm: float
  normal: int

  def lies_above(self, other: 'Plane', tolerance_mm: float) -> bool:
    """Whether the pixels of both lie above each other."""
    return self.turned == other.turned and all(
      len(one) == len(its)
      and np.abs(one[[0, -1]] - its[[0, -1]]).max() < tolerance_mm
      for one, its in (
        (self.columns_mm, other.columns_mm),
        (self.rows_mm, other.rows_mm),
      )
    )


def in_plane(dataset: Any, where: Any, rows: int, columns: int) -> Plane:
  """Positions of an axial plane's pixels (PS3.3 C.7.6.2.1.1).

  Args:
    dataset: of the image.
    where: names the file in errors.
    rows, columns: of the plane.

  Raises:
    CohortError: for a plane that is not axial, and for faulty positions.
  """
  position = files.numbers(dataset, 'ImagePositionPatient', where, 3)
  turn = files.numbers(dataset, 'ImageOrientationPatient', where, 6)
  rounded = np.round(turn)
  along_row, along_column = rounded[:3], rounded[3:]
  normal = np.cross(along_row, along_column)
  if (
    np.abs(turn - rounded).max() > _EXACT
    or np.abs(rounded).sum() != 2
    or abs(normal[2]) != 1
  ):
    raise errors.CohortError(
      f'{where}: ImageOrientationPatient {turn.round(3).tolist()} is not '
      'axial: export it on axial planes'
    )
  row_mm, column_mm = files.numbers(dataset, 'PixelSpacing', where, 2)
  if min(row_mm, column_mm) <= 0:
    raise errors.CohortError(f'{where}: PixelSpacing must be positive')
  # Axes that columns and rows are counted along.
  across, down = (
    int(np.argmax(np.abs(along_row))),
    int(np.argmax(np.abs(along_column))),
  )
  return Plane(
    position[across] + along_row[across] * column_mm * np.arange(columns),
    position[down] + along_column[down] * row_mm * np.arange(rows),
    across == 1,
    float(position[2]),
    int(normal[2]),
  )


def coarser(plane: Plane, factor: int) -> Plane:
  """A plane whose pixels are taken together, what is left over cut off."""
  columns, rows = (
    positions[: len(positions) // factor * factor].reshape(-1, factor).mean(1)
    for positions in (plane.columns_mm, plane.rows_mm)
  )
  return dataclasses.replace(plane, columns_mm=columns, rows_mm=rows)


def upright(
  stored: np.ndarray, plane: Plane, heights_mm: np.ndarray, where: Any
) -> tuple[np.ndarray, Axes]:
  """Planes as stored to `[X, Y, Z]` with all axes ascending.

  Args:
    stored: planes, rows, columns.
    plane: where the pixels of each plane lie.
    heights_mm: z of the planes.
    where: names the file in errors.

  Raises:
    CohortError: for positions metres away from any patient.
  """
  values = stored.transpose((1, 2, 0) if plane.turned else (2, 1, 0))
  axes = [plane.columns_mm, plane.rows_mm, heights_mm]
  if plane.turned:
    axes[:2] = axes[1::-1]
  ascending = []
  for axis, positions in enumerate(axes):
    if np.abs(positions).max() > _FARTHEST_MM:
      raise errors.CohortError(
        f'{where}: its position is metres away from any patient'
      )
    if positions[0] > positions[-1]:
      values = np.flip(values, axis)
      positions = positions[::-1]
    ascending.append(positions)
  x, y, z = ascending
  return values, (x, y, z)
