"""Reads the dose of an RTDOSE file."""

import pathlib
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.io import dicom_files as files
from dvhflax.io import dicom_planes as planes
from dvhflax.io.resample import MOST_GY, Axes, Dose
from dvhflax.io.undershoot import without_undershoot

# Tolerance of positions in mm.
_EXACT = 1e-3


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
  if float(stored.max()) * scaling > MOST_GY:
    raise errors.CohortError(
      f'{path}: the maximum dose is {float(stored.max()) * scaling:.4g} Gy: is '
      'DoseGridScaling that of cGy?'
    )
  values, axes = planes.turned(
    stored, _plane_axes(dataset, path, stored.shape), path
  )
  values = values.astype(np.float32)
  values *= np.float32(scaling)
  values, notes = without_undershoot(values, path)
  return Dose(values, axes, notes)


def _plane_axes(
  dataset: Any, where: pathlib.Path, shape: tuple[int, ...]
) -> Axes:
  """Positions in mm of columns (x), rows (y) and frames (z), as stored.

  Raises:
    CohortError: for planes that are not axial, and for faulty positions.
  """
  frames, rows, columns = shape
  x, y, height, normal = planes.in_plane(dataset, where, rows, columns)
  offsets = files.numbers(dataset, 'GridFrameOffsetVector', where, frames)
  steps = np.diff(offsets)
  if min(shape) < 2 or not ((steps > 0).all() or (steps < 0).all()):
    raise errors.CohortError(
      f'{where}: a dose needs two planes at least, in ascending or descending '
      'order in GridFrameOffsetVector'
    )
  if offsets[0] == 0:
    # Relative, along the normal of the planes (PS3.3 C.8.8.3.2).
    heights = height + normal * offsets
  elif abs(offsets[0] - height) < _EXACT:
    heights = offsets
  else:
    raise errors.CohortError(
      f'{where}: GridFrameOffsetVector begins with {offsets[0]:g}, neither 0 '
      f'nor the z of ImagePositionPatient, {height:g}'
    )
  return x, y, heights
