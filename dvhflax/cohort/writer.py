"""Writes a cohort store patient by patient; a killed build resumes.

Everything goes to `PATH.building`. A patient's record is written last, whole
or not at all, so what has a record is complete; `finish` renames the folder.
Several processes may write at once, if each claims the patient that it writes.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import json
import os
import re
import socket
from typing import Any, NoReturn

import numpy as np

from dvhflax import dvh as dvh_lib
from dvhflax import errors, files, locks
from dvhflax.cohort import arrays, place
from dvhflax.cohort.schema import SPLITS, CohortMetadata, PatientRecord, read
from dvhflax.normalisation import Normalisation, coverage_gy, highest_target
from dvhflax.patient import LEAST_HU, MOST_HU, Patient, Structure, occupied

METADATA = 'metadata.json'
PLAN = 'build.json'
RECORDS = 'patients'
_PRESCRIPTION = Normalisation('prescription')
_RECORD = re.compile(r'\d{6}\.json')


def building_path(path: str) -> str:
  """Where the cohort of a path lies until it is complete."""
  return os.path.normpath(path) + '.building'


def lock_path(path: str, what: str) -> str:
  """The file beside a cohort's path that one of several builders locks.

  Args:
    path: of the cohort.
    what: they do: `build` it all; `folder`, make or rename the folder;
      `import`, write its report.
  """
  folder, name = os.path.split(os.path.normpath(path))
  os.makedirs(folder or '.', exist_ok=True)
  return os.path.join(folder, f'.{name}.{what}.lock')


def remove_locks(path: str) -> None:
  """Removes the locks that killed builders left beside a finished cohort."""
  for what in ('build', 'folder', 'import'):
    with contextlib.suppress(OSError):
      name = lock_path(path, what)
      if os.path.exists(name) and (lock := locks.try_lock(name)):
        lock.release()


def written(path: str) -> tuple[int, int | None]:
  """Patients of a half-built cohort that are written, and their number."""
  half = building_path(path)
  try:
    names = os.listdir(os.path.join(half, RECORDS))
    done = len([name for name in names if _RECORD.fullmatch(name)])
  except OSError:
    return 0, None
  try:
    with open(os.path.join(half, PLAN)) as file:
      return done, len(json.load(file)['ids'])
  except (OSError, ValueError, KeyError):
    return done, None


class CohortWriter:
  """A cohort under construction."""

  def __init__(
    self,
    path: str,
    *,
    structures: Sequence[Structure],
    grid: tuple[int, int, int],
    dvh: dvh_lib.DVHSpec,
    max_plans: int,
    patient_ids: Sequence[str],
    splits: Sequence[str],
    provenance: dict[str, Any],
    dose_dtype: str = 'float16',
    ct: bool = False,
    normalisation: Normalisation = _PRESCRIPTION,
  ):
    """Begins a cohort, or resumes one of the same description.

    Args:
      path: of the cohort, once complete.
      structures: S structures, in the order of the mask channels.
      grid: voxels along x, y, z.
      dvh: elements of the DVH vectors.
      max_plans: N, the most plans a patient has.
      patient_ids: P unique names.
      splits: `[P]`, each `train`, `validation` or `test`.
      provenance: JSON; what the content follows from.
      dose_dtype: `float16` or `float32`.
      ct: keep the CTs of the patients that have one; without, none is kept.
      normalisation: what the doses are fractions of; its `coverage` follows
        from the plans.

    Raises:
      CohortError: if there is a cohort at the path already, or one half
        built of another description.
    """
    if len(set(patient_ids)) != len(patient_ids):
      raise errors.CohortError('patient ids are not unique')
    if set(splits) - set(SPLITS) or len(splits) != len(patient_ids):
      raise errors.CohortError(f'every patient needs a split of {SPLITS}')
    self._path = path
    self._building = building_path(path)
    self._metadata = CohortMetadata(
      tuple(structures), grid, dvh, max_plans, (), provenance,
      dose_dtype, ct, _described(normalisation),
    )  # fmt: skip
    self._normalisation = normalisation
    self._ids, self._splits = list(patient_ids), list(splits)
    # Not while another process makes a whole cohort of the folder.
    with self._alone():
      if os.path.exists(path):
        raise errors.CohortError(
          f'{path} exists: remove it, or build under another cohort.path'
        )
      os.makedirs(os.path.join(self._building, RECORDS), exist_ok=True)
      self._agree()
      self._arrays = self._open_arrays()

  def _open_arrays(self) -> dict[str, Any]:
    layout = arrays.layout(self._metadata, len(self._ids))
    return {
      name: self._stored(arrays.open_array, self._building, name, *described)
      for name, described in layout.items()
    }

  def _stored(self, write: Callable[..., Any], *arguments: Any) -> Any:
    """What TensorStore does; a StorageError if the disk does not take it."""
    try:
      return write(*arguments)
    except place.UNREAD as error:
      self._require_folder()
      text = errors.storage(errors.plain(str(error), 300))
      raise errors.StorageError(
        f'{self._building} is not written to: {text}'
      ) from error

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, '_arrays': {}}

  def __setstate__(self, state: dict[str, Any]) -> None:
    """On another host: of the same file system, or a ConfigError."""
    self.__dict__.update(state)
    if os.path.isdir(self._building):
      self._arrays = self._open_arrays()
    elif not self.complete:
      raise errors.ConfigError(
        f'{socket.gethostname()} does not see {self._building}: give a '
        'cohort.path that is the same folder on all hosts'
      )

  def _agree(self) -> None:
    """Writes the description, or compares it with the one that is there."""
    plan = json.loads(
      json.dumps(
        {
          **self._metadata.to_json(),
          'ids': self._ids,
          'splits': self._splits,
        }
      )
    )
    path = os.path.join(self._building, PLAN)
    if not os.path.exists(path):
      _write_json(path, plan)
      return
    try:
      with open(path) as file:
        before = json.load(file)
    except ValueError:
      raise errors.CohortError(
        f'{path} is damaged: remove {self._building} to build anew'
      ) from None
    for key in {**plan, **before}:
      if before.get(key) != plan.get(key):
        raise errors.CohortError(
          f'{self._building} was begun with another {key}: resume with '
          'that configuration, or remove that folder'
        )

  def _record_path(self, index: int) -> str:
    return os.path.join(self._building, RECORDS, f'{index:06d}.json')

  @property
  def path(self) -> str:
    """Of the cohort, once complete."""
    return self._path

  @contextlib.contextmanager
  def _alone(self) -> Iterator[None]:
    with locks.held(lock_path(self._path, 'folder')):
      yield

  def claim(self, index: int) -> locks.Lock | None:
    """Takes a patient to write; None if another process has or had it.

    Args:
      index: of the patient.

    Returns:
      What is to be released once the patient is written.
    """
    try:
      lock = locks.try_lock(self._record_path(index) + '.lock')
    except FileNotFoundError:
      if self.complete:
        return None
      self._require_folder()
      raise
    if lock is not None and not self.lacks(index):
      lock.release()
      return None
    return lock

  @property
  def complete(self) -> bool:
    """Whether another process has completed the cohort."""
    return os.path.exists(os.path.join(self._path, METADATA))

  def missing(self) -> list[int]:
    """Indices of the patients that are not yet written."""
    return [i for i in range(len(self._ids)) if self.lacks(i)]

  def lacks(self, index: int) -> bool:
    """Whether a patient is not yet written."""
    # In this order: a folder that is renamed between has no record either.
    return not os.path.exists(self._record_path(index)) and not self.complete

  def write(self, index: int, patient: Patient) -> None:
    """Writes one patient.

    Raises:
      CohortError: if the patient does not fit the cohort, or has a dose that
        is negative or not finite.
      StorageError: if the disk does not take it.
    """
    self._check(index, patient)
    self._require_folder()
    plans = len(patient.dose)
    dose = patient.dose.astype(self._metadata.dose_dtype)
    # Of the dose as stored, so that the store agrees with itself.
    curves = np.stack(
      [
        dvh_lib.dvh_vectors(
          d.astype(np.float32), patient.masks, self._metadata.dvh
        )
        for d in dose
      ]
    )
    written = {'masks': patient.masks, 'dose': dose, 'dvh': curves}
    if self._metadata.ct and patient.ct_hu is not None:
      written['ct'] = patient.ct_hu
    writes = []
    for name, values in written.items():
      target = self._arrays[name][index]
      if name in ('dose', 'dvh'):
        target = target[:plans]
      writes.append(target.write(values))
    for write in writes:
      self._stored(write.result)
    record = PatientRecord(
      id=patient.id,
      split=self._splits[index],
      plans=plans,
      present=tuple(map(bool, patient.present)),
      spacing_mm=patient.spacing_mm,
      prescription_gy=float(patient.prescription_gy),
      reference_gy=tuple(map(float, patient.reference_gy)),
      plan_weights=tuple(tuple(map(float, w)) for w in patient.plan_weights),
      provenance=patient.provenance,
      checksums={
        name: arrays.checksum(values) for name, values in written.items()
      },
      coverage_gy=self._coverage_gy(patient),
    )
    # A record says that all that was written of the cohort is there.
    self._require_folder()
    try:
      _write_json(self._record_path(index), dataclasses.asdict(record))
    except FileNotFoundError:
      self._require_folder()
      raise

  def _require_folder(self) -> None:
    if not os.path.exists(os.path.join(self._building, PLAN)):
      raise errors.StorageError(
        f'{self._building} is gone, which this build was writing to: bring it '
        'back to keep what is built (what may lie there now was begun after '
        'that; remove it), and run the same command again'
      )

  def _check(self, index: int, patient: Patient) -> None:
    grid, structures = self._metadata.grid, self._metadata.structures
    plans = len(patient.dose)

    def refuse(why: str) -> NoReturn:
      raise errors.CohortError(f'patient {patient.id}: {why}')

    if patient.id != self._ids[index]:
      refuse(f"is not {self._ids[index]}, the cohort's patient {index}")
    if patient.masks.shape != (*grid, len(structures)):
      refuse(f'masks {patient.masks.shape}, wanted {(*grid, len(structures))}')
    if patient.masks.dtype != np.uint8 or patient.masks.max() > 1:
      refuse('masks must be uint8, 0 or 1')
    if not 1 <= plans <= self._metadata.max_plans:
      refuse(f'{plans} plans, wanted 1 to {self._metadata.max_plans}')
    if patient.dose.shape[1:] != grid:
      refuse(f'dose {patient.dose.shape}, wanted {(plans, *grid)}')
    if not np.isfinite(patient.dose).all() or patient.dose.min() < 0:
      refuse('a dose is negative or not finite')
    ct_hu = patient.ct_hu
    if ct_hu is not None:
      if ct_hu.shape != tuple(grid) or ct_hu.dtype != np.int16:
        refuse(f'CT {ct_hu.dtype} {ct_hu.shape}, wanted int16 {grid}')
      if ct_hu.min() < LEAST_HU or ct_hu.max() > MOST_HU:
        refuse(f'a CT number is outside of {LEAST_HU} to {MOST_HU} HU')
    if len(patient.reference_gy) != plans or len(patient.plan_weights) != plans:
      refuse('reference_gy and plan_weights need an entry a plan')
    filled = occupied(patient.masks)
    by_prescription = self._normalisation.kind == 'prescription'
    if by_prescription and not np.allclose(
      patient.reference_gy, patient.prescription_gy, rtol=1e-6, atol=0
    ):
      refuse(
        f'reference_gy {np.round(patient.reference_gy, 3).tolist()} are not '
        f'the prescription, {patient.prescription_gy:g} Gy: give doses in '
        "fractions of it, or write with Normalisation('target_mean')"
      )
    for structure, present, some in zip(structures, patient.present, filled):
      if bool(present) != bool(some):
        refuse(f'{structure.name} is {"empty" if present else "not absent"}')
    if not any(o for s, o in zip(structures, filled) if s.role == 'target'):
      refuse('has no target')

  def _coverage_gy(self, patient: Patient) -> tuple[float, ...]:
    if self._normalisation.kind == 'prescription':
      return ()
    target = highest_target(self._metadata.structures, patient.present)
    covered = coverage_gy(
      patient.dose,
      patient.masks[..., target],
      patient.reference_gy,
      self._normalisation.coverage_percent,
    )
    return tuple(map(float, covered))

  def finish(self) -> bool:
    """Makes the cohort readable if every patient is written.

    Returns:
      Whether it is complete.
    """
    with self._alone():
      if self.missing():
        return False
      if not self.complete:
        self._finish()
    return True

  def _finish(self) -> None:
    records = []
    for i in range(len(self._ids)):
      path = self._record_path(i)
      try:
        with open(path) as file:
          values = json.load(file)
      except ValueError:
        raise errors.CohortError(
          f'{path} is damaged: remove it, and run the same command again'
        ) from None
      records.append(read(PatientRecord, values, path))
    metadata = dataclasses.replace(self._metadata, patients=tuple(records))
    path = os.path.join(self._building, METADATA)
    files.write_text(path, metadata.to_text(), durable=True)
    self._remove_leftovers()
    os.rename(self._building, self._path)

  def _remove_leftovers(self) -> None:
    """Removes what killed builders left: files aside, and locks."""
    files.remove_leftovers(self._building)
    files.remove_leftovers(os.path.join(self._building, RECORDS))
    for folder, _, names in os.walk(self._building):
      for name in names:
        # TensorStore's own end so.
        if name.endswith(('.lock', '.__lock')):
          with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))


def _described(normalisation: Normalisation) -> dict[str, Any]:
  """Without the coverage, which the records hold."""
  values = normalisation.to_json()
  values.pop('coverage', None)
  return values


def _write_json(path: str, values: dict[str, Any]) -> None:
  text = json.dumps(values, indent=1)
  files.write_text(path, text, durable=True, make_folder=False)
