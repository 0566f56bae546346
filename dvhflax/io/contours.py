"""Stacks of planar contours to the volume that they enclose.

A slice's contours are filled by the even-odd rule, whatever their order and
direction: inner contours are holes, keyholes and self-crossing contours come
out right, and parts of one slice may be any number. A contour stands for the
slab up to half-way to its neighbours, the outermost ones for half a slice
beyond their plane. Slices that are missing in between are interpolated by
shape: signed distances to the outlines on either side, linearly between them
(Raya and Udupa 1990, IEEE Trans Med Imaging 9:32).
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from dvhflax import errors
from dvhflax.io.resample import Occupancy

# In-plane pixels along the longest side of a structure, and their least size.
PIXELS = 128
LEAST_PIXEL_MM = 0.5
# Lines a pixel that contours are crossed with: exact along x, midpoint along y.
LINES = 8
# Contours farther apart than this are separate parts of a structure.
MOST_GAP_MM = 20.0
# What no patient exceeds; bounds the memory that a faulty file can ask for.
MOST_EXTENT_MM = 2500.0
MOST_CROSSINGS = 10_000_000
LEAST_SPACING_MM = 0.1


def occupancy(
  contours: Sequence[np.ndarray], spacing_mm: float | None = None
) -> tuple[Occupancy, list[str]]:
  """The volume that contours enclose.

  Args:
    contours: `[N, 3]` points in mm, LPS, each contour closed and axial.
    spacing_mm: distance of the image's slices; by default that of most of the
      contours.

  Returns:
    The structure on a fine grid of its own, and what had to be left out or
    filled in, a line each.

  Raises:
    CohortError: no usable contour, one that is not axial, or one slice only
      and no spacing.
  """
  contours, notes = _usable(contours)
  heights = np.array([contour[0, 2] for contour in contours])
  spacing_mm = spacing_mm or slice_spacing(heights)
  if spacing_mm is None:
    raise errors.CohortError(
      'has contours in one slice only, and no CT tells how thick it is: add '
      "the patient's CT"
    )
  spacing_mm = max(spacing_mm, LEAST_SPACING_MM)
  places, slices = _slices(heights, 0.1 * spacing_mm)
  points = np.concatenate(contours)
  extent = max(np.ptp(points, axis=0).max(), spacing_mm)
  pixel = max(extent / PIXELS, LEAST_PIXEL_MM)
  first = points.min(0)[:2] - pixel
  count = np.ceil(np.ptp(points, axis=0)[:2] / pixel).astype(int) + 2
  covers = _covers(
    [(c[:, :2] - first) / pixel for c in contours],
    slices,
    (len(places), int(count[0]), int(count[1])),
  )
  places, covers, filled = _filled_in(places, covers, spacing_mm)
  lower, upper = _slabs(places, spacing_mm)
  parts = np.ceil((upper - lower) / pixel - 1e-6).astype(int)
  edges = [first[i] + pixel * np.arange(count[i] + 1) for i in range(2)]
  lower, upper = _split(lower, upper, parts)
  return (
    Occupancy(
      np.repeat(covers, parts, 0).transpose(1, 2, 0),
      (edges[0][:-1], edges[1][:-1], lower),
      (edges[0][1:], edges[1][1:], upper),
    ),
    notes + filled,
  )


def slice_spacing(heights: np.ndarray) -> float | None:
  """Usual distance in mm of neighbouring slices; None for a single slice.

  Args:
    heights: `[N]` z of any number of contours, in any order.
  """
  steps = np.diff(np.unique(heights))
  steps = steps[steps > LEAST_SPACING_MM]
  return float(np.median(steps)) if len(steps) else None


def _usable(
  contours: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], list[str]]:
  """Contours that enclose an area, once each."""
  kept: dict[bytes, np.ndarray] = {}
  degenerate = duplicates = 0
  for contour in contours:
    if not np.isfinite(contour).all():
      raise errors.CohortError('has a contour point that is no number')
    if np.ptp(contour[:, 2]) > LEAST_SPACING_MM:
      raise errors.CohortError(
        'has a contour that is not axial: its points differ by '
        f'{np.ptp(contour[:, 2]):.1f} mm in z; contour on axial slices'
      )
    if not _encloses(contour):
      degenerate += 1
      continue
    rounded = np.round(contour, 2) + 0.0
    key = rounded[np.lexsort(rounded.T)].tobytes()
    # By the even-odd rule a repeated contour would empty itself.
    duplicates += key in kept
    kept.setdefault(key, contour)
  if not kept:
    raise errors.CohortError('has no contour that encloses an area')
  usable = list(kept.values())
  if np.ptp(np.concatenate(usable), axis=0).max() > MOST_EXTENT_MM:
    raise errors.CohortError(
      f'extends over more than {MOST_EXTENT_MM:.0f} mm: its contours are wrong'
    )
  notes = []
  if degenerate:
    notes.append(f'{degenerate} contours that enclose no area left out')
  if duplicates:
    notes.append(f'{duplicates} repeated contours left out')
  return usable, notes


def _encloses(contour: np.ndarray) -> bool:
  """Whether the points do not lie on one line."""
  if len(contour) < 3:
    return False
  x, y = (contour[:, :2] - contour[:, :2].mean(0)).T
  # The smaller principal variance, in mm^2.
  variance = np.linalg.eigvalsh(np.cov(x, y))[0]
  return bool(variance > 1e-6)


def _slices(
  heights: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
  """`[K]` ascending slice positions, and `[N]` the slice of each contour."""
  order = np.argsort(heights, kind='stable')
  ascending = heights[order]
  number = np.concatenate([[0], np.cumsum(np.diff(ascending) > tolerance)])
  slices = np.empty(len(heights), int)
  slices[order] = number
  counts = np.bincount(slices)
  return np.bincount(slices, heights) / counts, slices


def _covers(
  contours: Sequence[np.ndarray],
  slices: np.ndarray,
  shape: tuple[int, int, int],
) -> np.ndarray:
  """Fills the contours of all slices at once, by the even-odd rule.

  Every pixel row is crossed by `LINES` lines. Along a line, the inside lies
  between the first and the second crossing, the third and the fourth, ...;
  each of these spans counts exactly, to fractions of a pixel.

  Args:
    contours: `[N, 2]` points in pixels.
    slices: the slice of each contour.
    shape: slices, and pixels along x and y.

  Returns:
    `[K, X, Y]` float32, the share of each pixel that is inside.
  """
  k, nx, ny = shape
  start = np.concatenate(contours)
  end = np.concatenate([np.roll(c, -1, 0) for c in contours])
  in_slice = np.repeat(slices, [len(c) for c in contours])
  # In lines, which lie at whole numbers: line r crosses an edge that begins
  # at or before it and ends behind it, so corners count once.
  y0, y1 = start[:, 1] * LINES - 0.5, end[:, 1] * LINES - 0.5
  first = np.ceil(np.minimum(y0, y1)).astype(int)
  crossed = np.ceil(np.maximum(y0, y1)).astype(int) - first
  total = int(crossed.sum())
  if total > MOST_CROSSINGS:
    raise errors.CohortError('has contours that run to and fro without end')
  edge = np.repeat(np.arange(len(start)), crossed)
  before = np.cumsum(crossed) - crossed
  line = first[edge] + np.arange(total) - before[edge]
  part = (line - y0[edge]) / (y1 - y0)[edge]
  x = start[edge, 0] + part * (end - start)[edge, 0]
  row = in_slice[edge] * ny + line // LINES
  # Lines have an even number of crossings: in, out, in, out, ...
  order = np.lexsort((x, in_slice[edge] * (ny * LINES) + line))
  x, row = x[order], row[order]
  sign = 1 - 2 * (np.arange(total) % 2)
  column = x.astype(int)
  behind = x - column
  place = row * (nx + 1) + column
  length = k * ny * (nx + 1)
  steps = np.bincount(place, sign * (1 - behind), length)
  steps += np.bincount(place + 1, sign * behind, length)
  covers = steps.reshape(k, ny, nx + 1).cumsum(2)[..., :nx] / LINES
  return covers.transpose(0, 2, 1).clip(0, 1).astype(np.float32)


def _filled_in(
  places: np.ndarray, covers: np.ndarray, spacing_mm: float
) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Interpolates the slices that are missing between others."""
  gaps = np.diff(places)
  missing = np.rint(gaps / spacing_mm).astype(int) - 1
  missing[(gaps < 1.5 * spacing_mm) | (gaps > MOST_GAP_MM)] = 0
  new_places, new_covers = [places[:1]], [covers[:1]]
  for i, number in enumerate(missing):
    weights = np.arange(1, number + 1) / (number + 1)
    new_places.append(places[i] + weights * gaps[i])
    if number:
      one, other = _signed_distance(covers[i]), _signed_distance(covers[i + 1])
      distance = one + weights[:, None, None] * (other - one)
      new_covers.append((0.5 - distance).clip(0, 1).astype(np.float32))
    new_places.append(places[i + 1 : i + 2])
    new_covers.append(covers[i + 1 : i + 2])
  notes = []
  if missing.sum():
    notes.append(f'{missing.sum()} missing slices interpolated')
  parts = np.count_nonzero(gaps > max(MOST_GAP_MM, 1.5 * spacing_mm))
  if parts:
    notes.append(
      f'{parts} gaps of more than {MOST_GAP_MM:.0f} mm left: separate parts'
    )
  return np.concatenate(new_places), np.concatenate(new_covers), notes


def _signed_distance(cover: np.ndarray) -> np.ndarray:
  """Distance to the outline in pixels, negative inside."""
  inside = cover >= 0.5
  if not inside.any():
    return np.full(cover.shape, float(max(cover.shape)))
  outside_by = ndimage.distance_transform_edt(~inside) - 0.5
  inside_by = ndimage.distance_transform_edt(inside) - 0.5
  distance = np.where(inside, -inside_by, outside_by)
  # A pixel that the outline crosses tells where, to a fraction of itself.
  crossed = (cover > 0) & (cover < 1)
  return np.where(crossed, 0.5 - cover, distance)


def _slabs(
  places: np.ndarray, spacing_mm: float
) -> tuple[np.ndarray, np.ndarray]:
  """Bounds of the slab that each slice stands for."""
  half = np.full(len(places) + 1, spacing_mm / 2)
  gaps = np.diff(places)
  half[1:-1] = np.where(gaps < 1.5 * spacing_mm, gaps, spacing_mm) / 2
  return places - half[:-1], places + half[1:]


def _split(
  lower: np.ndarray, upper: np.ndarray, parts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Bounds of slabs cut into so many layers each."""
  slab = np.repeat(np.arange(len(parts)), parts)
  layer = np.arange(len(slab)) - (np.cumsum(parts) - parts)[slab]
  thickness = ((upper - lower) / parts)[slab]
  lower = lower[slab] + layer * thickness
  return lower, lower + thickness
