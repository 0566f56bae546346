"""Trains a network, or resumes a training that was stopped.

The cohort of the configuration is built first if there is none. The same
command again resumes from the last checkpoint.

example:
  dvhflax train --config=prostate:small --workdir=runs/small
"""

import sys

from absl import flags

from dvhflax import errors
from dvhflax.cli import program


def define() -> None:
  program.define_config('prostate')
  flags.DEFINE_string(
    'workdir',
    'runs/prostate',
    'Checkpoints and losses, a folder or a URL; resumed if it exists.',
  )
  flags.DEFINE_bool('distributed', False, 'Several processes train together.')
  flags.DEFINE_string(
    'coordinator', None, 'host:port of process 0; none: from the cluster.'
  )
  flags.DEFINE_integer(
    'num_processes', None, 'Number of processes; none: from the cluster.'
  )
  flags.DEFINE_integer(
    'process_id', None, 'This process, from 0; none: from the cluster.'
  )


def main() -> None:
  from dvhflax import config as config_lib
  from dvhflax.training import parallel, partners

  values = flags.FLAGS
  config_lib.validate(values.config)
  if values.distributed:
    parallel.initialize(
      values.coordinator, values.num_processes, values.process_id
    )
  else:
    for name in ('coordinator', 'num_processes', 'process_id'):
      if values[name].present:
        raise errors.UserError(f'--{name} needs --distributed: add it')
  from dvhflax.training import checkpoint, remote
  from dvhflax.training.resuming import open_cohort
  from dvhflax.training.train import train

  checkpoint.quiet()
  workdir = remote.absolute(values.workdir)
  with partners.parting():
    try:
      train(values.config, open_cohort(values.config, workdir), workdir)
    except errors.Interrupted as stopped:
      print(stopped, flush=True)
      sys.exit(128 + stopped.signal)
