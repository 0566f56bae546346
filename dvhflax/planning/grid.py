"""The voxel grid that anatomy and dose share."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class VoxelGrid:
  """Voxel centres in LPS millimetres, the origin in the middle of the grid.

  x increases to the patient's left, y to posterior, z to superior; an array
  on the grid is indexed `[x, y, z]`.

  Attributes:
    shape: voxels along x, y and z.
    spacing_mm: voxel size along x, y and z.
  """

  shape: tuple[int, int, int]
  spacing_mm: tuple[float, float, float]

  def __post_init__(self) -> None:
    if len(self.shape) != 3 or min(self.shape) < 1:
      raise ValueError(f'a grid needs three positive sizes: {self.shape}')
    if len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0:
      raise ValueError(f'a grid needs positive spacings: {self.spacing_mm}')

  @property
  def first_centre(self) -> np.ndarray:
    """`[3]` position in mm of voxel (0, 0, 0)."""
    return -(np.array(self.shape) - 1) / 2 * np.array(self.spacing_mm)

  @property
  def half_extent(self) -> np.ndarray:
    """`[3]` half of the field of view in mm."""
    return np.array(self.shape) * np.array(self.spacing_mm) / 2

  @property
  def voxel_cc(self) -> float:
    """Volume of a voxel in cubic centimetres."""
    return float(np.prod(self.spacing_mm)) / 1000

  def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`[X, 1, 1]`, `[1, Y, 1]` and `[1, 1, Z]` voxel centres in mm."""
    x, y, z = (
      first + np.arange(n) * step
      for first, n, step in zip(
        self.first_centre, self.shape, self.spacing_mm, strict=True
      )
    )
    return x[:, None, None], y[None, :, None], z[None, None, :]

  def centres(self, index: np.ndarray) -> np.ndarray:
    """`[V, 3]` positions in mm of voxels with indices `[V, 3]`."""
    return self.first_centre + index * np.array(self.spacing_mm)
