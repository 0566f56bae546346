"""Anatomies of simulated patients on a grid."""

import dataclasses

import numpy as np

from dvhflax.errors import ConfigError
from dvhflax.grid import Grid
from dvhflax.sites import PROSTATE, Site


@dataclasses.dataclass(frozen=True)
class Anatomy:
  """A simulated patient.

  Attributes:
    masks: `[X, Y, Z]` uint8 by name, of all that the site simulates.
    spacing_mm: voxel size.
  """

  masks: dict[str, np.ndarray]
  spacing_mm: tuple[float, float, float]


def sample_anatomy(
  rng: np.random.Generator,
  grid: tuple[int, int, int] = (128, 128, 64),
  spacing_mm: tuple[float, float, float] = (3.75, 2.5, 3.0),
  site: Site = PROSTATE,
) -> Anatomy:
  """Draws a patient; the origin of the site's shapes is the grid's centre.

  Args:
    rng: consumed alike whatever the grid.
    grid: voxels along x (to the patient's left), y (posterior), z (superior).
    spacing_mm: voxel size.
    site: whose anatomy.

  Raises:
    ConfigError: if the site is not simulated.
  """
  if site.shapes is None:
    raise ConfigError(f'{site.name} patients cannot be simulated: import them')
  axes = np.ix_(*Grid(grid, spacing_mm).axes)
  masks = {
    name: np.ascontiguousarray(
      np.broadcast_to(inside(*axes), grid), dtype=np.uint8
    )
    for name, inside in site.shapes(rng).items()
  }
  return Anatomy(masks, spacing_mm)
