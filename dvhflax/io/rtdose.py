"""Reads the dose of an RTDOSE file."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.io import dicom_files as files
from dvhflax.io.resample import MOST_GY, Axes, Dose

# Tolerance of direction cosines and of positions in mm.
_EXACT = 1e-3
_FARTHEST_MM = 1e4


def read_dose(path: pathlib.Path) -> Dose:
  """Reads an RTDOSE.

  Raises:
    CohortError: for a dose that is relative, erroneous, not axial, or faulty
      in any other way.
  """
  dataset = files.read(path)
  units = files.text(dataset, 'DoseUnits', path)
  if units != 'GY':
    raise errors.CohortError(
      f'{path}: DoseUnits is {units or "missing"!r}, wanted GY: export the '
      'dose as absolute dose'
    )
  if files.text(dataset, 'DoseType', path) == 'ERROR':
    raise errors.CohortError(
      f'{path}: DoseType is ERROR, the difference of doses: export a dose'
    )
  scaling = files.numbers(dataset, 'DoseGridScaling', path, 1)[0]
  if scaling <= 0:
    raise errors.CohortError(f'{path}: DoseGridScaling={scaling} must be > 0')
  stored = files.pixels(dataset, path)
  if stored.min() < 0:
    raise errors.CohortError(f'{path}: a dose is negative')
  if float(stored.max()) * scaling > MOST_GY:
    raise errors.CohortError(
      f'{path}: the maximum dose is {float(stored.max()) * scaling:.4g} Gy: is '
      'DoseGridScaling that of cGy?'
    )
  values, axes = _turned(stored, _plane_axes(dataset, path, stored.shape), path)
  values = values.astype(np.float32)
  values *= np.float32(scaling)
  return Dose(values, axes)


def _plane_axes(
  dataset: Any, where: pathlib.Path, shape: tuple[int, ...]
) -> Axes:
  """Positions in mm of columns (x), rows (y) and frames (z), as stored.

  Raises:
    CohortError: for planes that are not axial, and for faulty positions.
  """
  frames, rows, columns = shape
  position = files.numbers(dataset, 'ImagePositionPatient', where, 3)
  turn = files.numbers(dataset, 'ImageOrientationPatient', where, 6)
  along_x, along_y = np.round(turn[0]), np.round(turn[4])
  axial = np.array([along_x, 0, 0, 0, along_y, 0])
  if (
    min(abs(along_x), abs(along_y)) != 1 or np.abs(turn - axial).max() > _EXACT
  ):
    raise errors.CohortError(
      f'{where}: ImageOrientationPatient {turn.round(3).tolist()} is not '
      'axial: export the dose on axial planes'
    )
  row_mm, column_mm = files.numbers(dataset, 'PixelSpacing', where, 2)
  if min(row_mm, column_mm) <= 0:
    raise errors.CohortError(f'{where}: PixelSpacing must be positive')
  offsets = files.numbers(dataset, 'GridFrameOffsetVector', where, frames)
  steps = np.diff(offsets)
  if min(shape) < 2 or not ((steps > 0).all() or (steps < 0).all()):
    raise errors.CohortError(
      f'{where}: a dose needs two planes at least, in ascending or descending '
      'order in GridFrameOffsetVector'
    )
  if offsets[0] == 0:
    # Relative, along the normal of the planes (PS3.3 C.8.8.3.2).
    heights = position[2] + along_x * along_y * offsets
  elif abs(offsets[0] - position[2]) < _EXACT:
    heights = offsets
  else:
    raise errors.CohortError(
      f'{where}: GridFrameOffsetVector begins with {offsets[0]:g}, neither 0 '
      f'nor the z of ImagePositionPatient, {position[2]:g}'
    )
  return (
    position[0] + along_x * column_mm * np.arange(columns),
    position[1] + along_y * row_mm * np.arange(rows),
    heights,
  )


def _turned(
  stored: np.ndarray, axes: Sequence[np.ndarray], where: pathlib.Path
) -> tuple[np.ndarray, Axes]:
  """(z, y, x) values as stored to `[X, Y, Z]` with all axes ascending."""
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
