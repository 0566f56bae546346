"""Builds the cohort that a configuration names; a killed build goes on.

  python -m dvhflax.cohort.build --config=configs/prostate.py

Several processes or hosts may share the work: give each `--shard=i/n`.
"""

from collections.abc import Callable
from concurrent import futures
import os
import sys
from typing import Any

from absl import flags
import ml_collections
from ml_collections import config_flags
import tqdm

from dvhflax import cli, errors
from dvhflax import config as config_lib
from dvhflax.cohort.challenge import OpenKBP
from dvhflax.cohort.imported import Imported
from dvhflax.cohort.planned import Planned, Stored
from dvhflax.cohort.splits import split_patients
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.writer import CohortWriter
from dvhflax.models.unet import pooling_plan
from dvhflax.patient import Structure
from dvhflax.planning.simulate import simulate_patient

PROSTATE_STRUCTURES = (
  Structure('body', 'body'),
  Structure('bladder', 'oar'),
  Structure('rectum', 'oar'),
  Structure('PTV', 'target'),
)


class _Simulated:
  """Patients sampled and planned here."""

  structures = PROSTATE_STRUCTURES

  def __init__(self, config: ml_collections.ConfigDict):
    self._cohort = cohort = config.cohort
    self._protocol = config_lib.protocol(config)
    self.ids = [f'sim-{i:04d}' for i in range(cohort.patients)]
    self.max_plans = cohort.plans
    self.provenance = {
      'source': 'simulated',
      'seed': cohort.seed,
      'plans': cohort.plans,
      'patients': cohort.patients,
      'spacing_mm': list(cohort.spacing_mm),
      'protocol': self._protocol.to_dict(),
    }

  def read(self, index: int):
    return simulate_patient(
      self._cohort.seed,
      index,
      grid=tuple(self._cohort.grid),
      spacing_mm=tuple(self._cohort.spacing_mm),
      plans=self._cohort.plans,
      protocol=self._protocol,
    )


def _imported(
  config: ml_collections.ConfigDict, shard: tuple[int, int]
) -> Imported:
  gy = config_lib.protocol(config).prescription_gy
  return Imported(config.cohort, gy if config.cohort.plans else None, shard)


_SOURCES: dict[
  str, Callable[[ml_collections.ConfigDict, tuple[int, int]], Any]
] = {
  'simulated': lambda config, _: _Simulated(config),
  'openkbp': lambda config, shard: OpenKBP(config.cohort, shard),
  'dicom': _imported,
  'nifti': _imported,
  'store': lambda config, _: Stored(config.cohort),
}


def build(
  config: ml_collections.ConfigDict, shard: tuple[int, int] = (0, 1)
) -> bool:
  """Builds, or goes on building, the cohort at `config.cohort.path`.

  Args:
    config: see `config.py`.
    shard: (i, n), write patients i, i + n, i + 2n, ... only.

  Returns:
    Whether the cohort is now complete.

  Raises:
    ConfigError: for an impossible request.
    CohortError: for faulty source files, or a half-built cohort of others.
    PlanningError: for a patient that cannot be planned.
  """
  cohort = config.cohort
  pooling_plan(cohort.grid)
  source = _SOURCES[cohort.source](config, shard)
  if cohort.plans and cohort.source != 'simulated':
    source = Planned(source, config)
  splits = getattr(source, 'splits', None)
  held_out = cohort.validation_patients + cohort.test_patients
  if splits is None and held_out >= len(source.ids):
    raise errors.ConfigError(
      f'{len(source.ids)} patients leave none to train after {held_out} for '
      'cohort.validation_patients and cohort.test_patients'
    )
  writer = CohortWriter(
    cohort.path,
    structures=source.structures,
    grid=tuple(cohort.grid),
    dvh=config_lib.dvh_spec(config),
    max_plans=source.max_plans,
    patient_ids=source.ids,
    splits=splits
    or split_patients(
      len(source.ids),
      cohort.validation_patients,
      cohort.test_patients,
      cohort.seed,
    ),
    provenance=source.provenance,
    dose_dtype=cohort.dose_dtype,
    ct=cohort.ct or getattr(source, 'ct', False),
  )
  missing = [i for i in writer.missing() if i % shard[1] == shard[0]]
  bar = tqdm.tqdm(
    missing, desc=f'building {cohort.path}', unit='patient', file=sys.stderr
  )
  # A patient is written while the next one is read or planned; on an error
  # what is being written is still finished.
  with futures.ThreadPoolExecutor(1) as pool:
    written = pool.submit(lambda: None)
    for i in bar:
      patient = source.read(i)
      written.result()
      written = pool.submit(writer.write, i, patient)
    written.result()
  return writer.finish()


def open_or_build(config: ml_collections.ConfigDict) -> Cohort:
  """The cohort of a configuration, built first if there is none."""
  if not os.path.exists(config.cohort.path):
    build(config)
  return open_checked(config)


def open_checked(config: ml_collections.ConfigDict) -> Cohort:
  """The cohort of a configuration.

  Raises:
    CohortError: if its grid, its DVH vector or the precision of its doses are
      others than configured.
  """
  cohort = Cohort.open(config.cohort.path)
  if tuple(cohort.grid) != tuple(config.cohort.grid):
    raise errors.CohortError(
      f'{config.cohort.path} has grid {tuple(cohort.grid)}, but cohort.grid '
      f'is {tuple(config.cohort.grid)}: change one, or name another '
      'cohort.path to build anew'
    )
  if cohort.dvh_spec != config_lib.dvh_spec(config):
    raise errors.CohortError(
      f'{config.cohort.path} has {cohort.dvh_spec}, but the configuration '
      f'asks for {config_lib.dvh_spec(config)}'
    )
  wanted = config.cohort.dose_dtype
  if wanted == 'float32' and cohort.metadata.dose_dtype != wanted:
    raise errors.CohortError(
      f'{config.cohort.path} stores doses as {cohort.metadata.dose_dtype}, but '
      f'cohort.dose_dtype is {wanted}: set it to float16, or name another '
      'cohort.path to build anew'
    )
  if config.cohort.ct and not cohort.metadata.ct:
    raise errors.CohortError(
      f'{config.cohort.path} was built without CTs, but cohort.ct is True: set '
      'it to False, or name another cohort.path to build anew'
    )
  return cohort


def _parse_shard(text: str) -> tuple[int, int]:
  try:
    i, n = map(int, text.split('/'))
  except ValueError:
    i, n = -1, 0
  if not 0 <= i < n:
    raise errors.ConfigError(f'--shard={text}: use i/n with 0 <= i < n')
  return i, n


def main(_):
  config = flags.FLAGS.config
  config_lib.validate(config)
  if os.path.exists(config.cohort.path):
    open_checked(config)
    print(f'{config.cohort.path} is complete already')
  elif build(config, _parse_shard(flags.FLAGS.shard)):
    print(f'{config.cohort.path} is complete')
  else:
    print(f'{config.cohort.path}: patients of other shards are missing yet')


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', 'configs/prostate.py')
  flags.DEFINE_string('shard', '0/1', 'i/n: build every n-th patient from i.')
  cli.run(main)
