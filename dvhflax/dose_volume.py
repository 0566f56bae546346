"""Dx, Vx, mean and maximum: read off a dose, or off a cumulative DVH.

The one place where they are computed. `Voxels`, `Ranked` and `Curve` are read
in the same way, as `ReadOffs`. A name says what is returned: a `fraction` lies
in [0, 1], a `percent` in [0, 100]; doses are in whatever unit the doses given
are in.
"""

import dataclasses
import functools
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike


def dose_at_volume_fraction(
  dose: np.ndarray, fraction: ArrayLike, axis: int = -1
) -> np.ndarray:
  """Dx: the dose that the hottest fraction of a structure receives.

  Args:
    dose: `[..., V]` doses of the structure's voxels, V >= 1.
    fraction: `[...]` or one, in [0, 1].
    axis: that of the voxels.

  Returns:
    The 1 - fraction quantile, interpolated between ranked voxels.

  Raises:
    ValueError: no voxel, or a fraction outside of [0, 1].
  """
  fraction = np.asarray(fraction, np.float64)
  if not np.all((fraction >= 0) & (fraction <= 1)):
    raise ValueError(f'a volume fraction must lie in [0, 1], got {fraction}')
  return np.quantile(_voxels(dose), 1 - fraction, axis=axis)


def volume_fraction_at_dose(dose: np.ndarray, level: ArrayLike) -> np.ndarray:
  """Cumulative DVH: the share of `[V]` voxels that receive a level or more.

  Args:
    dose: `[V]` doses of the structure's voxels, V >= 1.
    level: `[K]` ascending, or one, in the unit of `dose`.

  Returns:
    `[K]` or one in [0, 1], not increasing.

  Raises:
    ValueError: no voxel.
  """
  if not np.size(dose):
    raise ValueError('the structure has no voxel')
  levels = np.atleast_1d(level)
  reached = np.searchsorted(levels, dose, side='right')  # levels <= dose
  histogram = np.bincount(reached, minlength=len(levels) + 1)
  at_least = histogram[::-1].cumsum()[::-1][1:]
  return (at_least / len(dose)).reshape(np.shape(level))


class ReadOffs(Protocol):
  """What can be read off the dose of one structure."""

  @property
  def mean_dose(self) -> float: ...

  @property
  def max_dose(self) -> float: ...

  def dose_at_volume_percent(self, percent: float) -> float:
    """Dx%."""

  def volume_percent_at_dose(self, level: float) -> float:
    """Vx in %."""


@dataclasses.dataclass(frozen=True)
class Voxels:
  """The voxels of one structure.

  Attributes:
    dose: `[V]`; reading one without a voxel raises a ValueError.
  """

  dose: np.ndarray

  @property
  def mean_dose(self) -> float:
    return float(_voxels(self.dose).mean())

  @property
  def max_dose(self) -> float:
    return float(_voxels(self.dose).max())

  def dose_at_volume_fraction(self, fraction: ArrayLike) -> np.ndarray:
    """See the function of this name."""
    return dose_at_volume_fraction(self.dose, fraction)

  def volume_fraction_at_dose(self, level: ArrayLike) -> np.ndarray:
    """See the function of this name."""
    return volume_fraction_at_dose(self.dose, level)

  def dose_at_volume_percent(self, percent: float) -> float:
    """Dx%, see `dose_at_volume_fraction`."""
    return float(self.dose_at_volume_fraction(percent / 100))

  def volume_percent_at_dose(self, level: float) -> float:
    """Vx in %, see `volume_fraction_at_dose`."""
    return 100 * float(self.volume_fraction_at_dose(level))


@dataclasses.dataclass(frozen=True)
class Ranked(Voxels):
  """As `Voxels`, sorted once it pays, so that many read-offs cost little.

  All values are those of `Voxels` to the bit.
  """

  def __post_init__(self) -> None:
    if not len(self.dose):
      raise ValueError('the structure has no voxel')

  @functools.cached_property
  def _ascending(self) -> np.ndarray:
    return np.sort(self.dose)

  @functools.cached_property
  def _mean(self) -> float:
    return super().mean_dose

  @property
  def mean_dose(self) -> float:
    return self._mean

  @property
  def max_dose(self) -> float:
    return float(self.dose.max())

  def dose_at_volume_fraction(self, fraction: ArrayLike) -> np.ndarray:
    """See the function of this name."""
    fraction = np.asarray(fraction, np.float64)
    if not np.all((fraction >= 0) & (fraction <= 1)):
      raise ValueError(f'a volume fraction must lie in [0, 1], got {fraction}')
    dose = self._ascending
    last = len(dose) - 1
    place = last * (1 - fraction)
    low = np.floor(place).astype(np.intp)
    share = place - low
    below = dose[low].astype(np.float64)
    above = dose[np.minimum(low + 1, last)].astype(np.float64)
    # Rounded as np.quantile does.
    step = above - below
    found = np.where(
      share < 0.5, below + step * share, above - step * (1 - share)
    )
    return np.where(np.isnan(dose[-1]), np.nan, found)

  def volume_fraction_at_dose(self, level: ArrayLike) -> np.ndarray:
    """See the function of this name."""
    level = np.asarray(level)
    # The least number of the doses' own precision that reaches the level: with
    # another precision all doses would be copied.
    least = level.astype(self.dose.dtype)
    above = np.nextafter(least, self.dose.dtype.type(np.inf))
    least = np.where(least < level, above, least)
    if '_ascending' in vars(self):
      below = np.searchsorted(self._ascending, least, side='left')
    elif least.ndim:
      # Faster than to sort them, which only a dose at a volume needs.
      return volume_fraction_at_dose(self.dose, least)
    else:
      below = np.asarray(np.count_nonzero(self.dose < least))
    return np.asarray((len(self.dose) - below) / len(self.dose))


@dataclasses.dataclass(frozen=True)
class Curve:
  """A cumulative DVH of one structure, linear between its points.

  Attributes:
    dose: `[V]` ascending.
    volume: `[V]` fraction of the volume that receives that dose or more, not
      increasing.
    exact_mean: mean dose, where it is known better than the curve tells it.
  """

  dose: np.ndarray
  volume: np.ndarray
  exact_mean: float | None = None

  @property
  def mean_dose(self) -> float:
    """The area under the curve; before its first point the volume is whole."""
    if self.exact_mean is not None:
      return self.exact_mean
    area = np.trapezoid(self.volume, self.dose)
    return float(area + self.dose[0] * self.volume[0])

  @property
  def max_dose(self) -> float:
    """Where the curve meets 0, or its last dose."""
    positive = int(np.count_nonzero(self.volume > 0))
    return float(self.dose[min(positive, len(self.dose) - 1)])

  def dose_at_volume_percent(self, percent: float) -> float:
    """Dx%; of several doses with that volume the last."""
    return float(np.interp(-percent / 100, -self.volume, self.dose))

  def volume_percent_at_dose(self, level: float) -> float:
    """Vx in %; 100 before the first dose, 0 beyond the last."""
    volume = np.interp(level, self.dose, self.volume, left=1, right=0)
    return 100 * float(volume)


def _voxels(dose: np.ndarray) -> np.ndarray:
  # float64: a float16 sum over a body overflows, a float32 one drifts.
  dose = np.asarray(dose, np.float64)
  if not dose.size:
    raise ValueError('the structure has no voxel')
  return dose
