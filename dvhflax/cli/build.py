"""Builds the cohort of a configuration; a killed build resumes.

Several processes or hosts may share the work: one that is started while
another builds takes the patients not yet taken. In a Slurm job array, or an
Indexed Job of Kubernetes with JOB_COMPLETIONS set, each builds its share.

examples:
  dvhflax build --config=prostate:small --config.cohort.path=cohorts/mine
  dvhflax build --config=prostate --scheduler=tcp://head:8786
"""

import os

from absl import flags

from dvhflax import errors
from dvhflax.cli import program


def define() -> None:
  program.define_config('prostate')
  flags.DEFINE_string(
    'shard',
    None,
    'i/n: build every n-th patient from i. None: as the job array, or all.',
  )
  flags.DEFINE_string(
    'scheduler',
    None,
    'Build on a Dask cluster: tcp://HOST:PORT, its scheduler file, PATH.json, '
    'or local:N, N processes of this machine.',
  )


def main() -> None:
  from dvhflax import config as config_lib
  from dvhflax.cli import shard as shards
  from dvhflax.cohort.writer import remove_locks
  from dvhflax.sources.build import build_cohort, open_checked

  config = flags.FLAGS.config
  scheduler = flags.FLAGS.scheduler
  config_lib.validate(config)
  if scheduler and flags.FLAGS.shard:
    raise errors.UserError(
      '--shard and --scheduler: give one of the two, the scheduler shares out '
      'the patients'
    )
  share = shards.Shard()
  if not scheduler:
    share = shards.find(flags.FLAGS.shard, os.environ)
    if share.told_by:
      print(share.words, flush=True)
  if os.path.exists(config.cohort.path):
    open_checked(config)
    remove_locks(config.cohort.path)
    print(f'{config.cohort.path} is complete already')
    return
  if scheduler:
    from dvhflax.cli import compiled
    from dvhflax.sources.dask_engine import Dask

    with Dask(scheduler, compiled.keep) as engine:
      print(engine.words, flush=True)
      complete = build_cohort(config, engine=engine)
  else:
    complete = build_cohort(config, (share.index, share.count))
  if complete:
    print(f'{config.cohort.path} is complete')
  else:
    print(f'{config.cohort.path}: patients of other shards are still missing')
