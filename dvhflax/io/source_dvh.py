"""DVHs of structures that fill their voxels in part."""

import numpy as np

from dvhflax.dose_volume import Curve
from dvhflax.io import resample
from dvhflax.io.resample import Dose, Occupancy

# Doses are told apart to a 10,000th of the largest.
_BINS = 10_000


def curve(dose: np.ndarray, volumes: np.ndarray) -> Curve:
  """The DVH of voxels of different volumes.

  A dose that occurs counts half of its own voxels as reaching it, so that one
  which is sampled in steps is off by nothing on average.

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
