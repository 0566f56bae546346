"""The areas that the contours of a slice enclose together.

A single contour is filled by the even-odd rule, so the hole of a keyhole
contour, whose channel is traced twice, stays empty. Planning systems write the
same type, CLOSED_PLANAR, for all contours of a slice, so position decides: one
wholly within another is a hole (and one within that an island); contours that
overlap are united.
"""

from collections.abc import Sequence

import numpy as np

from dvhflax import errors

# Scan lines per pixel: exact along x, midpoint rule along y.
LINES = 8
MOST_CROSSINGS = 10_000_000
# Of the smaller contour's area: what rounding may put outside of the larger, or
# make two neighbours share.
_ROUNDING = 0.01
# No wall is this thin; such a pair is one contour, drawn twice.
LEAST_WALL_MM = 0.5
# Contours, and pairs of them, examined per slice.
_MOST_CONTOURS = 400
_MOST_PAIRS = 5_000


def covers(
  contours: Sequence[np.ndarray],
  slices: np.ndarray,
  shape: tuple[int, int, int],
  pixel_mm: float,
) -> tuple[np.ndarray, list[str]]:
  """Fills the contours of all slices.

  Args:
    contours: `[N, 2]` points in pixels.
    slices: the slice of each contour.
    shape: slices, and pixels along x and y.
    pixel_mm: size of a pixel.

  Returns:
    `[K, X, Y]` float32, the share of each pixel that is inside; and notes on
    how overlapping contours were interpreted.

  Raises:
    CohortError: for contours with more than `MOST_CROSSINGS` crossings.
  """
  filled = _even_odd(contours, slices, shape)
  holes = united = repeated = many = 0
  boxes = np.array([[c.min(0), c.max(0)] for c in contours])
  for k in np.flatnonzero(np.bincount(slices) > 1):
    here = np.flatnonzero(slices == k)
    pairs = _overlapping(boxes[here])
    if not len(pairs):
      continue
    # Only those that may touch another; the rest is filled as it is.
    used = np.unique(pairs)
    if len(pairs) > _MOST_PAIRS or len(used) > _MOST_CONTOURS:
      many += 1
      continue
    some = [contours[i] for i in here[used]]
    each = _even_odd(some, np.arange(len(some)), (len(some), *shape[1:]))
    within, crossing = _relations(each, np.searchsorted(used, pairs))
    twice = _drawn_twice(each, some, within, pixel_mm)
    holes += bool((within.any(1) & ~twice).any())
    repeated += int(twice.sum())
    united += crossing
    if crossing or twice.any():
      rest = [contours[i] for i in np.delete(here, used).tolist()]
      filled[k] = _painted(each[~twice], within[~twice][:, ~twice])
      if rest:
        zeros = np.zeros(len(rest), int)
        filled[k] += _even_odd(rest, zeros, (1, *shape[1:]))[0]
  notes = []
  if repeated:
    notes.append(f'{repeated} contours drawn twice left out')
  if united:
    notes.append(f'contours overlap in {united} slices: united')
  if holes:
    notes.append(f'contours lie within others in {holes} slices: holes')
  if many:
    notes.append(
      f'contours of {many} slices are too many to tell holes from overlaps: '
      'what an even number of them encloses is left out'
    )
  return filled.clip(0, 1), notes


def _overlapping(boxes: np.ndarray) -> np.ndarray:
  """`[P, 2]` pairs of `[N, 2, 2]` bounding boxes that overlap."""
  low, high = boxes[:, 0], boxes[:, 1]
  order = np.argsort(low[:, 0], kind='stable')
  pairs: list[np.ndarray] = []
  total = 0
  for place, i in enumerate(order[:-1]):
    later = order[place + 1 :]
    later = later[: np.searchsorted(low[later, 0], high[i, 0])]
    meets = (low[later, 1] < high[i, 1]) & (high[later, 1] > low[i, 1])
    found = later[meets]
    pairs.append(np.stack([np.full(len(found), i), found], 1))
    total += len(found)
    if total > _MOST_PAIRS:
      break
  return np.concatenate(pairs) if total else np.zeros((0, 2), int)


def _relations(each: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, bool]:
  """Which contours lie within or across each other.

  Args:
    each: `[N, X, Y]` what each encloses.
    pairs: `[P, 2]` of those that may overlap.

  Returns:
    `[N, N]` bool, whether one lies wholly within another; whether any two
    overlap without that.
  """
  areas = each.sum((1, 2))
  within = np.zeros((len(each),) * 2, bool)
  crossing = False
  for pair in pairs:
    small, large = pair[np.argsort(areas[pair], kind='stable')]
    window = _window(each[small])
    inner, outer = each[small][window], each[large][window]
    most = _ROUNDING * areas[small]
    if np.maximum(inner - outer, 0).sum() <= most:
      within[small, large] = True
    elif np.maximum(inner + outer - 1, 0).sum() > most:
      crossing = True
  return within, crossing


def _window(cover: np.ndarray) -> tuple[slice, slice]:
  """The part of a plane that is not empty."""
  rows, columns = (np.flatnonzero(cover.any(axis)) for axis in (1, 0))
  if not len(rows):
    return slice(0), slice(0)
  return (
    slice(rows[0], rows[-1] + 1),
    slice(columns[0], columns[-1] + 1),
  )


def _drawn_twice(
  each: np.ndarray,
  contours: Sequence[np.ndarray],
  within: np.ndarray,
  pixel_mm: float,
) -> np.ndarray:
  """`[N]` bool, contours that closely follow another and form no wall with it.

  Args:
    each, within: see `_relations`.
    contours: `[N, 2]` points in pixels.
    pixel_mm: size of a pixel.
  """
  areas = each.sum((1, 2))
  lengths = np.array(
    [np.linalg.norm(c - np.roll(c, 1, 0), axis=1).sum() for c in contours]
  )
  width = (areas - areas[:, None]) / lengths * pixel_mm
  return (within & (width < LEAST_WALL_MM)).any(1)


def _painted(each: np.ndarray, within: np.ndarray) -> np.ndarray:
  """`[X, Y]` the union of contours, without holes, with the islands in them.

  Args:
    each, within: see `_relations`.
  """
  depth = within.sum(1)
  result = np.zeros(each.shape[1:], np.float32)
  for i in np.argsort(-each.sum((1, 2)), kind='stable'):
    if depth[i] % 2:
      result = np.maximum(result - each[i], 0)
    else:
      # Where either outline cuts a pixel, as if they cut it independently.
      result = 1 - (1 - result) * (1 - each[i])
  return result


def _even_odd(
  contours: Sequence[np.ndarray],
  slices: np.ndarray,
  shape: tuple[int, int, int],
) -> np.ndarray:
  """Fills the contours of all slices at once, by the even-odd rule.

  Every pixel row is crossed by `LINES` lines. Along a line, the inside lies
  between the first and the second crossing, the third and the fourth, ...;
  each of these spans counts exactly, to fractions of a pixel.

  Args:
    contours, slices, shape: see `covers`.

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
    raise errors.CohortError(
      'has contours with too many crossings: export the structure again'
    )
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
  filled = steps.reshape(k, ny, nx + 1).cumsum(2)[..., :nx] / LINES
  return filled.transpose(0, 2, 1).clip(0, 1).astype(np.float32)
