"""Doses slightly below zero, that no patient received.

Interpolation by splines rings beside a steep edge, and values that are stored
in steps may lie half a step below zero. Cubic B-splines on voxels of up to 3 mm
take a penumbra of 3 mm to -1.1% of its dose, and a wider one less.
"""

import pathlib

import numpy as np

from dvhflax import errors

# Of the maximum. Where more is missing below zero, as much may be too high
# beside it, and it is no matter of clipping any more.
MOST_UNDERSHOOT = 0.02
# What rounding alone makes, not worth a word.
_ROUNDING = 1e-4


def without_undershoot(
  values_gy: np.ndarray, where: pathlib.Path
) -> tuple[np.ndarray, tuple[str, ...]]:
  """A dose with 0 in place of small negative values.

  Args:
    values_gy: of any shape, finite.
    where: the file that they are of.

  Returns:
    The dose, and a note if more than rounding was taken away.

  Raises:
    CohortError: if the lowest value is farther below zero than
      `MOST_UNDERSHOOT` of the highest one is above.
  """
  least, most = float(values_gy.min()), float(values_gy.max())
  if least >= 0:
    return values_gy, ()
  if least < -MOST_UNDERSHOOT * most:
    raise errors.CohortError(
      f'{where}: a dose is negative, {least:.3g} Gy beside a maximum of '
      f'{most:.3g} Gy: more than the {MOST_UNDERSHOOT:.0%} that interpolation '
      'makes; is it the difference of two doses?'
    )
  notes: tuple[str, ...] = ()
  if least < -_ROUNDING * most:
    count = np.count_nonzero(values_gy < -_ROUNDING * most)
    notes = (
      f'{where.name}: {count} voxels of down to {least:.2g} Gy, beside a '
      f'maximum of {most:.3g} Gy, are taken as 0',
    )
  return np.maximum(values_gy, 0), notes
