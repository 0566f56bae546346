"""The volume that a stack of planar contours encloses.

Contours do not define the shape between slices and beyond the outermost ones:
`ENDS` lists the options; `shape` implements the first.
"""

from collections.abc import Sequence

import numpy as np

from dvhflax import errors
from dvhflax.io.contours import filling, planes, shape
from dvhflax.io.resample import Occupancy

# `rounded`: outlines change smoothly from slice to slice, and a structure goes
# on as they tell, to where it closes, or half a slice if it is blunt.
# `half_slice`: every contour stands for the slab half-way to its neighbours,
# the outermost ones for half a slice beyond. `outermost`: the same slabs, cut
# off at the outermost contours.
ENDS = ('rounded', 'half_slice', 'outermost')
# In-plane pixels along the longest side of a structure: the most, and as many
# as are enough, unless they could be larger.
PIXELS = 128
ENOUGH_PIXELS = 64
PIXEL_MM = 0.5
LEAST_PIXEL_MM = 0.25
# Structures whose pixels are larger, in slice distances, are stacked as slabs.
_COARSEST = 0.75
# Contours farther apart than this are separate parts of a structure.
MOST_GAP_MM = 20.0
# Larger than any patient; bounds the memory that a faulty file can ask for.
MOST_EXTENT_MM = 2500.0
# Of a point from the origin; farther than any scanner is large.
FARTHEST_MM = 1e4
LEAST_SPACING_MM = 0.1


def occupancy(
  contours: Sequence[np.ndarray],
  spacing_mm: float | None = None,
  ends: str = 'rounded',
) -> tuple[Occupancy, list[str]]:
  """The volume that contours enclose.

  Args:
    contours: `[N, 3]` points in mm, LPS, each contour closed and axial.
    spacing_mm: slice distance, used if the contours are too few or unevenly
      spaced to give it.
    ends: one of `ENDS`.

  Returns:
    The structure on its own fine grid, and notes on what was left out,
    filled in or guessed.

  Raises:
    CohortError: no usable contour, one that is not axial, or one slice only
      and no spacing.
  """
  contours, notes = _usable(contours)
  heights = np.array([contour[:, 2].mean() for contour in contours])
  own_mm = regular_spacing(heights)
  if own_mm and spacing_mm and abs(own_mm / spacing_mm - 1) > 0.1:
    notes.append(
      f'its contours are {own_mm:.1f} mm apart, slices {spacing_mm:.1f} mm: '
      'the contour distance is used'
    )
  spacing_mm = own_mm or spacing_mm or slice_spacing(heights)
  if spacing_mm is None:
    raise errors.CohortError(
      'has contours in one slice only, and its thickness is unknown: add the '
      "patient's CT"
    )
  spacing_mm = max(spacing_mm, LEAST_SPACING_MM)
  places, slices = _slices(heights, 0.1 * spacing_mm)
  points = np.concatenate(contours)
  extent = max(np.ptp(points, axis=0).max(), spacing_mm)
  enough = np.clip(extent / ENOUGH_PIXELS, LEAST_PIXEL_MM, PIXEL_MM)
  pixel = float(max(extent / PIXELS, enough))
  first = points.min(0)[:2] - pixel
  count = np.ceil(np.ptp(points, axis=0)[:2] / pixel).astype(int) + 2
  covers, remarks = filling.covers(
    [(c[:, :2] - first) / pixel for c in contours],
    slices,
    (len(places), int(count[0]), int(count[1])),
    pixel,
  )
  if covers.max() < planes.LEAST_SHARE:
    raise errors.CohortError('has no contour that encloses an area')
  joined, gaps = _joined(places, spacing_mm)
  if ends == 'rounded' and pixel <= _COARSEST * spacing_mm:
    filled, lower, upper = shape.layers(
      places, covers, joined, spacing_mm, pixel
    )
  else:
    lower, upper = _slabs(places, joined, spacing_mm)
    if ends == 'outermost' and len(places) > 1:
      lower[0], upper[-1] = places[0], places[-1]
    parts = np.ceil((upper - lower) / pixel - 1e-6).astype(int)
    filled = np.repeat(covers, parts, 0)
    lower, upper = _split(lower, upper, parts)
  x, y = (first[i] + pixel * np.arange(count[i] + 1) for i in range(2))
  return (
    Occupancy(
      filled.transpose(1, 2, 0),
      (x[:-1], y[:-1], lower),
      (x[1:], y[1:], upper),
    ),
    notes + remarks + gaps,
  )


def slice_spacing(heights: np.ndarray) -> float | None:
  """Median distance in mm of neighbouring slices; None for a single slice.

  Args:
    heights: `[N]` z of any number of contours, in any order.
  """
  steps = _steps(heights)
  return float(np.median(steps)) if len(steps) else None


def regular_spacing(heights: np.ndarray) -> float | None:
  """Distance in mm of slices that are evenly spaced, apart from gaps.

  Heights may be rounded, so contours of one slice may differ in z.

  Args:
    heights: `[N]` z of a structure's contours, in any order.

  Returns:
    None for fewer than three slices, and for uneven ones.
  """
  steps = _steps(heights)
  if len(steps) < 2:
    return None
  usual = steps[steps < 1.75 * np.median(steps)]
  # Heights may be whole numbers.
  uneven = usual.std() > max(0.1 * usual.mean(), 0.5)
  if uneven or len(usual) < 0.6 * len(steps):
    return None
  return float(usual.mean())


def _steps(heights: np.ndarray) -> np.ndarray:
  """Distances of neighbouring slices in mm."""
  steps = np.diff(np.unique(heights))
  return steps[steps > LEAST_SPACING_MM]


def _usable(
  contours: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], list[str]]:
  """Contours that enclose an area, once each."""
  kept: dict[bytes, np.ndarray] = {}
  degenerate = duplicates = repeated = 0
  for points in contours:
    if not np.isfinite(points).all():
      raise errors.CohortError(
        'has a contour point that is not finite: export the structure again'
      )
    if np.abs(points).max(initial=0) > FARTHEST_MM:
      raise errors.CohortError(
        f'has a contour point more than {FARTHEST_MM:.0f} mm from the origin: '
        'export the structure again'
      )
    contour = _once(points)
    repeated += len(contour) < len(points)
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
    duplicates += key in kept
    kept.setdefault(key, contour)
  if not kept:
    raise errors.CohortError('has no contour that encloses an area')
  usable = list(kept.values())
  if np.ptp(np.concatenate(usable), axis=0).max() > MOST_EXTENT_MM:
    raise errors.CohortError(
      f'extends over more than {MOST_EXTENT_MM:.0f} mm: check its contours'
    )
  notes = []
  if degenerate:
    notes.append(f'{degenerate} contours that enclose no area left out')
  if duplicates:
    notes.append(f'{duplicates} repeated contours left out')
  if repeated:
    notes.append(f'{repeated} contours traced several times taken once')
  return usable, notes


def _once(contour: np.ndarray) -> np.ndarray:
  """A contour that is traced several times over, taken once.

  By the even-odd rule, twice round encloses nothing.
  """
  for turn in np.flatnonzero((contour[1:] == contour[:1]).all(1)) + 1:
    if len(contour) % turn == 0 and ((contour[turn:] == contour[:-turn]).all()):
      return contour[:turn]
  return contour


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


def _joined(
  places: np.ndarray, spacing_mm: float
) -> tuple[np.ndarray, list[str]]:
  """`[K - 1]` bool, whether a structure goes on between two slices.

  A single slice without contours has been forgotten. More of them were left
  empty on purpose, unless the structure is drawn on a slice here and there.
  """
  gaps = np.diff(places)
  joined = gaps < 1.5 * spacing_mm
  missing = np.where(joined, 0, np.rint(gaps / spacing_mm).astype(int) - 1)
  lone = ~np.append(False, joined) & ~np.append(joined, False)
  sparse = 2 * np.count_nonzero(lone) > len(places)
  filled = ~joined & (gaps <= MOST_GAP_MM) & ((missing <= 1) | sparse)
  notes = []
  if filled.any():
    notes.append(f'{missing[filled].sum()} missing slices interpolated')
  empty = [
    f'{places[i]:.1f} and {places[i + 1]:.1f}'
    for i in np.flatnonzero(~joined & ~filled)
  ]
  if empty:
    more = f' and in {len(empty) - 3} more places' if len(empty) > 3 else ''
    notes.append(
      f'no contours between z={", ".join(empty[:3])} mm{more}: separate parts'
    )
  return joined | filled, notes


def _slabs(
  places: np.ndarray, joined: np.ndarray, spacing_mm: float
) -> tuple[np.ndarray, np.ndarray]:
  """Bounds of the slab that each slice stands for."""
  half = np.full(len(places) + 1, spacing_mm / 2)
  half[1:-1] = np.where(joined, np.diff(places), spacing_mm) / 2
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
