"""Trains a dose prediction network.

python run_train.py --config=configs/prostate.py:small
"""

import os
import sys

from absl import flags

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.cli import program as cli
from dvhflax.training import parallel, partners

cli.define_config('configs/prostate.py')
_WORKDIR = flags.DEFINE_string(
  'workdir', 'runs/prostate', 'Checkpoints and losses; resumed if it exists.'
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'Several processes train together.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'host:port of process 0; none: from the cluster.'
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'Number of processes; none: from the cluster.'
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'This process, from 0; none: from the cluster.'
)


def main(_):
  config = flags.FLAGS.config
  config_lib.validate(config)
  if _DISTRIBUTED.value:
    parallel.initialize(
      _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
  from dvhflax.training import checkpoint
  from dvhflax.training.resuming import open_cohort
  from dvhflax.training.train import train

  checkpoint.quiet()
  workdir = os.path.abspath(_WORKDIR.value)
  with partners.parting():
    try:
      train(config, open_cohort(config, workdir), workdir)
    except errors.Interrupted as stopped:
      print(stopped, flush=True)
      sys.exit(128 + stopped.signal)


if __name__ == '__main__':
  cli.run(main)
