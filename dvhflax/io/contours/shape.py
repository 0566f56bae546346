"""The shape of a structure between its contours, and beyond the outermost.

In every slice the outline is the zero of a field g, see `planes`. For
a disc or a strip g is the squared distance from the middle minus the squared
half-width, which is quadratic along z for spheres and ellipsoids, cylinders
that stand, lie or slant, and cones: parabolas of g through neighbouring slices
give these back exactly. (Linear interpolation of distances, Raya and Udupa
1990, IEEE Trans Med Imaging 9:32, cuts rounded ends off.)

Where a part ends, the parabola goes on to where it closes. No slice beyond has
the part, so it closes before that one. If the parabola does not, the end is
blunt and lies anywhere between the two slices: half-way on average.
"""

import dataclasses
import functools
import itertools

import numpy as np

from dvhflax.io.contours.planes import Plane, Stack, greatest, plane_of

# Outlines that shift by less from slice to slice, in slice distances, are one
# slanted surface; or by less than makes g this many times r^2. Others are
# steps, half-way between the slices on average.
_STEEPEST = 1.5
_DEEPEST = 1.2
# They are looked for where the area half-way between two slices is less than
# this share of their mean.
_LEAST_KEPT = 0.9
# Half second derivative of g along z: 1 for a sphere, 4 for a lens half as
# thick as wide, -1 for a cone of 90 degrees. Beyond, it is noise.
_CURVATURES = (-1.0, 4.0)
# Of r^2 beyond the last slice, over the distance of slices.
_MOST_WIDENING = 0.5
# Where an apex is looked for, in slice distances.
_APEX = np.append(np.arange(1, 65) / 64, np.geomspace(1.02, 5, 40))


@dataclasses.dataclass(frozen=True)
class _Side:
  """A slice's shape on one side: at u mm, g + u slope + u (u + back) curvature.

  Attributes:
    plane: the slice.
    slope, back, curvature: `[X, Y]`.
    length: `[X, Y]` mm, how far the nearest part reaches on this side;
      infinite if it goes on in the next slice.
  """

  plane: Plane
  slope: np.ndarray
  back: np.ndarray
  curvature: np.ndarray
  length: np.ndarray

  def field(self, u: float) -> np.ndarray:
    return (
      self.plane.field + u * self.slope + u * (u + self.back) * self.curvature
    )

  def cover(self, u: float, thickness: float) -> np.ndarray:
    """`[X, Y]` the share of each pixel that is inside.

    Args:
      u: mm, of the middle of a layer.
      thickness: mm, of the layer, which an end may cut.
    """
    # The outline's share of a pixel is known better than by its distance.
    change = self.plane.cover_of(self.field(u)) - self.plane.edge
    cover = (self.plane.cover + change).clip(0, 1)
    if not self.farthest:
      return cover
    reached = (self.length - u) / thickness + 0.5
    return cover * reached.clip(0, 1)

  def without(self, pixels: np.ndarray) -> '_Side':
    """The same, with some pixels, `[X, Y]` bool, as they are in the slice."""
    return dataclasses.replace(
      self,
      slope=np.where(pixels, 0, self.slope),
      curvature=np.where(pixels, 0, self.curvature),
    )

  @functools.cached_property
  def farthest(self) -> float:
    """How far parts reach that have no next slice, mm; 0 if there is none."""
    ends = self.length[np.isfinite(self.length)]
    return float(ends.max(initial=0))

  def cap(self, u: float, thickness: float) -> np.ndarray:
    """The same as `cover`, only of parts that have no next slice."""
    return np.where(np.isfinite(self.length), self.cover(u, thickness), 0)


def layers(
  places: np.ndarray,
  covers: np.ndarray,
  joined: np.ndarray,
  spacing_mm: float,
  pixel_mm: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Layers thin enough to show the shape between slices, and beyond them.

  Args:
    places: `[K]` ascending z of the slices in mm.
    covers: `[K, X, Y]` the share of each pixel that is inside.
    joined: `[K - 1]` bool, whether a structure goes on between two slices.
    spacing_mm: usual distance of slices; the most that an end reaches.
    pixel_mm: size of a pixel, and most height of a layer.

  Returns:
    `[L, X, Y]` float32 of the layers, and `[L]` their lower and upper bounds.
  """
  stack = Stack(
    [plane_of(cover, pixel_mm) for cover in covers], places, joined, spacing_mm
  )
  sides = [
    [_side(stack, k, way) for way in (-1, 1)] for k in range(len(places))
  ]
  middles = (places[1:] + places[:-1]) / 2
  # Beyond half-way as well where the next slice is another part's.
  farthest = np.where(joined, np.inf, spacing_mm)
  lower = np.append(places[0] - spacing_mm, middles)
  lower = np.maximum(lower, places - np.append(spacing_mm, farthest))
  upper = np.append(middles, places[-1] + spacing_mm)
  upper = np.minimum(upper, places + np.append(farthest, spacing_mm))
  filled, bounds = [], []
  for k, place in enumerate(places):
    # The slice itself bounds layers, as its two sides differ.
    for low, high in ((lower[k], place), (place, upper[k])):
      count = max(1, int(np.ceil((high - low) / pixel_mm - 1e-6)))
      edges = np.linspace(low, high, count + 1)
      for one, next_one in itertools.pairwise(edges):
        layer = _layer(sides, places, k, one, next_one)
        if layer is not None and layer.any():
          filled.append(layer.astype(np.float32))
          bounds.append((one, next_one))
  lower, upper = np.array(bounds).T
  return np.stack(filled), lower, upper


def _side(stack: Stack, k: int, way: int) -> _Side | None:
  """Slice k upwards (1) or downwards (-1); None if nothing is in it."""
  plane = stack.planes[k]
  if plane is None:
    return None
  ahead, reach = stack.next(k, way)
  behind, back = stack.next(k, -way)
  g = plane.field
  nothing = np.zeros_like(g)
  to_ahead = nothing if ahead is None else (ahead.field - g) / reach
  to_behind = nothing if behind is None else (behind.field - g) / back
  on = plane.goes_on_in(ahead)[plane.nearest]
  came = plane.goes_on_in(behind)[plane.nearest]
  # Parabolas: through both neighbours, or through two on the one side.
  curvature = np.where(on & came, (to_ahead + to_behind) / (reach + back), 0)
  for here, there, toward, slope in (
    (on, came, way, to_ahead),
    (came, on, -way, to_behind),
  ):
    only = here & ~there
    if only.any():
      found = _one_sided(plane, stack, k, toward, slope)
      curvature = np.where(only, found, curvature)
  curvature = curvature.clip(*_CURVATURES)
  deepest = plane.depth
  for other in (ahead, behind):
    if other is not None:
      deepest = np.maximum(deepest, other.depth)
  curvature = curvature * _resolved(deepest, stack.spacing_mm)
  slope = to_ahead
  if not on.all():
    # A part that widens towards its end is not taken to widen on for ever.
    widens = nothing
    if behind is not None:
      widens = (plane.depth**2 - behind.depth**2) / back - back * curvature
      widens = widens - _MOST_WIDENING * plane.depth**2 / reach
    ending = np.where(came, np.maximum(widens, 0) - to_behind, 0)
    slope = np.where(on, to_ahead, ending)
  side = _Side(
    plane=plane,
    slope=slope,
    back=np.where(on, np.float32(-reach), np.float32(back)),
    curvature=curvature.astype(np.float32),
    length=np.full(g.shape, np.inf, np.float32),
  )
  if ahead is not None:
    # A part that begins in the next slice is that one's to continue.
    begins = ~ahead.goes_on_in(plane)
    if begins[1:].any():
      side = side.without(begins[ahead.labels] & (ahead.labels > 0) & on)
    half_way = plane.cover_of(side.field(reach / 2)).sum()
    if half_way < _LEAST_KEPT * (plane.cover.sum() + ahead.cover.sum()) / 2:
      side = side.without(_steps(plane, ahead, reach) & on)
  if on.all():
    return side
  length = np.where(on, np.inf, _lengths(plane, stack, k, way)[plane.nearest])
  return dataclasses.replace(side, length=length.astype(np.float32))


def _one_sided(
  plane: Plane, stack: Stack, k: int, way: int, slope: np.ndarray
) -> np.ndarray:
  """`[X, Y]` curvature at slice k, of the next two slices on one side.

  Args:
    plane: of slice k.
    stack, k, way: see `_side`.
    slope: `[X, Y]` of g from slice k to the next.
  """
  near, reach = stack.next(k, way)
  if near is None:
    return np.zeros_like(slope)
  rounded = _of_two(plane.depth**2, near.depth**2, reach)
  far, farther = stack.next(k + way, way)
  if far is None:
    return rounded
  found = ((far.field - near.field) / farther - slope) / (reach + farther)
  goes_on = near.goes_on_in(far)[near.nearest]
  return np.where(goes_on, found, rounded)


def _of_two(one: np.ndarray, other: np.ndarray, reach: float) -> np.ndarray:
  """Curvature of parts in two slices: a sphere's, if it fits between the next.

  Args:
    one, other: r^2 in the slices.
    reach: mm between them.
  """
  # At 1 a sphere through both closes where the next slice has nothing more.
  bulk = (2 * np.maximum(one, other) - np.minimum(one, other)) / (2 * reach**2)
  return ((1.5 - bulk) / 0.4).clip(0, 1)


def _resolved(depth: np.ndarray, spacing_mm: float) -> np.ndarray:
  """How far slices are close enough to tell how a part is rounded, 0 to 1."""
  return (2 * depth / spacing_mm - 1).clip(0, 1)


def _steps(plane: Plane, ahead: Plane, reach: float) -> np.ndarray:
  """`[X, Y]` bool, where a slice has what the next lacks, or the reverse, too
  far from its outline for a slanted surface."""
  found = np.zeros(plane.labels.shape, bool)
  for one, other in ((plane, ahead), (ahead, plane)):
    only_here = (one.labels > 0) & (other.labels == 0)
    far = (other.distance > _STEEPEST * reach) & (
      other.field > _DEEPEST * one.depth**2
    )
    found |= only_here & far
  return found


def _lengths(plane: Plane, stack: Stack, k: int, way: int) -> np.ndarray:
  """`[parts + 1]` mm, how far the parts of slice k reach if they end there.

  By the squares of their depths, which, unlike the field at a place, do not
  change where a part goes on aslant.
  """
  behind, back = stack.next(k, -way)
  beyond, farther = stack.next(k - way, -way) if behind else (None, back)
  _, reach = stack.next(k, way)
  u = _APEX * reach
  here = plane.depths[:, None] ** 2
  slope = np.zeros_like(here)
  if behind is None:
    squares = np.broadcast_to(here, (len(here), len(u)))
  else:
    one = behind.deepest_at(plane)[:, None] ** 2
    bend = -_of_two(here, one, back)
    if beyond is not None:
      two = beyond.deepest_at(behind)[behind.labels]
      two = greatest(two, plane)[:, None] ** 2
      found = ((here - one) / back - (one - two) / farther) / (back + farther)
      bend = np.where(two > 0, found, bend)
    bend = bend.clip(-_CURVATURES[1], -_CURVATURES[0])
    deepest = np.sqrt(np.maximum(here, one))
    bend = bend * _resolved(deepest, stack.spacing_mm)
    slope = (here - one) / back + back * bend
    slope = np.minimum(slope, _MOST_WIDENING * here / reach)
    squares = here + u * slope + u**2 * bend
    squares = np.where(one > 0, squares, here)
    slope = np.where(one > 0, slope, 0)
  closed = squares <= 0
  apex = np.where(closed.any(1), _APEX[closed.argmax(1)], np.inf)
  # Blunt ends have the volume that makes their slice's a slab, as the sum of
  # areas is right on average over where slices happen to lie.
  within = _APEX <= 1
  here = np.maximum(here, 1e-6)
  volume = (squares[:, within].clip(0) / here).cumsum(1) / within.sum()
  slab = 0.5 + slope[:, 0] * reach / (8 * here[:, 0])
  closing = ((1.2 - apex) / 0.15).clip(0, 1)
  wanted = slab + np.maximum(volume[:, -1] - slab, 0) * closing
  reached = (volume < wanted[:, None] - 1e-6).sum(1)
  blunt = _APEX[reached.clip(0, within.sum() - 1)]
  return np.where(apex <= 1, apex, blunt) * reach


def _layer(
  sides: list[list[_Side | None]],
  places: np.ndarray,
  k: int,
  low: float,
  high: float,
) -> np.ndarray | None:
  """`[X, Y]` between two heights nearest to slice k; None if nothing is."""
  at, thickness = (low + high) / 2, high - low
  way = int(at > places[k])
  own = sides[k][way]
  layer = None if own is None else own.cover(abs(at - places[k]), thickness)
  # A part of the next slice that ends may reach beyond half-way.
  other = k + (1 if way else -1)
  if 0 <= other < len(places):
    facing = sides[other][1 - way]
    u = abs(at - places[other])
    if facing is not None and u - thickness / 2 < facing.farthest:
      cap = facing.cap(u, thickness)
      layer = cap if layer is None else np.maximum(layer, cap)
  return layer
