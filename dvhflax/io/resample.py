"""Doses and structures on grids of any source, and from one to another.

Positions and indices are those of `grid.Grid`, but a source's spacing may vary
along an axis. Grids are rectilinear, so all resampling is one axis after
another: doses trilinear, structures by the share of each voxel's volume that
they fill.
"""

import dataclasses
import functools

import numpy as np

from dvhflax.grid import Axes, Grid
from dvhflax.patient import LEAST_HU, MOST_HU

# Of what lies outside of a CT.
AIR_HU = -1000
# No plan gives as much: a dose in cGy, or a faulty scaling.
MOST_GY = 1000.0


@dataclasses.dataclass(frozen=True)
class Dose:
  """A dose distribution.

  Attributes:
    values: `[X, Y, Z]` float32, Gy.
    axes: ascending voxel centres in mm, at least two an axis; spacings may
      differ along an axis.
    notes: what the user should know of the values, a line each.
  """

  values: np.ndarray
  axes: Axes
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Scan:
  """A CT.

  Attributes:
    values: `[X, Y, Z]` int16, HU, within `LEAST_HU` and `MOST_HU`.
    axes: as of a `Dose`; z runs across the axial slices.
  """

  values: np.ndarray
  axes: Axes


@dataclasses.dataclass(frozen=True)
class Occupancy:
  """A structure: the share of each voxel that it fills.

  Attributes:
    fractions: `[X, Y, Z]` float32 in [0, 1].
    lower, upper: bounds of the voxels in mm along each axis. Voxels of an
      axis ascend and do not overlap; there may be gaps.
  """

  fractions: np.ndarray
  lower: Axes
  upper: Axes

  @property
  def centres(self) -> Axes:
    """Voxel centres in mm along each axis."""
    x, y, z = ((a + b) / 2 for a, b in zip(self.lower, self.upper))
    return x, y, z

  @functools.cached_property
  def volumes_mm3(self) -> np.ndarray:
    """`[X, Y, Z]` volume of the structure in each voxel."""
    x, y, z = (b - a for a, b in zip(self.lower, self.upper))
    sizes = x[:, None, None] * y[:, None] * z
    return self.fractions * sizes.astype(np.float32)

  @property
  def volume_cc(self) -> float:
    """Volume of the structure in cubic centimetres."""
    return float(self.volumes_mm3.sum(dtype=np.float64)) / 1000


def centroid(occupancies: list[Occupancy]) -> tuple[float, float, float]:
  """Centre of mass in mm of structures taken together, each by its volume."""
  total, moments = 0.0, np.zeros(3)
  for occupancy in occupancies:
    volumes = occupancy.volumes_mm3.astype(np.float64)
    total += volumes.sum()
    for axis, centres in enumerate(occupancy.centres):
      others = tuple({0, 1, 2} - {axis})
      moments[axis] += volumes.sum(others) @ centres
  x, y, z = moments / total
  return float(x), float(y), float(z)


def clip_hu(values: np.ndarray) -> np.ndarray:
  """CT numbers as they are kept: whole, and within 12 bits, int16."""
  return np.rint(np.clip(values, LEAST_HU, MOST_HU)).astype(np.int16)


def hu_on(grid: Grid, scan: Scan) -> np.ndarray:
  """A CT on a regular grid.

  Returns:
    `[X, Y, Z]` int16 HU, trilinear; -1000 outside of the CT's voxels.
  """
  values: np.ndarray = scan.values
  within: np.ndarray | np.float32 = np.float32(1)
  for axis, (known, wanted) in enumerate(zip(scan.axes, grid.axes)):
    values = _linear(values, known, wanted, axis)
    within = within * _along(_extent(known, wanted), axis)
  return clip_hu(values + AIR_HU * (1 - within))


def trilinear(dose: Dose, axes: Axes) -> np.ndarray:
  """A dose at other voxel centres.

  Args:
    dose: to interpolate.
    axes: `[X]`, `[Y]`, `[Z]` positions in mm.

  Returns:
    `[X, Y, Z]` float32 Gy. Within half a voxel outside of the outermost
    centres, the voxels' own extent, their value holds; beyond, it is 0.
  """
  values = dose.values
  for axis, (known, wanted) in enumerate(zip(dose.axes, axes)):
    values = _linear(values, known, wanted, axis)
  return values


def share_in_dose(dose: Dose | Scan, occupancy: Occupancy) -> float:
  """Share of a structure's volume within the voxels of a dose, or of a CT."""
  volumes = occupancy.volumes_mm3
  within = volumes
  for axis, (known, wanted) in enumerate(zip(dose.axes, occupancy.centres)):
    within = within * _along(_extent(known, wanted), axis)
  return float(within.sum(dtype=np.float64) / volumes.sum(dtype=np.float64))


def fractions_on(grid: Grid, occupancy: Occupancy) -> np.ndarray:
  """A structure on a regular grid, by volume.

  Args:
    grid: the wanted one.
    occupancy: the structure; where it fills a voxel in part, it counts as
      spread evenly over that voxel.

  Returns:
    `[X, Y, Z]` float32, the share of each of the grid's voxels that the
    structure fills.
  """
  fractions = occupancy.fractions
  for axis, (centres, step) in enumerate(zip(grid.axes, grid.spacing_mm)):
    share = _overlap(
      occupancy.lower[axis],
      occupancy.upper[axis],
      centres - step / 2,
      centres + step / 2,
    )
    moved = np.tensordot(share, fractions, (1, axis))
    fractions = np.moveaxis(moved, 0, axis)
  return fractions


def to_mask(fractions: np.ndarray) -> np.ndarray:
  """Volume fractions to a mask: voxels that are filled by half.

  A structure too thin to fill half of any voxel keeps its fullest ones.

  Args:
    fractions: `[X, Y, Z]` in [0, 1].

  Returns:
    `[X, Y, Z]` uint8, 0 or 1.
  """
  most = fractions.max()
  # Rounding must not tell apart voxels that are filled by half exactly.
  threshold = 0.5 - 1e-6 if most >= 0.5 else max(most / 2, 1e-6)
  return (fractions >= threshold).astype(np.uint8)


def _overlap(
  lower: np.ndarray,
  upper: np.ndarray,
  wanted_lower: np.ndarray,
  wanted_upper: np.ndarray,
) -> np.ndarray:
  """`[W, N]` float32, share of each wanted interval that interval n covers."""
  common = np.minimum(upper, wanted_upper[:, None]) - np.maximum(
    lower, wanted_lower[:, None]
  )
  widths = (wanted_upper - wanted_lower)[:, None]
  return (np.maximum(common, 0) / widths).astype(np.float32)


def _linear(
  values: np.ndarray, known: np.ndarray, wanted: np.ndarray, axis: int
) -> np.ndarray:
  position = np.interp(wanted, known, np.arange(len(known)))
  before = np.minimum(position.astype(int), len(known) - 2)
  weight = (position - before).astype(np.float32)
  within = _extent(known, wanted)
  near = np.take(values, before, axis) * _along((1 - weight) * within, axis)
  near += np.take(values, before + 1, axis) * _along(weight * within, axis)
  return near


def _extent(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """`[W]` float32, 1 where a position lies within the voxels of an axis."""
  first = known[0] - (known[1] - known[0]) / 2
  last = known[-1] + (known[-1] - known[-2]) / 2
  return ((wanted >= first) & (wanted <= last)).astype(np.float32)


def _along(vector: np.ndarray, axis: int) -> np.ndarray:
  shape = [1, 1, 1]
  shape[axis] = -1
  return vector.reshape(shape)
