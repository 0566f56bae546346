"""Builds the cohort that a configuration names; a killed build resumes.

Several processes or hosts may share the work: one that is started while
another builds takes the patients not yet taken; `--shard=i/n` shares them
out beforehand.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
import contextlib
import os
import sys
import time
from typing import Any, Protocol

import ml_collections
import tqdm

from dvhflax import config as config_lib
from dvhflax import errors, locks
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.writer import CohortWriter, lock_path, written
from dvhflax.io.formats import FORMATS
from dvhflax.models.pooling import pooling_plan
from dvhflax.normalisation import Normalisation, renormalised
from dvhflax.patient import Patient, Structure
from dvhflax.sources.imported import Imported
from dvhflax.sources.openkbp import OpenKBP
from dvhflax.sources.planned import Planned, Stored
from dvhflax.sources.simulated import Simulated
from dvhflax.sources.splits import split_patients

# What others do is looked at so often.
_LOOK_S = 0.5


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
  config: ml_collections.ConfigDict, shard: tuple[int, int]
) -> Imported:
  gy = config_lib.protocol(config).prescription_gy
  return Imported(config.cohort, gy if config.cohort.plans else None, shard)


_SOURCES: dict[
  str, Callable[[ml_collections.ConfigDict, tuple[int, int]], Source]
] = {
  'simulated': lambda config, _: Simulated(config),
  'openkbp': lambda config, shard: OpenKBP(config.cohort, shard),
  **dict.fromkeys(FORMATS, _imported),
  'store': lambda config, _: Stored(config.cohort),
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
) -> bool:
  """Builds, or resumes building, the cohort at `config.cohort.path`.

  Args:
    config: see `config/defaults.py`.
    shard: (i, n), write patients i, i + n, i + 2n, ... only.
    source: patients with plans, such as `Simulated(config, site)`; None: those
      of `cohort.source`, planned if `cohort.plans` says so.

  Returns:
    Whether the cohort is now complete.

  Raises:
    ConfigError: for an impossible request.
    CohortError: for faulty source files, or a half-built cohort of others.
    PlanningError: for a patient that cannot be planned.
  """
  config_lib.validate(config)
  cohort = config.cohort
  existed = os.path.exists(cohort.path)
  pooling_plan(cohort.grid)
  if source is None:
    source = _SOURCES[cohort.source](config, shard)
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
  bar = tqdm.tqdm(
    total=len(mine),
    desc=f'building {cohort.path}',
    unit='patient',
    file=sys.stderr,
  )
  # A patient is written while the next one is read or planned; on an error
  # what is being written is still finished.
  with bar, futures.ThreadPoolExecutor(1) as pool:
    writing = pool.submit(lambda: None)
    for i, claim in _claimed(writer, mine, bar):
      try:
        patient = renormalised(
          source.read(i), cohort.normalisation, source.structures
        )
        writing.result()
      except BaseException:
        claim.release()
        raise
      writing = pool.submit(_write, writer, i, patient, claim)
    writing.result()
  return writer.finish()


def _write(
  writer: CohortWriter, index: int, patient: Any, claim: locks.Lock
) -> None:
  with claim:
    writer.write(index, patient)


def _claimed(
  writer: CohortWriter, indices: Iterable[int], bar: tqdm.tqdm
) -> Iterator[tuple[int, locks.Lock]]:
  """The patients that this process is to write, each with its claim.

  Those that other processes have at first are waited for, and taken over if
  these do not end them.
  """
  waiting = list(indices)
  shared = False
  while waiting:
    others = []
    for i in waiting:
      claim = writer.claim(i)
      if claim is not None:
        yield i, claim
        bar.update()
      elif writer.lacks(i):
        others.append(i)
      else:
        bar.update()
    waiting = others
    if waiting:
      if not shared:
        bar.write(
          f'another process builds {writer.path} too: the patients are shared',
          file=sys.stderr,
        )
        shared = True
      time.sleep(_LOOK_S)


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
  if not os.path.exists(path):
    with _only_builder(path) as alone:
      if not os.path.exists(path):
        assert alone
        build_cohort(config)
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
