"""The dose of open fields, as an input that shows where beams can reach.

Masks alone do not say that dose comes along beams; a network learns it slowly
from examples. After A. M. Barragan-Montero et al., "Three-dimensional dose
prediction for lung IMRT patients with deep neural networks: robust learning
from heterogeneous beam configurations", Med Phys 46:3679 (2019), it may be
told: beams as wide as the target, not modulated, without scatter.
"""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

SAD_MM = 1000.0
# Attenuation of broad 6 MV beams in water, at a TPR20,10 of 0.67.
ATTENUATION_PER_MM = 0.004


@dataclasses.dataclass(frozen=True)
class Beam:
  """What a beam is to the columns (x, y) of a grid, C = X * Y of them.

  Attributes:
    bins: bins of its aperture, from one side to the other.
    bin: `[C]` bin that a column of the target opens.
    low: `[C]` bin before a column; the next one is after it.
    share: `[C]` weight of that next one, 0 to 1.
    weight: `[C]` dose of an open ray.
  """

  bins: int
  bin: np.ndarray
  low: np.ndarray
  share: np.ndarray
  weight: np.ndarray


def beams_of(
  grid: Sequence[int], spacing_mm: Sequence[float], beams: int
) -> list[Beam]:
  """Equidistant coplanar beams round the middle of a grid.

  Args:
    grid: voxels along x, y, z.
    spacing_mm: voxel size.
    beams: how many, the first at gantry angle 0.
  """
  x, y = (
    (np.arange(n) - (n - 1) / 2) * step for n, step in zip(grid[:2], spacing_mm)
  )
  x, y = (u.ravel() for u in np.meshgrid(x, y, indexing='ij'))
  found = []
  for angle in 2 * np.pi * np.arange(beams) / beams:
    across = x * np.cos(angle) + y * np.sin(angle)
    along = y * np.cos(angle) - x * np.sin(angle)
    magnification = SAD_MM / (SAD_MM + along)
    place = across * magnification / min(spacing_mm[:2])
    half = int(np.ceil(np.abs(place).max())) + 1
    place = place + half
    low = place.astype(int)
    weight = np.exp(-ATTENUATION_PER_MM * along) * magnification**2 / beams
    found.append(
      Beam(
        bins=2 * half + 1,
        bin=np.rint(place).astype(int),
        low=low,
        share=(place - low).astype(np.float32),
        weight=weight.astype(np.float32),
      )
    )
  return found


def open_field_dose(
  target: jax.Array, spacing_mm: tuple[float, float, float], beams: int
) -> jax.Array:
  """Dose of equidistant coplanar beams that just cover the target.

  Rays diverge within the slices, round the middle of the grid, and are
  parallel across them. In water a point's depth beyond the isocentre's is its
  distance along the beam, whatever the patient's outline.

  Args:
    target: `[B, X, Y, Z]`, not 0 inside the target; axes to the patient's
      left, posterior, superior.
    spacing_mm: voxel size.
    beams: number of beams, the first at gantry angle 0.

  Returns:
    `[B, X, Y, Z]` float32, 1 in the middle of the grid if the target is there.
  """
  batch, nx, ny, nz = target.shape
  columns = (target != 0).astype(jnp.float32).reshape(batch, nx * ny, nz)
  total = jnp.zeros_like(columns)
  for beam in beams_of((nx, ny, nz), spacing_mm, beams):
    aperture = jnp.zeros((batch, beam.bins, nz))
    aperture = aperture.at[:, beam.bin].max(columns)
    # A margin of a voxel, which also closes what falls between two columns.
    aperture = jax.lax.reduce_window(
      aperture, 0.0, jax.lax.max, (1, 3, 3), (1, 1, 1), 'SAME'
    )
    share = beam.share[:, None]
    before, after = aperture[:, beam.low], aperture[:, beam.low + 1]
    open_ = before * (1 - share) + after * share
    total += open_ * beam.weight[:, None]
  return total.reshape(target.shape)
