"""Electron densities relative to water, of a CT or of water alone.

Thomas (1999, Br J Radiol 72:781-786) fitted published calibrations of CT
scanners by two straight lines, one for soft tissue and one for bone:

    1 + HU / 1000 up to 100 HU,    1 + HU / 1950 above.

The lines are as planning code that cites the paper has them; of the paper
itself the abstract was at hand. It recommends its formula where no data of the
scanner are there, and found that one pair of lines for all scanners costs less
than 0.8% of dose. The lines step from 1.100 down to 1.051 at 100 HU; here the
density stays at 1.1 until the line of bone reaches it, so that it never falls
as HU grow.
"""

import numpy as np

from dvhflax import errors
from dvhflax.patient import MOST_HU

# HU, relative electron density; linear between, constant beyond.
TABLE = (
  (-1000.0, 0.0),
  (100.0, 1.1),
  (195.0, 1.1),
  (float(MOST_HU), 1 + MOST_HU / 1950),
)


def relative_electron_density(hu: np.ndarray) -> np.ndarray:
  """Electron density relative to water by `TABLE`.

  Args:
    hu: CT numbers in HU, of any shape; finite. Beyond -1000 and 3071 HU they
      count as these: air, and metal as the densest bone.

  Returns:
    float32 of the shape of `hu`, 0 to 2.57.
  """
  return np.interp(hu, *np.transpose(TABLE)).astype(np.float32)


def density_of(body: np.ndarray, ct_hu: np.ndarray | None) -> np.ndarray:
  """What a patient's beams pass through.

  Outside of the body is air: the couch and what holds the patient still are
  left out, as they are in most planning systems unless contoured.

  Args:
    body: `[X, Y, Z]` outline, or the region that can receive dose where that
      stands in for it; nonzero inside.
    ct_hu: `[X, Y, Z]` CT numbers in HU; None: the body is of water.

  Returns:
    `[X, Y, Z]` float32 electron density relative to water; 0 outside.

  Raises:
    PlanningError: if the body is empty, or the CT is on another grid.
  """
  inside = np.asarray(body) > 0
  if not inside.any():
    raise errors.PlanningError(
      'the body is empty: contour the outline, or import a CT to derive it from'
    )
  if ct_hu is None:
    return inside.astype(np.float32)
  if ct_hu.shape != inside.shape:
    raise errors.PlanningError(
      f'the CT has shape {ct_hu.shape}, but the body {inside.shape}: resample '
      'one to the grid of the other'
    )
  density = np.zeros(inside.shape, np.float32)
  density[inside] = relative_electron_density(ct_hu[inside])
  return density
