"""Voxel sizes of a cohort's patients, where they are several."""

import numpy as np

from dvhflax.cohort.store import Cohort

# Relative difference that only rounding makes.
_ROUNDING = 1e-3


def own_spacings(cohort: Cohort) -> np.ndarray | None:
  """`[P, 3]` float32 in mm; None where all patients have the same."""
  spacings = np.array([p.spacing_mm for p in cohort.patients], np.float32)
  if (np.ptp(spacings, axis=0) <= _ROUNDING * spacings.min(0)).all():
    return None
  return spacings
