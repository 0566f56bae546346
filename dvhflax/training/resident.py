"""A cohort on the device: a step is sent a draw and looks the rest up."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dvhflax.cohort.store import Cohort
from dvhflax.training.sampler import Draw, nearest_plans


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResidentCohort:
  """Some patients of a cohort.

  Attributes:
    masks: `[R, X, Y, Z, S]` uint8, of R patients.
    doses: `[M, X, Y, Z]` as stored, all their plans.
    row: `[P]` where a patient of the cohort is among the R; -1 if it is not.
    first: `[P]` where the first of its plans is among the M, as `row`.
    dvh: `[P, N, S, K]`, as `valid` and `present` those of `Cohort`.
    valid: `[P, N]`.
    present: `[P, S]`.
    spacing_mm: `[P, 3]`; None where all patients have the same.
  """

  masks: Any
  doses: Any
  row: Any
  first: Any
  dvh: Any
  valid: Any
  present: Any
  spacing_mm: Any = None


def size(cohort: Cohort, patients: np.ndarray) -> int:
  """Bytes of these patients' masks and doses."""
  voxels = int(np.prod(cohort.grid))
  plans = sum(cohort.patients[p].plans for p in patients)
  dose = np.dtype(cohort.metadata.dose_dtype).itemsize
  return voxels * (len(patients) * len(cohort.structures) + plans * dose)


def read(cohort: Cohort, patients: np.ndarray) -> ResidentCohort:
  """Reads patients from the store, into numpy arrays."""
  plans = [cohort.patients[p].plans for p in patients]
  masks = np.empty(
    (len(patients), *cohort.grid, len(cohort.structures)), np.uint8
  )
  doses = np.empty((sum(plans), *cohort.grid), cohort.metadata.dose_dtype)
  row, first = np.full((2, len(cohort.patients)), -1, np.int32)
  row[patients] = np.arange(len(patients))
  first[patients] = np.cumsum([0, *plans[:-1]])
  for p, n in zip(patients, plans):
    masks_of_plans, doses[first[p] : first[p] + n] = cohort.read(
      np.repeat(p, n), np.arange(n)
    )
    masks[row[p]] = masks_of_plans[0]
  return ResidentCohort(
    masks, doses, row, first, cohort.dvh, cohort.valid, cohort.present,
    cohort.own_spacings,
  )  # fmt: skip


def look_up(cohort: ResidentCohort, draw: Draw) -> dict[str, jax.Array]:
  """What a draw stands for, equation (4) included; for use inside a step.

  Args:
    cohort: on the device.
    draw: of B samples, of the cohort's R patients.

  Returns:
    `masks [B, X, Y, Z, S]`, `desired_dvh [B, S, K]`, `dose [B, X, Y, Z]`; a
    dose is NaN where a patient is not among the R, or has no plan for the wish:
    -1 would be the plan of another. `spacing_mm [B, 3]` where patients have
    their own.
  """
  labels = nearest_plans(draw, cohort.dvh, cohort.valid, cohort.present)
  row = cohort.row[draw.patients]
  masks = cohort.masks[row]
  dose = cohort.doses[cohort.first[draw.patients] + labels]
  exists = jnp.logical_and(row >= 0, labels >= 0)
  dose = jnp.where(exists[:, None, None, None], dose, jnp.nan)
  found = {
    'masks': _mirror(masks, draw.mirrored),
    'desired_dvh': jnp.asarray(draw.desired_dvh),
    'dose': _mirror(dose, draw.mirrored),
  }
  if cohort.spacing_mm is not None:
    found['spacing_mm'] = cohort.spacing_mm[draw.patients]
  return found


def _mirror(x: jax.Array, mirrored: jax.Array | np.ndarray) -> jax.Array:
  which = mirrored.reshape(-1, *[1] * (x.ndim - 1))
  return jnp.where(which, jnp.flip(x, 1), x)
