"""Axial planes of DICOM images: where their pixels lie."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.io import dicom_files as files
from dvhflax.io.resample import Axes

# Tolerance of direction cosines.
_EXACT = 1e-3
_FARTHEST_MM = 1e4


def in_plane(
  dataset: Any, where: Any, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray, float, int]:
  """Positions in mm of an axial plane's pixels.

  Args:
    dataset: of the image.
    where: names the file in errors.
    rows, columns: of the plane.

  Returns:
    x of the columns, y of the rows, as stored; z of the (first) plane; 1 or
    -1, the direction of the planes' normal along z.

  Raises:
    CohortError: for a plane that is not axial, and for faulty positions.
  """
  position = files.numbers(dataset, 'ImagePositionPatient', where, 3)
  turn = files.numbers(dataset, 'ImageOrientationPatient', where, 6)
  along_x, along_y = np.round(turn[0]), np.round(turn[4])
  axial = np.array([along_x, 0, 0, 0, along_y, 0])
  if (
    min(abs(along_x), abs(along_y)) != 1 or np.abs(turn - axial).max() > _EXACT
  ):
    raise errors.CohortError(
      f'{where}: ImageOrientationPatient {turn.round(3).tolist()} is not '
      'axial: export it on axial planes'
    )
  row_mm, column_mm = files.numbers(dataset, 'PixelSpacing', where, 2)
  if min(row_mm, column_mm) <= 0:
    raise errors.CohortError(f'{where}: PixelSpacing must be positive')
  return (
    position[0] + along_x * column_mm * np.arange(columns),
    position[1] + along_y * row_mm * np.arange(rows),
    float(position[2]),
    int(along_x * along_y),
  )


def turned(
  stored: np.ndarray, axes: Sequence[np.ndarray], where: Any
) -> tuple[np.ndarray, Axes]:
  """(z, y, x) values as stored to `[X, Y, Z]` with all axes ascending.

  Args:
    stored: planes, rows, columns.
    axes: positions in mm of columns (x), rows (y) and planes (z).
    where: names the file in errors.

  Raises:
    CohortError: for positions that no patient has.
  """
  values = stored.transpose(2, 1, 0)
  ascending = []
  for axis, positions in enumerate(axes):
    if np.abs(positions).max() > _FARTHEST_MM:
      raise errors.CohortError(f'{where}: lies metres away from the patient')
    if positions[0] > positions[-1]:
      values = np.flip(values, axis)
      positions = positions[::-1]
    ascending.append(positions)
  x, y, z = ascending
  return values, (x, y, z)
