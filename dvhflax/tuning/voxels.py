"""What is computed once of a patient's masks, so that a dose is read fast."""

from collections.abc import Sequence
import functools

import numpy as np

from dvhflax import metrics
from dvhflax.dose_volume import Ranked
from dvhflax.patient import Structure


class StructureVoxels:
  """Where the voxels of a patient's structures lie.

  Attributes:
    structures: `[S]`.
    volumes_cc: `[S]`, 0 for a structure without a voxel.
  """

  def __init__(
    self,
    masks: np.ndarray,
    structures: Sequence[Structure],
    spacing_mm: Sequence[float] = (10.0, 10.0, 10.0),
  ):
    """Finds them.

    Args:
      masks: `[X, Y, Z, S]`, 0 or 1.
      structures: `[S]`.
      spacing_mm: voxel size along each axis.
    """
    self.structures = tuple(structures)
    self._masks = masks
    self._inside = [
      np.flatnonzero(masks[..., s]) for s in range(masks.shape[-1])
    ]
    counts = np.array([len(inside) for inside in self._inside])
    self.volumes_cc = counts * np.prod(spacing_mm) / 1000

  @functools.cached_property
  def cut_off(self) -> list[str]:
    """Structures that reach the sides of the grid."""
    cut = metrics.at_edge(self._masks)
    return [s.name for s, off in zip(self.structures, cut) if off]

  def rank(self, dose: np.ndarray) -> list[Ranked | None]:
    """The doses of every structure, ready to be read off.

    Args:
      dose: `[X, Y, Z]`.

    Returns:
      `[S]`; None for a structure without a voxel.
    """
    flat = np.asarray(dose).reshape(-1)
    return [
      Ranked(flat.take(inside)) if len(inside) else None
      for inside in self._inside
    ]
