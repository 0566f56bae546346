"""Dose-volume histograms as the network has them: vectors of K elements."""

from collections.abc import Sequence
import dataclasses
from typing import Literal

import numpy as np

from dvhflax import dose_volume
from dvhflax.dose_volume import Curve, Ranked

Kind = Literal['volume_at_dose', 'dose_at_volume']


@dataclasses.dataclass(frozen=True)
class DVHSpec:
  """How a DVH curve becomes a vector of `points` numbers a structure.

  Attributes:
    kind: `volume_at_dose`, the volume fraction at evenly spaced doses from 0
      to `max_dose`; or `dose_at_volume`, the dose at evenly spaced volume
      fractions from 1 down to 0.
    points: K, elements a structure.
    max_dose: the last dose level, in fractions of the reference dose.
  """

  kind: Kind = 'volume_at_dose'
  points: int = 32
  max_dose: float = 1.2

  def __post_init__(self) -> None:
    if self.kind not in ('volume_at_dose', 'dose_at_volume'):
      raise ValueError(
        f'DVH kind {self.kind!r}: use volume_at_dose or dose_at_volume'
      )
    if self.points < 2 or self.max_dose <= 0:
      raise ValueError(f'a DVH needs points >= 2 and max_dose > 0: {self}')

  @property
  def levels(self) -> np.ndarray:
    """`[K]` abscissae: doses, or volume fractions from 1 down to 0."""
    if self.kind == 'volume_at_dose':
      return np.linspace(0, self.max_dose, self.points, dtype=np.float32)
    return np.linspace(1, 0, self.points, dtype=np.float32)

  def curve(self, vector: np.ndarray) -> Curve:
    """The curve that a structure's `[K]` elements are points of."""
    levels, values = (np.asarray(x, np.float64) for x in (self.levels, vector))
    if self.kind == 'volume_at_dose':
      return Curve(levels, values)
    return Curve(values, levels)


def dvh_vectors(
  dose: np.ndarray, masks: np.ndarray, spec: DVHSpec
) -> np.ndarray:
  """DVH of every structure of one plan.

  Args:
    dose: `[X, Y, Z]`.
    masks: `[X, Y, Z, S]`, 0 or 1.
    spec: the elements of the vector.

  Returns:
    `[S, K]` float32; zeros for a structure without a voxel.

  Raises:
    ValueError: for masks of another grid than the dose's.
  """
  if masks.shape[:-1] != dose.shape:
    raise ValueError(
      f'dose {dose.shape} and masks {masks.shape} do not fit: masks are '
      '[X, Y, Z, S]'
    )
  curves = np.zeros((masks.shape[-1], spec.points), np.float32)
  for s in range(masks.shape[-1]):
    inside = dose[masks[..., s] > 0].astype(np.float32)
    if not inside.size:
      continue
    if spec.kind == 'volume_at_dose':
      curves[s] = dose_volume.volume_fraction_at_dose(inside, spec.levels)
    else:
      curves[s] = dose_volume.dose_at_volume_fraction(inside, spec.levels)
  return curves


def ranked_vectors(
  structures: Sequence[Ranked | None], spec: DVHSpec
) -> np.ndarray:
  """As `dvh_vectors`, of `[S]` structures whose float32 doses are ranked.

  Args:
    structures: None for one without a voxel.
    spec: the elements of the vector.
  """
  curves = np.zeros((len(structures), spec.points), np.float32)
  for s, inside in enumerate(structures):
    if inside is None:
      continue
    if spec.kind == 'volume_at_dose':
      curves[s] = inside.volume_fraction_at_dose(spec.levels)
    else:
      curves[s] = inside.dose_at_volume_fraction(spec.levels)
  return curves
