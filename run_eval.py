"""Evaluates a trained network: table 1, figures 4 to 6, all samples.

python run_eval.py --workdir=runs/small --anatomy_workdir=runs/anatomy
"""

import os

from absl import flags

from dvhflax import errors
from dvhflax.cli import program as cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'A training run.')
_ANATOMY = flags.DEFINE_string(
  'anatomy_workdir', None, 'An anatomy-only run, for a baseline.'
)
_COHORT = flags.DEFINE_string(
  'cohort', None, 'The cohort store, if it moved since training.'
)
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', 'best', '`best`, `latest`, or the number of a saved step.'
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'Folder for the results; default WORKDIR/evaluation.'
)


def _absolute(path: str | None) -> str | None:
  return None if path is None else os.path.abspath(path)


def main(_):
  if _WORKDIR.value is None:
    raise errors.UserError('--workdir is missing: name a training run')
  from dvhflax.evaluation.evaluate import evaluate

  text = evaluate(
    os.path.abspath(_WORKDIR.value),
    anatomy_workdir=_absolute(_ANATOMY.value),
    cohort_path=_COHORT.value,
    which=_CHECKPOINT.value,
    output=_absolute(_OUTPUT.value),
  )
  print(text)


if __name__ == '__main__':
  cli.run(main)
