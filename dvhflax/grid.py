"""The regular grid of voxels that masks, doses and CTs share.

Positions are in mm, LPS: x to the patient's left, y to posterior, z to
superior; an array on a grid is indexed `[x, y, z]`.
"""

import dataclasses

import numpy as np

# Voxel centres in mm along x, y, z: `[X]`, `[Y]`, `[Z]`.
Axes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Grid:
  """A regular grid.

  Attributes:
    shape: voxels along x, y, z.
    spacing_mm: voxel size along x, y, z.
    centre_mm: position of the middle of the grid. Planning knows no other
      place and leaves it at the origin.
  """

  shape: tuple[int, int, int]
  spacing_mm: tuple[float, float, float]
  centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

  def __post_init__(self) -> None:
    if len(self.shape) != 3 or min(self.shape) < 1:
      raise ValueError(f'a grid needs three positive sizes: {self.shape}')
    if len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0:
      raise ValueError(f'a grid needs positive spacings: {self.spacing_mm}')

  @property
  def axes(self) -> Axes:
    """Voxel centres in mm along each axis."""
    x, y, z = (
      centre + (np.arange(n) - (n - 1) / 2) * step
      for n, step, centre in zip(self.shape, self.spacing_mm, self.centre_mm)
    )
    return x, y, z

  @property
  def first_centre(self) -> np.ndarray:
    """`[3]` position in mm of voxel (0, 0, 0)."""
    half = (np.array(self.shape) - 1) / 2 * np.array(self.spacing_mm)
    return np.array(self.centre_mm) - half

  @property
  def half_extent(self) -> np.ndarray:
    """`[3]` half of the field of view in mm."""
    return np.array(self.shape) * np.array(self.spacing_mm) / 2

  @property
  def voxel_cc(self) -> float:
    """Volume of a voxel in cubic centimetres."""
    return float(np.prod(self.spacing_mm)) / 1000

  def centres(self, index: np.ndarray) -> np.ndarray:
    """`[V, 3]` positions in mm of voxels with indices `[V, 3]`."""
    return self.first_centre + index * np.array(self.spacing_mm)
