"""Reads the CT of a DICOM series, a file a slice."""

from collections.abc import Sequence
import itertools
import math
import pathlib

import numpy as np

from dvhflax import errors
from dvhflax.io.contours.stack import MOST_GAP_MM
from dvhflax.io.dicom import files, pixel_positions
from dvhflax.io.resample import AIR_HU, Scan, clip_hu

# 512 x 512 x 512 of two bytes. Pixels of a larger CT are taken together.
MOST_VOXELS = 2**27
# Of the same position, in mm.
_SAME_MM = 0.01


def read_scan(paths: Sequence[pathlib.Path]) -> tuple[Scan, list[str]]:
  """Reads a CT, slice by slice.

  A CT of more than `MOST_VOXELS` is kept in larger pixels: the mean of 2 x 2,
  3 x 3, ... of each slice's.

  Args:
    paths: its slices, in any order.

  Returns:
    The CT, and what had to be left out or filled in, a line each: identical
    copies of slices are left out; where slices are missing, CT numbers are
    linear between those that are there.

  Raises:
    CohortError: for slices that are faulty, do not fit together, or leave a
      gap of more than 20 mm; for values that are not in HU.
  """
  first_path = paths[0]
  if len(paths) < 2:
    raise errors.CohortError(f'{first_path} is the only slice of its series')
  first, plane = _read_slice(first_path)
  factor = math.ceil(math.sqrt(len(paths) * first.size / MOST_VOXELS))
  if min(first.shape) < 2 * factor:
    raise errors.CohortError(
      f'{first_path}: {len(paths)} slices of {first.shape[0]} x '
      f'{first.shape[1]} are too many voxels'
    )
  rows, columns = (count // factor for count in first.shape)
  values = np.empty((len(paths), rows, columns), np.int16)
  values[0] = _block_mean(first, factor)
  heights = np.empty(len(paths))
  heights[0] = plane.height_mm
  for i, path in enumerate(paths[1:], 1):
    one, its = _read_slice(path)
    if not its.lies_above(plane, _SAME_MM):
      raise errors.CohortError(
        f'{path} and {first_path} are of one series, but their pixels do not '
        'lie above each other'
      )
    values[i] = _block_mean(one, factor)
    heights[i] = its.height_mm
  values, heights, notes = _in_order(values, heights, first_path)
  if factor > 1:
    notes.append(
      f'{first.shape[0]} x {first.shape[1]} CT pixels a slice taken together '
      f'by {factor} x {factor}'
    )
    plane = pixel_positions.coarser(plane, factor)
  upright, axes = pixel_positions.upright(values, plane, heights, first_path)
  return Scan(upright, axes), notes


def _in_order(
  values: np.ndarray, heights: np.ndarray, where: pathlib.Path
) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Slices from low to high, each once.

  Args:
    values: `[N, R, C]` HU, a slice each.
    heights: `[N]` z in mm.
    where: names the series in errors.

  Returns:
    Values, heights, and what was left out or is missing, a line each.

  Raises:
    CohortError: for slices at one place that differ, and for wide gaps.
  """
  order = np.argsort(heights, kind='stable')
  kept = [order[0]]
  for before, i in itertools.pairwise(order):
    # Of several copies each must be the same as the next.
    if heights[i] - heights[before] >= _SAME_MM or not np.array_equal(
      values[i], values[before]
    ):
      kept.append(i)
  copies = len(order) - len(kept)
  notes = [f'{copies} identical copies of CT slices left out'] if copies else []
  if len(kept) < 2:
    raise errors.CohortError(f'{where} is the only slice of its series')
  heights = heights[kept]
  steps = np.diff(heights)
  usual = float(np.median(steps))
  if steps.min() < max(_SAME_MM, usual / 10):
    raise errors.CohortError(
      f'{where}: two slices of its series lie at '
      f'z={heights[steps.argmin()]:.2f} mm and differ; are there two series in '
      'one? Keep one of them'
    )
  if steps.max() > max(MOST_GAP_MM, 1.5 * usual):
    raise errors.CohortError(
      f'{where}: slices of its series are missing, from '
      f'z={heights[steps.argmax()]:.1f} mm over {steps.max():.1f} mm'
    )
  missing = int((np.rint(steps[steps > 1.5 * usual] / usual) - 1).sum())
  if missing:
    notes.append(f'{missing} missing CT slices interpolated')
  if not np.array_equal(kept, np.arange(len(values))):
    values = values[kept]
  return values, heights, notes


def _block_mean(hu: np.ndarray, factor: int) -> np.ndarray:
  """Means of `factor` x `factor` pixels, what is left over cut off.

  Args:
    hu: `[R, C]` int16.
    factor: 1 or more.

  Returns:
    `[R // factor, C // factor]` int16.
  """
  if factor == 1:
    return hu
  rows, columns = (count // factor for count in hu.shape)
  blocks = hu[: rows * factor, : columns * factor].reshape(
    rows, factor, columns, factor
  )
  return np.rint(blocks.mean((1, 3), dtype=np.float32)).astype(np.int16)


def _read_slice(path: pathlib.Path) -> tuple[np.ndarray, pixel_positions.Plane]:
  """`[rows, columns]` int16 HU as stored, and where they lie."""
  dataset = files.read(path)
  kind = files.code(dataset, 'RescaleType', path)
  if kind not in ('', 'HU'):
    raise errors.CohortError(f'{path}: RescaleType is {kind!r}; expected HU')
  slope = files.numbers(dataset, 'RescaleSlope', path, 1)[0]
  intercept = files.numbers(dataset, 'RescaleIntercept', path, 1)[0]
  if slope <= 0:
    raise errors.CohortError(f'{path}: RescaleSlope={slope} must be > 0')
  stored = files.pixels(dataset, path, single='CT slice')[0]
  rows, columns = stored.shape
  if min(rows, columns) < 2:
    raise errors.CohortError(
      f'{path}: {rows} x {columns} pixels are too few for a CT slice'
    )
  hu = clip_hu(stored * np.float32(slope) + np.float32(intercept))
  padding = files.value(dataset, 'PixelPaddingValue', path)
  if isinstance(padding, int):
    hu[stored == padding] = AIR_HU
  return hu, pixel_positions.in_plane(dataset, path, rows, columns)
