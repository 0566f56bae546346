"""Reads the CT of a DICOM series, a file a slice."""

from collections.abc import Sequence
import pathlib

import numpy as np

from dvhflax import errors
from dvhflax.io import dicom_files as files
from dvhflax.io import dicom_planes as planes
from dvhflax.io.contours import MOST_GAP_MM
from dvhflax.io.resample import AIR_HU, Scan, clip_hu

# 512 x 512 x 512 of two bytes.
MOST_VOXELS = 2**27
# Of the same position, in mm.
_SAME_MM = 0.01


def read_scan(paths: Sequence[pathlib.Path]) -> tuple[Scan, list[str]]:
  """Reads a CT.

  Args:
    paths: its slices, in any order.

  Returns:
    The CT, and what had to be filled in, a line each: where slices are
    missing, CT numbers are linear between those that are there.

  Raises:
    CohortError: for slices that are faulty, do not fit together, or leave a
      gap of more than 20 mm; for values that are not in HU.
  """
  first_path, *others = paths
  if not others:
    raise errors.CohortError(f'{first_path} is the only slice of its series')
  first, (x, y, height) = _read_slice(first_path)
  rows, columns = first.shape
  if len(paths) * rows * columns > MOST_VOXELS:
    raise errors.CohortError(
      f'{first_path}: {len(paths)} slices of {rows} x {columns} are too many '
      'voxels'
    )
  values = np.empty((len(paths), rows, columns), np.int16)
  values[0] = first
  heights = np.empty(len(paths))
  heights[0] = height
  for i, path in enumerate(others, 1):
    one, (its_x, its_y, heights[i]) = _read_slice(path)
    if one.shape != first.shape or not all(
      np.abs(its[[0, -1]] - axis[[0, -1]]).max() < _SAME_MM
      for its, axis in ((its_x, x), (its_y, y))
    ):
      raise errors.CohortError(
        f'{path} and {first_path} are of one series, but their pixels do not '
        'lie above each other'
      )
    values[i] = one
  order = np.argsort(heights)
  heights = heights[order]
  steps = np.diff(heights)
  usual = float(np.median(steps))
  if steps.min() < max(_SAME_MM, usual / 10):
    raise errors.CohortError(
      f'{first_path}: two slices of its series lie at '
      f'z={heights[steps.argmin()]:.2f} mm; are there two series in one?'
    )
  if steps.max() > max(MOST_GAP_MM, 1.5 * usual):
    raise errors.CohortError(
      f'{first_path}: slices of its series are missing, from '
      f'z={heights[steps.argmax()]:.1f} mm over {steps.max():.1f} mm'
    )
  missing = int((np.rint(steps[steps > 1.5 * usual] / usual) - 1).sum())
  notes = [f'{missing} missing CT slices interpolated'] if missing else []
  if (order != np.arange(len(paths))).any():
    values = values[order]
  turned, axes = planes.turned(values, (x, y, heights), first_path)
  return Scan(turned, axes), notes


def _read_slice(
  path: pathlib.Path,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, float]]:
  """`[rows, columns]` int16 HU, and x of columns, y of rows, z in mm."""
  dataset = files.read(path)
  kind = files.text(dataset, 'RescaleType', path)
  if kind not in ('', 'HU'):
    raise errors.CohortError(f'{path}: RescaleType is {kind!r}, wanted HU')
  slope = files.numbers(dataset, 'RescaleSlope', path, 1)[0]
  intercept = files.numbers(dataset, 'RescaleIntercept', path, 1)[0]
  if slope <= 0:
    raise errors.CohortError(f'{path}: RescaleSlope={slope} must be > 0')
  stored = files.pixels(dataset, path, single='CT slice')[0]
  rows, columns = stored.shape
  if min(rows, columns) < 2:
    raise errors.CohortError(f'{path}: {rows} x {columns} are no CT slice')
  x, y, z, _ = planes.in_plane(dataset, path, rows, columns)
  hu = clip_hu(stored * np.float32(slope) + np.float32(intercept))
  padding = files.value(dataset, 'PixelPaddingValue', path)
  if isinstance(padding, int):
    hu[stored == padding] = AIR_HU
  return hu, (x, y, z)
