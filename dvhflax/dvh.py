"""Dose-volume histograms: curves, the network's DVH vector, curve points."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

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

  def __post_init__(self):
    if self.kind not in ('volume_at_dose', 'dose_at_volume'):
      raise ValueError(f'unknown DVH kind {self.kind!r}')
    if self.points < 2 or self.max_dose <= 0:
      raise ValueError(f'a DVH needs points >= 2 and max_dose > 0: {self}')

  @property
  def levels(self) -> np.ndarray:
    """`[K]` abscissae: doses, or volume fractions from 1 down to 0."""
    if self.kind == 'volume_at_dose':
      return np.linspace(0, self.max_dose, self.points, dtype=np.float32)
    return np.linspace(1, 0, self.points, dtype=np.float32)


def volume_at_dose(dose: np.ndarray, levels: np.ndarray) -> np.ndarray:
  """Cumulative DVH: the share of voxels that receive a level or more.

  Args:
    dose: `[V]` doses of a structure's voxels, V >= 1.
    levels: `[K]` ascending dose levels.

  Returns:
    `[K]` float32 in [0, 1], not increasing.
  """
  reached = np.searchsorted(levels, dose, side='right')  # levels <= dose
  histogram = np.bincount(reached, minlength=len(levels) + 1)
  at_least = histogram[::-1].cumsum()[::-1][1:]
  return (at_least / len(dose)).astype(np.float32)


def dose_at_volume(dose: np.ndarray, fractions: np.ndarray) -> np.ndarray:
  """Dose that at least a fraction of the voxels receives (Dx%).

  Args:
    dose: `[V]` doses of a structure's voxels, V >= 1.
    fractions: `[K]` volume fractions in [0, 1].

  Returns:
    `[K]` float32 doses, by linear interpolation between ranked voxels.
  """
  return np.quantile(dose, 1 - np.asarray(fractions)).astype(np.float32)


def dvh(dose: np.ndarray, masks: np.ndarray, spec: DVHSpec) -> np.ndarray:
  """DVH of every structure of one plan.

  Args:
    dose: `[X, Y, Z]`.
    masks: `[X, Y, Z, S]`, 0 or 1.
    spec: the elements of the vector.

  Returns:
    `[S, K]` float32; zeros for a structure without a voxel.
  """
  measure = volume_at_dose if spec.kind == 'volume_at_dose' else dose_at_volume
  levels = spec.levels
  curves = np.zeros((masks.shape[-1], spec.points), np.float32)
  for s in range(masks.shape[-1]):
    inside = dose[masks[..., s] > 0].astype(np.float32)
    if inside.size:
      curves[s] = measure(inside, levels)
  return curves


@jax.jit
def volume_at_dose_curves(
  dose: jax.Array, masks: jax.Array, levels: jax.Array
) -> jax.Array:
  """Cumulative DVHs of a batch, on the device.

  Args:
    dose: `[B, X, Y, Z]`.
    masks: `[B, X, Y, Z, S]`, 0 or 1.
    levels: `[K]` ascending dose levels.

  Returns:
    `[B, S, K]` float32; zeros for a structure without a voxel.
  """

  def one(dose, masks):
    flat = masks.reshape(-1, masks.shape[-1]).astype(jnp.float32)
    reached = jnp.searchsorted(levels, dose.reshape(-1), side='right')
    histogram = jax.ops.segment_sum(flat, reached, len(levels) + 1)
    at_least = jnp.cumsum(histogram[::-1], axis=0)[::-1][1:]
    return (at_least / jnp.maximum(flat.sum(0), 1)).T

  return jax.lax.map(lambda args: one(*args), (dose, masks))
