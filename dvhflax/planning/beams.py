"""Beams of a plan: their frames, and the lattice of beamlets.

A beam at gantry angle t has the axes ex = (cos t, sin t, 0) across, ez =
(0, 0, 1) along the patient and ey = (-sin t, cos t, 0) from the source to the
isocentre (LPS). A point p, from the isocentre, lies at the distance
t = SAD + p.ey below the source, and projects from the source onto the plane
of the isocentre at X = (p.ex) SAD/t, Z = p.ez SAD/t.
"""

import dataclasses

import numpy as np

from dvhflax.errors import PlanningError
from dvhflax.grid import Grid

# Beamlets per axis and active beamlets are rounded up to multiples of these,
# so that patients share compiled programs.
_LATTICE_MULTIPLE = 8
_ACTIVE_MULTIPLE = 512


@dataclasses.dataclass(frozen=True)
class Beamlets:
  """Beamlets of all beams, on one rectangular lattice a beam.

  Attributes:
    isocentre: `[3]` mm in the grid's coordinates.
    angles: `[B]` gantry angles in radians.
    sad_mm: distance from the source to the isocentre.
    width_mm: beamlet width in the plane of the isocentre.
    open: `[B, I, J]` bool, beamlets that may carry fluence.
  """

  isocentre: np.ndarray
  angles: np.ndarray
  sad_mm: float
  width_mm: float
  open: np.ndarray

  @property
  def active(self) -> np.ndarray:
    """`[M]` indices of open beamlets in the flattened lattice, padded by -1.

    M is a multiple of 512.
    """
    index = np.flatnonzero(self.open)
    padding = -len(index) % _ACTIVE_MULTIPLE
    return np.pad(index, (0, padding), constant_values=-1).astype(np.int32)

  @property
  def neighbours(self) -> np.ndarray:
    """`[M, 4]` places in `active` of the next open beamlets along X and Z.

    A beamlet's own place where there is none, and in the padding.
    """
    active = self.active
    place = np.full(self.open.shape, -1)
    place[self.open] = np.arange(np.count_nonzero(self.open))
    place = np.pad(place, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    own = np.arange(len(active))
    beam, i, j = np.unravel_index(active.clip(0), self.open.shape)
    next_to = np.stack(
      [
        place[beam, i + 1 + di, j + 1 + dj]
        for di, dj in ((-1, 0), (1, 0), (0, -1), (0, 1))
      ],
      -1,
    )
    alone = (next_to < 0) | (active < 0)[:, None]
    return np.where(alone, own[:, None], next_to).astype(np.int32)

  def around(self, finer: 'Beamlets') -> np.ndarray:
    """`[M]` places in `active` of the beamlets that the finer ones lie in.

    Args:
      finer: of the same beams and isocentre.

    Returns:
      For each of `finer.active` its place, -1 where there is none.
    """
    place = np.full(self.open.shape, -1)
    place[self.open] = np.arange(np.count_nonzero(self.open))
    active = finer.active
    beam, *indices = np.unravel_index(active.clip(0), finer.open.shape)
    own = [beam]
    for axis, index in enumerate(indices):
      centre = (index + 0.5 - finer.open.shape[1 + axis] / 2) * finer.width_mm
      count = self.open.shape[1 + axis]
      own.append((np.floor(centre / self.width_mm) + count // 2).astype(int))
    return np.where(active < 0, -1, place[tuple(own)]).astype(np.int32)

  def edges(self, axis: int) -> np.ndarray:
    """`[I + 1]` or `[J + 1]` beamlet borders in mm along X (0) or Z (1)."""
    count = self.open.shape[1 + axis]
    return (np.arange(count + 1) - count / 2) * self.width_mm


def beam_axes(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """In-plane axes ex and ey, each `[B, 2]`, of beams at `[B]` radians."""
  cos, sin = np.cos(angles), np.sin(angles)
  return np.stack([cos, sin], -1), np.stack([-sin, cos], -1)


def project(
  points: np.ndarray, angles: np.ndarray, sad_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Distance below the source and projection onto the isocentre's plane.

  Args:
    points: `[V, 3]` mm from the isocentre.
    angles: `[B]` gantry angles in radians.
    sad_mm: distance from the source to the isocentre.

  Returns:
    t, X and Z, each `[B, V]` in mm.
  """
  across, along = beam_axes(angles)
  t = sad_mm + along @ points[:, :2].T
  return t, (across @ points[:, :2].T) * sad_mm / t, points[:, 2] * sad_mm / t


def open_beamlets(
  ptv: np.ndarray,
  grid: Grid,
  *,
  angles: np.ndarray,
  sad_mm: float,
  width_mm: float,
  margin_mm: float,
) -> Beamlets:
  """The beamlets within a margin of the PTV's projection.

  A PTV may reach the first or last slice, where scans end: the patient is
  taken to go on, as `raytrace` does, though nobody sees the dose there.

  Args:
    ptv: `[X, Y, Z]`, not 0 inside the PTV.
    grid: the mask's grid.
    angles: `[B]` gantry angles in radians.
    sad_mm: distance from the source to the isocentre.
    width_mm: beamlet width in the plane of the isocentre.
    margin_mm: margin around the projection, for the penumbra.

  Returns:
    Beamlets round an isocentre in the PTV's centroid.

  Raises:
    PlanningError: the PTV is empty or reaches the grid's sides.
  """
  index = np.argwhere(ptv)
  if not len(index):
    raise PlanningError('the PTV is empty: contour it before planning')
  across = index[:, :2]
  if (across == 0).any() or (across == np.array(ptv.shape[:2]) - 1).any():
    raise PlanningError(
      'the PTV reaches the side of the grid, so that beams do not fit: enlarge '
      f'the grid of {ptv.shape} voxels'
    )
  points = grid.centres(index)
  isocentre = points.mean(0)
  _, x, z = project(points - isocentre, angles, sad_mm)
  # Steps of half the smaller of margin and voxel leave no hole between the
  # projections of neighbouring voxels.
  steps = np.linspace(-margin_mm, margin_mm, 5)
  shape = tuple(
    _round_up(
      2 * int(np.ceil((np.abs(u).max() + margin_mm) / width_mm)),
      _LATTICE_MULTIPLE,
    )
    for u in (x, z)
  )
  opened = np.zeros((len(angles), *shape), bool)
  beam = np.arange(len(angles))[:, None]
  for dx in steps:
    column = np.floor((x + dx) / width_mm).astype(int) + shape[0] // 2
    for dz in steps:
      row = np.floor((z + dz) / width_mm).astype(int) + shape[1] // 2
      opened[beam, column.clip(0, shape[0] - 1), row.clip(0, shape[1] - 1)] = (
        True
      )
  return Beamlets(isocentre, angles, sad_mm, width_mm, opened)


def _round_up(count: int, multiple: int) -> int:
  return -(-count // multiple) * multiple
