"""DVHs of structures that fill their voxels in part."""

import dataclasses

import numpy as np

from dvhflax.io import resample
from dvhflax.io.resample import Dose, Occupancy

# Doses are told apart to a 10,000th of the largest.
_BINS = 10_000


@dataclasses.dataclass(frozen=True)
class Curve:
  """A cumulative DVH, linear between the doses that occur.

  Attributes:
    doses: `[K]` ascending, Gy, each that of some voxels.
    shares: `[K]` share of the volume that receives more, or as much: of the
      voxels of just this dose one half, so that a dose which is sampled in
      steps is off by nothing on average.
    mean: Gy.
  """

  doses: np.ndarray
  shares: np.ndarray
  mean: float

  def at_volume(self, percent: float) -> float:
    """Dx%: the dose in Gy that `percent` of the volume receive."""
    return float(np.interp(percent / 100, self.shares[::-1], self.doses[::-1]))

  def at_dose(self, gy: float) -> float:
    """Vx: percent of the volume that receive a dose or more."""
    return 100 * float(np.interp(gy, self.doses, self.shares, 1, 0))


def curve(dose: np.ndarray, volumes: np.ndarray) -> Curve:
  """The DVH of voxels of different volumes.

  Args:
    dose: `[V]` Gy, V >= 1.
    volumes: `[V]` in any one unit.
  """
  top = float(dose.max()) * (1 + 1e-6) + 1e-9
  place = (dose * (_BINS / top)).astype(np.int64).clip(0, _BINS - 1)
  histogram = np.bincount(place, volumes, _BINS)
  sums = np.bincount(place, volumes * dose, _BINS)
  occurring = histogram > 0
  histogram, sums = histogram[occurring], sums[occurring]
  total = histogram.sum()
  more = histogram[::-1].cumsum()[::-1] - histogram / 2
  return Curve(sums / histogram, more / total, float(sums.sum() / total))


def dvh(dose: Dose, occupancy: Occupancy) -> Curve:
  """The DVH of a structure on its own grid, the dose interpolated to it."""
  volumes = occupancy.volumes_mm3
  inside = volumes > 0
  sampled = resample.trilinear(dose, occupancy.centres)[inside]
  return curve(sampled, volumes[inside])
