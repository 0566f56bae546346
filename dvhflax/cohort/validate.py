"""Finds all faults of a cohort store in one go."""

from collections import Counter
import os
import sys

import numpy as np
import tqdm

from dvhflax import dvh as dvh_lib
from dvhflax import errors
from dvhflax.cohort import arrays
from dvhflax.cohort.schema import SPLITS
from dvhflax.cohort.store import Cohort
from dvhflax.normalisation import highest_target
from dvhflax.patient import LEAST_HU, MOST_HU, occupied


def validate_cohort(path: str | os.PathLike[str]) -> list[str]:
  """All faults of the store at a path, one line each; none if it is sound."""
  try:
    cohort = Cohort.open(path)
    _ = cohort.dvh  # What is damaged is found here.
  except errors.CohortError as error:
    return [str(error)]
  faults = []
  counts = Counter(record.id for record in cohort.patients)
  faults += [f'patient id {i} occurs {n} times' for i, n in counts.items()
             if n > 1]  # fmt: skip
  for split in SPLITS:
    if not any(record.split == split for record in cohort.patients):
      faults.append(f'no patient is in split {split}')
  for i in tqdm.tqdm(
    range(len(cohort.patients)), unit='patient', file=sys.stderr
  ):
    faults += [
      f'patient {cohort.patients[i].id}: {fault}'
      for fault in _patient_faults(cohort, i)
    ]
  return faults


def _patient_faults(cohort: Cohort, i: int) -> list[str]:
  record = cohort.patients[i]
  faults = []
  if record.split not in SPLITS:
    faults.append(f'split {record.split!r} is none of {", ".join(SPLITS)}')
  if len(record.present) != len(cohort.structures):
    faults.append(f'{len(record.present)} present flags')
  if not 1 <= record.plans <= cohort.metadata.max_plans:
    faults.append(f'{record.plans} plans')
    return faults
  if cohort.metadata.normalisation is not None:
    faults += _reference_faults(cohort, i)
  for name in ('reference_gy', 'plan_weights'):
    if len(getattr(record, name)) != record.plans:
      faults.append(f'{name} has another length than there are plans')
  masks = None
  try:
    if cohort.holds(i):
      masks = cohort.masks(i)
      faults += _mask_faults(cohort, i, masks)
  except errors.CohortError as error:
    faults.append(str(error))
  doses = []
  for n in range(record.plans):
    if masks is None or not cohort.holds(i, n + 1):
      break
    try:
      dose = cohort.read([i], [n])[1][0]
    except errors.CohortError as error:
      faults.append(str(error))
      continue
    doses.append(dose)
    if not np.isfinite(dose).all() or dose.min() < 0:
      faults.append(f'plan {n}: a dose is negative or not finite')
      continue
    curves = dvh_lib.dvh_vectors(
      dose.astype(np.float32), masks, cohort.dvh_spec
    )
    if not np.allclose(curves, cohort.dvh[i, n], atol=1e-6):
      faults.append(f'plan {n}: its DVH vector is not that of its dose')
  found = {'dvh': cohort.dvh[i, : record.plans]}
  if masks is not None:
    found['masks'] = masks
  if len(doses) == record.plans:
    found['dose'] = np.stack(doses)
  if record.has_ct and not cohort.metadata.ct:
    faults.append('has the checksum of a CT, but the cohort keeps none')
  try:
    ct_hu = cohort.ct(i)
    if ct_hu is not None:
      found['ct'] = ct_hu
      if ct_hu.min() < LEAST_HU or ct_hu.max() > MOST_HU:
        faults.append(f'a CT number is outside of {LEAST_HU} to {MOST_HU} HU')
  except errors.CohortError as error:
    faults.append(str(error))
  for name, array in found.items():
    if record.checksums.get(name) != arrays.checksum(array):
      faults.append(f'{name} differs from its checksum')
  return faults


def _reference_faults(cohort: Cohort, i: int) -> list[str]:
  """Whether 1.0 stands for what the cohort says, where it says it."""
  record, kind = cohort.patients[i], cohort.normalisation.kind
  if kind == 'prescription':
    off = np.abs(np.array(record.reference_gy) / record.prescription_gy - 1)
    return [
      f'plan {n}: reference_gy is not the prescription'
      for n in np.flatnonzero(off > 1e-6)
    ]
  faults = []
  if len(record.coverage_gy) != record.plans:
    faults.append('coverage_gy has another length than there are plans')
  target = highest_target(cohort.structures, record.present)
  try:
    inside = cohort.doses(i)[:, cohort.masks(i)[..., target] > 0]
  except errors.CohortError:
    return faults  # reported elsewhere
  return faults + [
    f'plan {n}: its mean in {cohort.structures[target].name} is {mean:.4f}, '
    'not 1, though doses are fractions of it'
    for n, mean in enumerate(inside.mean(1, dtype=np.float64))
    if abs(mean - 1) > 2e-3
  ]


def _mask_faults(cohort: Cohort, i: int, masks: np.ndarray) -> list[str]:
  faults = []
  if masks.max() > 1:
    faults.append('a mask holds values other than 0 and 1')
  filled = occupied(masks)
  flags = cohort.patients[i].present
  for structure, some, present in zip(cohort.structures, filled, flags):
    if some != present:
      faults.append(
        f'{structure.name} is {"empty" if present else "there"}, but flagged '
        f'{"present" if present else "absent"}'
      )
  targets = [s.role == 'target' for s in cohort.structures]
  if not filled[targets].any():
    faults.append('has no target')
  return faults
