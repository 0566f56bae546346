"""Shapes that simulated organs are made of, and how their sizes are drawn."""

from collections.abc import Callable
import dataclasses

import numpy as np

from dvhflax.grid import Grid
from dvhflax.sites.site import Shape

# On which volumes are measured while a size is searched.
_MEASURING = Grid((96, 96, 60), (3.0, 3.0, 3.2))


def _volume_cc(contains: Shape) -> float:
  inside = contains(*np.ix_(*_MEASURING.axes))
  return float(inside.sum() * _MEASURING.voxel_cc)


def truncated(
  rng: np.random.Generator, mean: float, std: float, low: float, high: float
) -> float:
  """A normal variate, drawn again until it lies within [low, high]."""
  while True:
    value = rng.normal(mean, std)
    if low <= value <= high:
      return value


def lognormal(
  rng: np.random.Generator,
  median: float,
  sigma: float,
  low: float,
  high: float,
) -> float:
  """A log-normal variate within [low, high]."""
  return np.exp(truncated(rng, np.log(median), sigma, *np.log((low, high))))


@dataclasses.dataclass(frozen=True)
class Ellipsoid:
  """An ellipsoid whose surface waves at low order.

  Attributes:
    centre: `[3]` mm.
    below, above: `[3]` half axes in mm to the negative and positive side.
    waves: `[5]` amplitudes of the five harmonics of order two.
  """

  centre: np.ndarray
  below: np.ndarray
  above: np.ndarray
  waves: np.ndarray

  def contains(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Which points lie inside; coordinates in mm broadcast."""
    scaled = []
    for axis, u in enumerate((x, y, z)):
      u = u - self.centre[axis]
      scaled.append(u / np.where(u < 0, self.below[axis], self.above[axis]))
    u, v, w = scaled
    squared = u**2 + v**2 + w**2
    wave = (
      self.waves[0] * u * v
      + self.waves[1] * v * w
      + self.waves[2] * u * w
      + self.waves[3] * (u**2 - v**2)
      + self.waves[4] * (2 * w**2 - u**2 - v**2)
    ) / np.maximum(squared, 1e-9)
    return squared < (1 + wave) ** 2

  def grown(
    self, below: float | np.ndarray, above: float | np.ndarray
  ) -> 'Ellipsoid':
    """With half axes larger by so many mm, one or one an axis."""
    return dataclasses.replace(
      self, below=self.below + below, above=self.above + above
    )


def fit_volume(
  shape_of: Callable[[float], Shape], volume_cc: float, low: float, high: float
) -> Shape:
  """The shape `shape_of(size)` of a volume, by bisection."""
  for _ in range(10):
    size = (low + high) / 2
    if _volume_cc(shape_of(size)) < volume_cc:
      low = size
    else:
      high = size
  return shape_of(size)
