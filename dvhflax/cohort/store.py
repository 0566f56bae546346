"""Reads a cohort store."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import hashlib
import json
import os
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.cohort import arrays, place
from dvhflax.cohort.schema import CohortMetadata, PatientRecord
from dvhflax.cohort.writer import METADATA, building_path, written
from dvhflax.dvh import DVHSpec
from dvhflax.normalisation import (
  COVERAGE_PERCENT,
  DoseReference,
  Normalisation,
  coverage_gy,
  highest_target,
)
from dvhflax.patient import Structure

# Ids listed in an error.
_LISTED = 8
# Relative difference of voxel sizes that only rounding makes.
_ROUNDING = 1e-3


class Cohort:
  """A complete cohort, or an excerpt of one, read-only.

  Attributes:
    path: of the store.
    metadata: of the store.
    valid: `[P, N]` bool, whether a patient has that plan.
    present: `[P, S]` bool, whether a patient has that structure.
  """

  def __init__(self, path: str, metadata: CohortMetadata):
    """Use `Cohort.open`."""
    self.path = path
    self.metadata = metadata
    layout = arrays.layout(metadata, len(metadata.patients))
    self._arrays = {}
    for name, (shape, dtype, _) in layout.items():
      try:
        array = arrays.read_array(path, name)
      except place.UNREAD as error:
        if place.is_url(path):
          text = place.not_read(f'{path}/{name}', error)
        else:
          text = f'{path}/{name} is missing or damaged: build the cohort again'
        raise errors.CohortError(text) from None
      if array.shape != shape or array.dtype.name != dtype:
        raise errors.CohortError(
          f'{path}/{name} is {array.dtype.name} {array.shape}, but '
          f'{METADATA} says {dtype} {shape}'
        )
      self._arrays[name] = array
    plans = np.array([p.plans for p in metadata.patients])
    self.valid = np.arange(metadata.max_plans) < plans[:, None]
    self.present = np.array([p.present for p in metadata.patients])

  @classmethod
  def open(cls, path: str | os.PathLike[str]) -> 'Cohort':
    """Opens a cohort store.

    Args:
      path: of the store's folder, or a URL, see `cohort.place`.

    Raises:
      CohortError: if it is missing, half-written or damaged.
    """
    path = os.fspath(path)
    if place.is_url(path):
      found = place.read_bytes(path, METADATA)
      if found is None:
        raise errors.CohortError(
          f'{path} has no {METADATA}: give the URL of a complete cohort'
        )
      return cls(path, CohortMetadata.from_text(found, f'{path}/{METADATA}'))
    if not os.path.isdir(path):
      if os.path.isdir(building_path(path)):
        raise errors.CohortError(_half_written(path))
      raise errors.CohortError(
        f'there is no cohort at {path}: build it, or give the path of another'
      )
    file_name = os.path.join(path, METADATA)
    try:
      with open(file_name, 'rb') as file:
        text = file.read()
    except FileNotFoundError:
      raise errors.CohortError(
        f'{path} has no {METADATA}: it is not a cohort, or not a complete one'
      ) from None
    return cls(path, CohortMetadata.from_text(text, file_name))

  @functools.cached_property
  def dvh(self) -> np.ndarray:
    """`[P, N, S, K]` float32 DVH vectors; zeros where there is no plan.

    They are read when they are first asked for.

    Raises:
      CohortError: if they are damaged.
    """
    return self._read('dvh', [()], lambda _: '')[0]

  @property
  def structures(self) -> tuple[Structure, ...]:
    """S structures, in the order of the mask channels."""
    return self.metadata.structures

  @property
  def grid(self) -> tuple[int, int, int]:
    """Voxels along x, y, z."""
    return self.metadata.grid

  @property
  def dvh_spec(self) -> DVHSpec:
    """Elements of the DVH vectors."""
    return self.metadata.dvh

  @property
  def patients(self) -> tuple[PatientRecord, ...]:
    """P records."""
    return self.metadata.patients

  @functools.cached_property
  def normalisation(self) -> Normalisation:
    """What doses are fractions of.

    In a store older than this field it follows from the references: those of
    one normalised by the prescription are that of some plan of every patient.
    """
    described = self.metadata.normalisation
    if described is None:
      described = self._recognised()
    if described['kind'] == 'prescription':
      return Normalisation('prescription')
    percent = described.get('coverage_percent', COVERAGE_PERCENT)
    measured: dict[str, list[float]] = {}
    for p in self.split('train'):
      record = self.patients[p]
      target = highest_target(self.structures, record.present)
      covered = record.coverage_gy or coverage_gy(
        self.doses(p),
        self.masks(p)[..., target],
        record.reference_gy,
        percent,
      )
      measured.setdefault(self.structures[target].name, []).extend(
        np.asarray(covered) / record.prescription_gy
      )
    coverage = {
      name: (float(np.mean(found)), float(np.std(found)))
      for name, found in measured.items()
    }
    return Normalisation('target_mean', percent, coverage)

  def _recognised(self) -> dict[str, Any]:
    if all(
      np.isclose(max(p.reference_gy), p.prescription_gy, rtol=1e-6)
      for p in self.patients
    ):
      return {'kind': 'prescription'}
    protocol = self.patients[0].provenance.get('protocol')
    percent = protocol.get('coverage_percent') if protocol else None
    return {
      'kind': 'target_mean',
      'coverage_percent': percent or COVERAGE_PERCENT,
    }

  @property
  def own_spacings(self) -> np.ndarray | None:
    """`[P, 3]` float32 voxel sizes in mm; None where all patients have one."""
    spacings = np.array([p.spacing_mm for p in self.patients], np.float32)
    spread = np.ptp(spacings, axis=0)
    return spacings if (spread > _ROUNDING * spacings.min(0)).any() else None

  def reference(self, patient: int, plan: int) -> DoseReference:
    """What 1.0 of a plan's dose stands for."""
    self._check(patient, plan)
    record = self.patients[patient]
    return DoseReference(
      record.reference_gy[plan], record.prescription_gy, 'plan'
    )

  @functools.cached_property
  def identity(self) -> dict[str, str]:
    """What identifies this cohort, whatever its path; JSON.

    SHA-256 of how it came to be and of its patients' splits, `description`,
    and of the checksums of all that it holds, `content`.
    """
    metadata = self.metadata
    described = {
      'provenance': metadata.provenance,
      'structures': [dataclasses.asdict(s) for s in metadata.structures],
      'grid': metadata.grid,
      'dvh': dataclasses.asdict(metadata.dvh),
      'patients': [(p.id, p.split, p.plans) for p in metadata.patients],
    }
    held = [
      (p.id, p.checksums, p.spacing_mm, p.prescription_gy, p.reference_gy)
      for p in metadata.patients
    ]
    return {'description': _digest(described), 'content': _digest(held)}

  def index(self, patient: str) -> int:
    """The place of the patient of an id.

    Raises:
      CohortError: if there is no such patient.
    """
    ids = [record.id for record in self.patients]
    if patient not in ids:
      excerpt = self.metadata.excerpt
      ids = list(excerpt.patients) if excerpt else ids
      known = ', '.join(ids[:_LISTED]) + (', ...' if len(ids) > _LISTED else '')
      raise errors.CohortError(
        f'{self.path} has no patient {patient!r}; there are {known}'
      )
    return ids.index(patient)

  def split(self, name: str) -> np.ndarray:
    """Indices of the patients of a split.

    Raises:
      CohortError: if it is empty.
    """
    indices = [i for i, p in enumerate(self.patients) if p.split == name]
    if not indices:
      raise errors.CohortError(f'{self.path} has no patient in split {name!r}')
    return np.array(indices)

  def masks(self, patient: int) -> np.ndarray:
    """`[X, Y, Z, S]` uint8."""
    self._check(patient, 0)
    self._require(patient)
    return self._read('masks', [(patient,)], self._patient)[0]

  def dose(self, patient: int, plan: int) -> np.ndarray:
    """`[X, Y, Z]` float32, fraction of the plan's `reference_gy`."""
    self._check(patient, plan)
    self._require(patient, plan + 1)
    dose = self._read('dose', [(patient, plan)], self._plan)[0]
    return dose.astype(np.float32)

  def doses(self, patient: int) -> np.ndarray:
    """`[plans, X, Y, Z]` float32."""
    self._check(patient, 0)
    self._require(patient, self.patients[patient].plans)
    keys = [(patient, n) for n in range(self.patients[patient].plans)]
    return np.stack(self._read('dose', keys, self._plan)).astype(np.float32)

  def ct(self, patient: int) -> np.ndarray | None:
    """`[X, Y, Z]` int16 CT numbers in HU; None if the patient's is not kept."""
    self._check(patient, 0)
    if not (self.metadata.ct and self.patients[patient].has_ct):
      return None
    return self._read('ct', [(patient,)], self._patient)[0]

  def read(
    self,
    patients: Sequence[int] | np.ndarray,
    plans: Sequence[int] | np.ndarray,
  ) -> tuple[np.ndarray, np.ndarray]:
    """A batch, read all at once.

    Args:
      patients: `[B]`.
      plans: `[B]`, each of the patient in the same place.

    Returns:
      masks `[B, X, Y, Z, S]` uint8, dose `[B, X, Y, Z]` as stored.
    """
    keys = [(int(p), int(n)) for p, n in zip(patients, plans, strict=True)]
    for patient, plan in keys:
      self._check(patient, plan)
      self._require(patient, plan + 1)
    distinct = list(dict.fromkeys((p,) for p, _ in keys))
    masks = dict(zip(distinct, self._read('masks', distinct, self._patient)))
    dose = self._read('dose', keys, self._plan)
    return np.stack([masks[p,] for p, _ in keys]), np.stack(dose)

  def holds(self, patient: int, plans: int = 0) -> bool:
    """Whether a patient's masks, and so many doses, are in the store.

    Of an excerpt they may not be; see `cohort.excerpt`.
    """
    excerpt = self.metadata.excerpt
    return excerpt is None or (
      self.patients[patient].id in excerpt.patients and plans <= excerpt.plans
    )

  def _require(self, patient: int, plans: int = 0) -> None:
    excerpt = self.metadata.excerpt
    if excerpt is None or self.holds(patient, plans):
      return
    what = 'not so many doses' if self.holds(patient) else 'no masks'
    raise errors.CohortError(
      f'{self.path} is an excerpt of a cohort, with {what} of '
      f'{self.patients[patient].id}: it has masks, and {excerpt.plans} doses '
      f'each, of {", ".join(excerpt.patients)}'
    )

  def _check(self, patient: int, plan: int) -> None:
    # TensorStore would notice at the read only, and in other words.
    if not 0 <= patient < len(self.patients):
      raise IndexError(f'{self.path} has no patient {patient}')
    if not 0 <= plan < self.patients[patient].plans:
      raise IndexError(f'{self.patients[patient].id} has no plan {plan}')

  def _patient(self, key: tuple[int, ...]) -> str:
    return f' of patient {self.patients[key[0]].id}'

  def _plan(self, key: tuple[int, ...]) -> str:
    return f' of patient {self.patients[key[0]].id}, plan {key[1]}'

  def _read(
    self,
    name: str,
    keys: Sequence[tuple[int, ...]],
    describe: Callable[[tuple[int, ...]], str],
  ) -> list[np.ndarray]:
    # All reads are under way before the first is waited for.
    futures = [self._arrays[name][key].read() for key in keys]
    read = []
    for key, future in zip(keys, futures):
      try:
        read.append(np.asarray(future.result()))
      except place.UNREAD as error:
        text = f'{self.path}/{name}{describe(key)}'
        if place.is_url(self.path):
          text = place.not_read(text, error)
        elif not os.path.exists(os.path.join(self.path, METADATA)):
          text = f'{self.path} is gone, which was read from: bring it back'
        else:
          text += (
            f' is damaged or missing; dvhflax validate {self.path} lists all '
            'faults'
          )
        raise errors.CohortError(text) from None
    return read


def _digest(values: Any) -> str:
  text = json.dumps(values, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _half_written(path: str) -> str:
  done, total = written(path)
  return (
    f'{path} is half-written, {done} of {total or "unknown"} patients: run the '
    'same command with its --config again to resume the build'
  )
