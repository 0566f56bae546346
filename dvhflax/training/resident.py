"""A cohort on the device: a step is sent a draw and looks the rest up."""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dvhflax.cohort.store import Cohort
from dvhflax.training.sampler import Draw, nearest_plans

# `prepare(masks [X, Y, Z, S], spacing_mm [3])`, see `UNet.prepare`.
Prepare = Callable[[Any, Any], Any]


def nothing(masks: Any, spacing_mm: Any) -> None:
  """Leaves it to the network to prepare, in every step."""
  del masks, spacing_mm


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
    prepared: `[R, X, Y, Z, ...]` of the network, see `UNet.prepare`.
  """

  masks: Any
  doses: Any
  row: Any
  first: Any
  dvh: Any
  valid: Any
  present: Any
  spacing_mm: Any = None
  prepared: Any = None


def size(
  cohort: Cohort, patients: np.ndarray, prepare: Prepare = nothing
) -> int:
  """Bytes of these patients' masks and doses, and of what is prepared."""
  prepared = prepared_size(cohort, prepare)
  voxels = int(np.prod(cohort.grid))
  plans = sum(cohort.patients[p].plans for p in patients)
  dose = np.dtype(cohort.metadata.dose_dtype).itemsize
  of_patient = voxels * len(cohort.structures) + prepared
  return len(patients) * of_patient + voxels * plans * dose


def prepared_size(cohort: Cohort, prepare: Prepare) -> int:
  """Bytes of what is prepared for one patient."""
  masks = jax.ShapeDtypeStruct((*cohort.grid, len(cohort.structures)), np.uint8)
  spacing_mm = jax.ShapeDtypeStruct((3,), np.float32)
  shapes = jax.tree.leaves(jax.eval_shape(prepare, masks, spacing_mm))
  return sum(math.prod(x.shape) * x.dtype.itemsize for x in shapes)


def read(
  cohort: Cohort, patients: np.ndarray, prepare: Prepare = nothing
) -> ResidentCohort:
  """Reads patients from the store, into numpy arrays.

  Args:
    cohort: the store.
    patients: R indices.
    prepare: of the network, for masks and a voxel size.
  """
  plans = [cohort.patients[p].plans for p in patients]
  masks = np.empty(
    (len(patients), *cohort.grid, len(cohort.structures)), np.uint8
  )
  doses = np.empty((sum(plans), *cohort.grid), cohort.metadata.dose_dtype)
  row, first = np.full((2, len(cohort.patients)), -1, np.int32)
  row[patients] = np.arange(len(patients))
  first[patients] = np.cumsum([0, *plans[:-1]])
  prepared = None
  for p, n in zip(patients, plans):
    masks_of_plans, doses[first[p] : first[p] + n] = cohort.read(
      np.repeat(p, n), np.arange(n)
    )
    masks[row[p]] = masks_of_plans[0]
    found = jax.device_get(
      prepare(masks_of_plans[0], np.float32(cohort.patients[p].spacing_mm))
    )
    if prepared is None:
      prepared = jax.tree.map(
        lambda x: np.empty((len(patients), *x.shape), x.dtype), found
      )
    jax.tree.map(lambda all_, x, i=row[p]: _put(all_, i, x), prepared, found)
  return ResidentCohort(
    masks, doses, row, first, cohort.dvh, cohort.valid, cohort.present,
    cohort.own_spacings, prepared,
  )  # fmt: skip


def look_up(cohort: ResidentCohort, draw: Draw) -> dict[str, jax.Array]:
  """What a draw stands for, equation (4) included; for use inside a step.

  Args:
    cohort: on the device.
    draw: of B samples, of the cohort's R patients.

  Returns:
    `masks [B, X, Y, Z, S]`, `desired_dvh [B, S, K]`, `dose [B, X, Y, Z]`; a
    dose is NaN where a patient is not among the R, or has no plan for the wish:
    -1 would be the plan of another. `prepared`, and `spacing_mm [B, 3]` where
    patients have their own.
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
  if cohort.prepared is not None:
    found['prepared'] = jax.tree.map(
      lambda x: _mirror(x[row], draw.mirrored), cohort.prepared
    )
  if cohort.spacing_mm is not None:
    found['spacing_mm'] = cohort.spacing_mm[draw.patients]
  return found


def _put(rows: np.ndarray, index: int, row: np.ndarray) -> None:
  rows[index] = row


def _mirror(x: jax.Array, mirrored: jax.Array | np.ndarray) -> jax.Array:
  which = mirrored.reshape(-1, *[1] * (x.ndim - 1))
  return jnp.where(which, jnp.flip(x, 1), x)
