"""Slices of a structure as fields whose zero is the outline.

The field is g = d (d + 2 r): d the signed distance to the outline in mm,
negative inside, r the largest depth of the part of the structure.
"""

import dataclasses
import functools

import numpy as np
from scipy import ndimage

# Of a pixel: less is rounding.
LEAST_SHARE = 1e-3


@dataclasses.dataclass(frozen=True)
class Plane:
  """A slice.

  Attributes:
    cover: `[X, Y]` the share of each pixel that is inside.
    distance: `[X, Y]` d in mm.
    labels: `[X, Y]` number of the part that a pixel belongs to, 0 outside.
    nearest: `[X, Y]` number of the nearest part.
    depths: `[parts + 1]` r in mm, that of part 0 unused.
    pixel_mm: size of a pixel.
  """

  cover: np.ndarray
  distance: np.ndarray
  labels: np.ndarray
  nearest: np.ndarray
  depths: np.ndarray
  pixel_mm: float

  @functools.cached_property
  def depth(self) -> np.ndarray:
    """`[X, Y]` r of the nearest part, mm."""
    return self.depths[self.nearest]

  @functools.cached_property
  def field(self) -> np.ndarray:
    """`[X, Y]` g in mm^2."""
    return self.distance * (self.distance + 2 * self.depth)

  @functools.cached_property
  def steepness(self) -> np.ndarray:
    """`[X, Y]` what the field grows by over a pixel, in the plane."""
    steepness = 2 * (self.distance + self.depth) * np.float32(self.pixel_mm)
    return np.maximum(steepness, np.float32(1e-3))

  def cover_of(self, field: np.ndarray) -> np.ndarray:
    """`[X, Y]` the share of each pixel in which another field is negative.

    From here it may have grown or shrunk, which changes its steepness little.
    """
    return (np.float32(0.5) - field / self.steepness).clip(0, 1)

  @functools.cached_property
  def edge(self) -> np.ndarray:
    """`[X, Y]` what `cover_of` makes of the field, to compare with."""
    return self.cover_of(self.field)

  def deepest_at(self, other: 'Plane') -> np.ndarray:
    """`[parts + 1]` the largest depth here above or below parts of another."""
    return greatest(np.where(self.labels > 0, self.depth, 0), other)

  def goes_on_in(self, other: 'Plane | None') -> np.ndarray:
    """`[parts + 1]` bool, which parts lie above or below one of another."""
    found = np.zeros(len(self.depths), bool)
    if other is not None:
      found[self.labels[other.labels > 0]] = True
    found[0] = False
    return found


@dataclasses.dataclass(frozen=True)
class Stack:
  """Slices: their planes, `[K]` z in mm, `[K - 1]` which go on in the next, and
  their usual distance."""

  planes: list[Plane | None]
  places: np.ndarray
  joined: np.ndarray
  spacing_mm: float

  def next(self, k: int, way: int) -> tuple[Plane | None, float]:
    """The slice above (1) or below (-1), None if there is none, and how far it
    is, or would be."""
    other = k + way
    if not 0 <= other < len(self.planes) or not self.joined[min(k, other)]:
      return None, self.spacing_mm
    return self.planes[other], abs(float(self.places[other] - self.places[k]))


def plane_of(cover: np.ndarray, pixel_mm: float) -> Plane | None:
  """A slice; None if nothing is inside."""
  touched, full = cover >= LEAST_SHARE, cover > 1 - LEAST_SHARE
  if not touched.any():
    return None
  labels, count = ndimage.label(touched)
  offset, normal = _outline(cover)
  inside = cover >= 0.5
  nearest = _nearest(touched)
  # The outline may be nearer in a pixel whose centre is farther.
  some = np.where(full, _nearest(~full), nearest)
  others = np.where(
    full, _nearest(~inside), _nearest(inside | (cover == cover.max()))
  )
  away = np.minimum(
    _length_to(some, offset, normal), _length_to(others, offset, normal)
  )
  distance = np.select([full, ~touched], [-away, away], offset)
  distance = (distance * pixel_mm).astype(np.float32)
  depths = ndimage.maximum(-distance, labels, np.arange(1, count + 1))
  return Plane(
    cover=cover,
    distance=distance,
    labels=labels,
    nearest=labels[tuple(nearest)],
    depths=np.append(0, np.maximum(depths, 0)).astype(np.float32),
    pixel_mm=pixel_mm,
  )


def greatest(values: np.ndarray, plane: Plane) -> np.ndarray:
  """`[parts + 1]` the greatest of `[X, Y]` values in each part of a slice."""
  index = np.arange(1, len(plane.depths))
  return np.append(0, ndimage.maximum(values, plane.labels, index))


def _outline(cover: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """How far the outline is from the centres of the pixels that it crosses.

  For a straight line that leaves a pixel's share on one side (Gustavson and
  Strand 2011, Pattern Recognit Lett 32:252).

  Returns:
    `[X, Y]` signed distance in pixels, negative inside, and `[2, X, Y]` the
    direction outwards.
  """
  normal = -np.array(np.gradient(cover))
  normal /= np.maximum(np.hypot(*normal), 1e-6)
  one, other = np.abs(normal)
  small, large = np.minimum(one, other), np.maximum(one, other)
  # By symmetry, of the lesser share.
  lesser = np.minimum(cover, 1 - cover)
  corner = (small + large) / 2 - np.sqrt(2 * small * large * lesser)
  edge = np.where(2 * lesser * large < small, corner, (0.5 - lesser) * large)
  return np.where(cover < 0.5, edge, -edge), normal


def _nearest(pixels: np.ndarray) -> np.ndarray:
  """`[2, X, Y]` indices of the nearest of some pixels, `[X, Y]` bool."""
  return ndimage.distance_transform_edt(
    ~pixels, return_distances=False, return_indices=True
  )


def _length_to(
  pixels: np.ndarray, offset: np.ndarray, normal: np.ndarray
) -> np.ndarray:
  """`[X, Y]` distance to the outline in a pixel that is given for each.

  Args:
    pixels: `[2, X, Y]` indices.
    offset, normal: see `_outline`.
  """
  rows, columns = pixels
  off = offset[rows, columns]
  down, right = np.ogrid[: offset.shape[0], : offset.shape[1]]
  return np.hypot(
    rows - off * normal[0][rows, columns] - down,
    columns - off * normal[1][rows, columns] - right,
  )
