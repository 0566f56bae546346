"""Reads the dose of an RTDOSE file, or of files of a plane each."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.grid import Axes
from dvhflax.io.dicom import files, pixel_positions
from dvhflax.io.resample import MOST_GY, Dose
from dvhflax.io.undershoot import without_undershoot

# Tolerance of positions in mm.
_EXACT = 1e-3


def read_dose(path: pathlib.Path) -> Dose:
  """Reads an RTDOSE.

  Raises:
    CohortError: for a dose that is relative, erroneous, not axial, or faulty
      in any other way.
  """
  dataset, scaling = _opened(path)
  stored = files.pixels(dataset, path)
  plane = pixel_positions.in_plane(dataset, path, *stored.shape[1:])
  heights = _heights(dataset, path, stored.shape, plane)
  values, axes = pixel_positions.upright(stored, plane, heights, path)
  return _checked(_scaled(values, scaling, path), axes, path, dataset)


def read_planes(paths: Sequence[pathlib.Path]) -> Dose:
  """Reads an RTDOSE that has a file a plane, each with its own scaling.

  Args:
    paths: in the order of their heights.

  Raises:
    CohortError: see `read_dose`; for planes that do not lie above each other.
  """
  first_path = paths[0]
  first: pixel_positions.Plane | None = None
  values = np.zeros((0, 0, 0), np.float32)
  heights = np.empty(len(paths))
  for i, path in enumerate(paths):
    dataset, scaling = _opened(path)
    stored = files.pixels(dataset, path, single='dose plane')[0]
    plane = pixel_positions.in_plane(dataset, path, *stored.shape)
    if first is None:
      if stored.size * len(paths) > files.MOST_VOXELS:
        raise errors.CohortError(
          f'{path}: {len(paths)} planes of {stored.shape[0]} x '
          f'{stored.shape[1]}: not a valid dose grid'
        )
      first = plane
      values = np.empty((len(paths), *stored.shape), np.float32)
    if not plane.lies_above(first, _EXACT):
      raise errors.CohortError(
        f'{path} and {first_path} are planes of one dose, but their pixels do '
        'not lie above each other'
      )
    values[i] = _scaled(stored, scaling, path)
    heights[i] = plane.height_mm
  if first is None or min(values.shape) < 2:
    raise errors.CohortError(f'{first_path}: a dose needs at least two planes')
  values, axes = pixel_positions.upright(values, first, heights, first_path)
  return _checked(values, axes, first_path, dataset)


def _opened(path: pathlib.Path) -> tuple[Any, float]:
  """A dose's dataset, and how many Gy a stored 1 is."""
  dataset = files.read(path)
  units = files.code(dataset, 'DoseUnits', path)
  if units != 'GY':
    raise errors.CohortError(
      f'{path}: DoseUnits is {units or "missing"!r}; expected GY: export the '
      'dose as absolute dose'
    )
  if files.code(dataset, 'DoseType', path) == 'ERROR':
    raise errors.CohortError(
      f'{path}: DoseType is ERROR, the difference of doses: export a dose'
    )
  if files.value(dataset, 'Rows', path) is None:
    raise errors.CohortError(
      f'{path} holds no dose grid, only DVHs or points: export the dose grid'
    )
  scaling = files.numbers(dataset, 'DoseGridScaling', path, 1)[0]
  if scaling <= 0:
    raise errors.CohortError(f'{path}: DoseGridScaling={scaling} must be > 0')
  return dataset, float(scaling)


def _scaled(
  stored: np.ndarray, scaling: float, path: pathlib.Path
) -> np.ndarray:
  """float32 Gy; raises a CohortError for more than any plan gives."""
  if float(stored.max()) * scaling > MOST_GY:
    raise errors.CohortError(
      f'{path}: the maximum dose is {float(stored.max()) * scaling:.4g} Gy: is '
      'DoseGridScaling that of cGy?'
    )
  values = stored.astype(np.float32)
  values *= np.float32(scaling)
  return values


def _checked(
  values: np.ndarray, axes: Axes, path: pathlib.Path, dataset: Any
) -> Dose:
  """A dose in Gy; raises a CohortError for one that is negative."""
  values, notes = without_undershoot(values, path)
  if files.code(dataset, 'DoseType', path) == 'EFFECTIVE':
    notes = (
      *notes,
      f'{path.name}: DoseType is EFFECTIVE, weighted by its biological effect; '
      'it is taken as it is',
    )
  return Dose(values, axes, notes)


def _heights(
  dataset: Any,
  where: pathlib.Path,
  shape: tuple[int, ...],
  plane: pixel_positions.Plane,
) -> np.ndarray:
  """z in mm of the frames, as stored.

  Args:
    dataset: of the dose.
    where: names the file in errors.
    shape: frames, rows, columns.
    plane: the first.

  Raises:
    CohortError: for faulty positions.
  """
  if shape[0] < 2:
    raise errors.CohortError(
      f'{where} has one plane only: the other planes of the dose are not here'
    )
  offsets = files.numbers(dataset, 'GridFrameOffsetVector', where, shape[0])
  steps = np.diff(offsets)
  if min(shape) < 2 or not ((steps > 0).all() or (steps < 0).all()):
    raise errors.CohortError(
      f'{where}: a dose needs two planes at least, in ascending or descending '
      'order in GridFrameOffsetVector'
    )
  if offsets[0] == 0:
    # Relative, along the normal of the planes (PS3.3 C.8.8.3.2).
    return plane.height_mm + plane.normal * offsets
  if abs(offsets[0] - plane.height_mm) < _EXACT:
    return offsets
  raise errors.CohortError(
    f'{where}: GridFrameOffsetVector begins with {offsets[0]:g}, neither 0 '
    f'nor the z of ImagePositionPatient, {plane.height_mm:g}'
  )
