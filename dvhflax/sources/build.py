"""Builds the cohort that a configuration names; a killed build resumes.

Several processes or hosts may share the work: one that is started while
another builds takes the patients not yet taken; `--shard=i/n` shares them
out beforehand; an engine, see `engines`, maps over them elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import enum
import os
import sys
import time
from typing import Any, Protocol

import ml_collections
import tqdm

from dvhflax import config as config_lib
from dvhflax import errors, locks
from dvhflax.cohort import place
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.writer import (
  CohortWriter,
  lock_path,
  remove_locks,
  written,
)
from dvhflax.io.formats import FORMATS
from dvhflax.models.pooling import pooling_plan
from dvhflax.normalisation import Kind, Normalisation, renormalised
from dvhflax.patient import Patient, Structure
from dvhflax.sources.engines import HERE, Engine
from dvhflax.sources.imported import Imported
from dvhflax.sources.openkbp import OpenKBP
from dvhflax.sources.planned import Planned, Stored
from dvhflax.sources.simulated import Simulated
from dvhflax.sources.splits import split_patients

# What others do is looked at so often.
_LOOK_S = 0.5
# Faults named in an error; each was printed as it came.
_NAMED = 3


class Source(Protocol):
  """Patients that a cohort is built from.

  `splits`, of each patient, and `ct`, whether CTs are kept whatever the config
  says, are optional.
  """

  @property
  def structures(self) -> Sequence[Structure]:
    """The mask channels, in order."""

  @property
  def ids(self) -> Sequence[str]:
    """Of the patients."""

  @property
  def max_plans(self) -> int:
    """The most that a patient has."""

  @property
  def provenance(self) -> dict[str, Any]:
    """JSON-serialisable; equal for equal patients."""

  def read(self, index: int) -> Patient:
    """The patient of `ids[index]`."""


def _imported(
  config: ml_collections.ConfigDict, shard: tuple[int, int], engine: Engine
) -> Imported:
  gy = config_lib.protocol(config).prescription_gy
  to_plan_gy = gy if config.cohort.plans else None
  return Imported(config.cohort, to_plan_gy, shard, engine)


_SOURCES: dict[
  str,
  Callable[[ml_collections.ConfigDict, tuple[int, int], Engine], Source],
] = {
  'simulated': lambda config, *_: Simulated(config),
  'openkbp': lambda config, *how: OpenKBP(config.cohort, *how),
  **dict.fromkeys(FORMATS, _imported),
  'store': lambda config, *_: Stored(config.cohort),
}


def _normalisation(config: ml_collections.ConfigDict) -> Normalisation:
  """That of the cohort to build; its coverage is measured on the plans."""
  if config.cohort.normalisation == 'prescription':
    return Normalisation('prescription')
  percent = config_lib.protocol(config).coverage_percent
  return Normalisation('target_mean', percent)


def build_cohort(
  config: ml_collections.ConfigDict,
  shard: tuple[int, int] = (0, 1),
  source: Source | None = None,
  engine: Engine = HERE,
) -> bool:
  """Builds, or resumes building, the cohort at `config.cohort.path`.

  A patient that cannot be built does not stop the others, and is named in the
  error at the end.

  Args:
    config: see `config/defaults.py`.
    shard: (i, n), write patients i, i + n, i + 2n, ... only.
    source: patients with plans, such as `Simulated(config, site)`; None: those
      of `cohort.source`, planned if `cohort.plans` says so.
    engine: maps over the patients; the store is the same whatever it is.

  Returns:
    Whether the cohort is now complete.

  Raises:
    ConfigError: for an impossible request.
    CohortError: for faulty source files, or a half-built cohort of others.
    PlanningError: for a patient that cannot be planned.
  """
  config_lib.validate(config)
  if place.is_url(config.cohort.path):
    raise errors.ConfigError(
      f'cohort.path={config.cohort.path}: a cohort is built in a folder: name '
      'one, and copy the finished cohort there'
    )
  if not engine.here:
    config = _absolute(config)
  cohort = config.cohort
  existed = os.path.exists(cohort.path)
  pooling_plan(cohort.grid)
  if source is None:
    source = _SOURCES[cohort.source](config, shard, engine)
    if cohort.plans and cohort.source != 'simulated':
      source = Planned(source, config)
  splits = getattr(source, 'splits', None) or split_patients(
    len(source.ids),
    cohort.validation_patients,
    cohort.test_patients,
    cohort.seed,
  )
  held_out = cohort.validation_patients + cohort.test_patients
  if 'train' not in splits:
    raise errors.ConfigError(
      f'{len(source.ids)} patients leave no training patients after {held_out} '
      'for cohort.validation_patients and cohort.test_patients'
    )
  try:
    writer = CohortWriter(
      cohort.path,
      structures=source.structures,
      grid=tuple(cohort.grid),
      dvh=config_lib.dvh_spec(config),
      max_plans=source.max_plans,
      patient_ids=source.ids,
      splits=splits,
      provenance=source.provenance,
      dose_dtype=cohort.dose_dtype,
      ct=cohort.ct or getattr(source, 'ct', False),
      normalisation=_normalisation(config),
    )
  except errors.CohortError:
    if os.path.exists(cohort.path) and not existed:
      return True  # Another process came first.
    raise
  mine = [i for i in writer.missing() if i % shard[1] == shard[0]]
  work = _Work(source, writer, cohort.normalisation)
  faults = _build(work, mine, engine, cohort.path)
  complete = writer.finish()
  # Unless another process has built them meanwhile.
  if faults and not complete:
    raise _summed(faults, len(mine))
  return complete


def _absolute(
  config: ml_collections.ConfigDict,
) -> ml_collections.ConfigDict:
  """With paths that mean the same in another working directory."""
  config = config.copy_and_resolve_references()
  config.cohort.path = os.path.abspath(config.cohort.path)
  if config.cohort.raw and not place.is_url(config.cohort.raw):
    config.cohort.raw = os.path.abspath(config.cohort.raw)
  return config


class _Had(enum.Enum):
  """What there is of a patient that this process is not to write."""

  WRITTEN = enum.auto()
  CLAIMED = enum.auto()


@dataclasses.dataclass(frozen=True)
class _Work:
  """What is done to each patient, wherever that is."""

  source: Source
  writer: CohortWriter
  normalisation: Kind

  def read(self, index: int) -> _Had | tuple[int, locks.Lock, Patient]:
    """The patient and its claim, unless another process writes it."""
    claim = self.writer.claim(index)
    if claim is None:
      return _Had.CLAIMED if self.writer.lacks(index) else _Had.WRITTEN
    try:
      patient = renormalised(
        self.source.read(index), self.normalisation, self.source.structures
      )
    except BaseException:
      claim.release()
      raise
    return index, claim, patient

  def write(self, read: _Had | tuple[int, locks.Lock, Patient]) -> _Had:
    """Writes what `read` gave."""
    if isinstance(read, _Had):
      return read
    index, claim, patient = read
    with claim:
      self.writer.write(index, patient)
    return _Had.WRITTEN


def _build(
  work: _Work, indices: Sequence[int], engine: Engine, path: str
) -> list[errors.UserError]:
  """Builds patients; returns the errors of those that cannot be.

  Those that other processes have at first are waited for, and taken over if
  these do not end them.
  """
  faults: list[errors.UserError] = []
  waiting = list(indices)
  shared = False
  bar = tqdm.tqdm(
    total=len(waiting),
    desc=f'building {path}',
    unit='patient',
    file=sys.stderr,
  )
  with bar:
    while waiting:
      others = []
      for n, result in engine.map(work.read, work.write, waiting):
        if result is _Had.CLAIMED:
          others.append(waiting[n])
          continue
        if isinstance(result, errors.UserError):
          fault = _named(result, work.source.ids[waiting[n]])
          bar.write(f'not built: {fault}', file=sys.stderr)
          faults.append(fault)
        bar.update()
      waiting = sorted(others)
      if waiting:
        if not shared:
          bar.write(
            f'another process builds {path} too: the patients are shared',
            file=sys.stderr,
          )
          shared = True
        time.sleep(_LOOK_S)
  return faults


def _named(fault: errors.UserError, patient: str) -> errors.UserError:
  """An error that says which patient it is of."""
  text = str(fault)
  return fault if patient in text else type(fault)(f'patient {patient}: {text}')


def _summed(
  faults: Sequence[errors.UserError], patients: int
) -> errors.UserError:
  """One error of all faults."""
  if len(faults) == patients == 1:
    return faults[0]
  text = '; '.join(map(str, faults[:_NAMED]))
  return type(faults[0])(
    f'{len(faults)} of {patients} patients not built, the others are kept: '
    f'{text}' + ('; ...' if len(faults) > _NAMED else '')
  )


def open_or_build_cohort(config: ml_collections.ConfigDict) -> Cohort:
  """The cohort of a configuration, built first if there is none.

  Of several processes that ask for it at once, one builds, and the others
  wait.

  Args:
    config: such as `config.default()`; `config.cohort` says what to build.

  Raises:
    ConfigError: for an impossible request.
    CohortError: for faulty source files, or if the cohort at
      `config.cohort.path` is not as configured.
    PlanningError: for a patient that cannot be planned.
  """
  config_lib.validate(config)
  path = config.cohort.path
  if not place.is_url(path):
    if not os.path.exists(path):
      with _only_builder(path) as alone:
        if not os.path.exists(path):
          assert alone
          build_cohort(config)
    remove_locks(path)
  return open_checked(config)


@contextlib.contextmanager
def _only_builder(path: str) -> Iterator[bool]:
  """Waits until the cohort is there, or no other process builds it."""
  name = lock_path(path, 'build')
  bar = None
  while (lock := locks.try_lock(name)) is None and not os.path.exists(path):
    if bar is None:
      bar = tqdm.tqdm(
        desc=f'waiting for {path}, which another process builds',
        unit='patient',
        file=sys.stderr,
      )
    if (bar.n, bar.total) != (now := written(path)):
      bar.n, bar.total = now
      bar.refresh()
    time.sleep(_LOOK_S)
  if bar is not None:
    bar.close()
  try:
    yield lock is not None
  finally:
    if lock is not None:
      lock.release()


def open_checked(config: ml_collections.ConfigDict) -> Cohort:
  """The cohort of a configuration; raises as `require_fit`."""
  cohort = Cohort.open(config.cohort.path)
  require_fit(cohort, config)
  return cohort


def require_fit(cohort: Cohort, config: ml_collections.ConfigDict) -> None:
  """Compares a cohort with what a configuration asks for.

  Raises:
    CohortError: if its grid, its DVH vector, its normalisation or the precision
      of its doses are others than configured.
  """
  if tuple(cohort.grid) != tuple(config.cohort.grid):
    raise errors.CohortError(
      f'{cohort.path} has grid {tuple(cohort.grid)}, but cohort.grid '
      f'is {tuple(config.cohort.grid)}: change one, or name another '
      'cohort.path to build anew'
    )
  if cohort.dvh_spec != config_lib.dvh_spec(config):
    raise errors.CohortError(
      f'{cohort.path} has {cohort.dvh_spec}, but the configuration '
      f'asks for {config_lib.dvh_spec(config)}'
    )
  if cohort.normalisation.kind != config.cohort.normalisation:
    raise errors.CohortError(
      f'{cohort.path} has doses in fractions of the '
      f'{cohort.normalisation.kind}, but cohort.normalisation is '
      f'{config.cohort.normalisation!r}: change that, or name another '
      'cohort.path to build anew'
    )
  wanted = config.cohort.dose_dtype
  if wanted == 'float32' and cohort.metadata.dose_dtype != wanted:
    raise errors.CohortError(
      f'{cohort.path} stores doses as {cohort.metadata.dose_dtype}, but '
      f'cohort.dose_dtype is {wanted}: set it to float16, or name another '
      'cohort.path to build anew'
    )
  if config.cohort.ct and not cohort.metadata.ct:
    raise errors.CohortError(
      f'{cohort.path} was built without CTs, but cohort.ct is True: set '
      'it to False, or name another cohort.path to build anew'
    )
