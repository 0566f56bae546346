"""Builds the cohort of a configuration; a killed build resumes.

Several processes or hosts may share the work: one that is started while
another builds takes the patients not yet taken.

example:
  dvhflax build --config=prostate:small --config.cohort.path=cohorts/mine
"""

import os

from absl import flags

from dvhflax import errors
from dvhflax.cli import program


def define() -> None:
  program.define_config('prostate')
  flags.DEFINE_string('shard', '0/1', 'i/n: build every n-th patient from i.')


def main() -> None:
  from dvhflax import config as config_lib
  from dvhflax.sources.build import build_cohort, open_checked

  config = flags.FLAGS.config
  config_lib.validate(config)
  if os.path.exists(config.cohort.path):
    open_checked(config)
    print(f'{config.cohort.path} is complete already')
  elif build_cohort(config, _parse_shard(flags.FLAGS.shard)):
    print(f'{config.cohort.path} is complete')
  else:
    print(f'{config.cohort.path}: patients of other shards are still missing')


def _parse_shard(text: str) -> tuple[int, int]:
  try:
    i, n = map(int, text.split('/'))
  except ValueError:
    i, n = -1, 0
  if not 0 <= i < n:
    raise errors.ConfigError(f'--shard={text}: use i/n with 0 <= i < n')
  return i, n
