"""Builds the cohort that a configuration names; a killed build goes on."""

import os

from absl import flags

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.cli import program as cli
from dvhflax.sources.build import build_cohort, open_checked


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
  elif build_cohort(config, _parse_shard(flags.FLAGS.shard)):
    print(f'{config.cohort.path} is complete')
  else:
    print(f'{config.cohort.path}: patients of other shards are missing yet')


if __name__ == '__main__':
  cli.define_config('configs/prostate.py')
  flags.DEFINE_string('shard', '0/1', 'i/n: build every n-th patient from i.')
  cli.run(main)
