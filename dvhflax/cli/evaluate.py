"""Evaluates a trained network: table 1, obedience, figures, samples.

The baselines are the same network with shuffled wishes, the mean dose of the
training plans and an anatomy-only network: that of --anatomy_workdir, or the
one within a run with model.prior='first_dose'.

example:
  dvhflax evaluate --workdir=runs/small --anatomy_workdir=runs/anatomy
"""

import contextlib

from absl import flags

from dvhflax import errors


def define() -> None:
  flags.DEFINE_string('workdir', None, 'A training run, or its URL.')
  flags.DEFINE_string(
    'anatomy_workdir', None, 'An anatomy-only run, for a baseline.'
  )
  flags.DEFINE_string(
    'cohort', None, 'The cohort store, if it moved since training.'
  )
  flags.DEFINE_string(
    'checkpoint', 'best', '`best`, `latest`, or the number of a saved step.'
  )
  flags.DEFINE_string(
    'output',
    None,
    'Folder for the results; none: WORKDIR/evaluation, of validation patients '
    'WORKDIR/evaluation_validation.',
  )
  flags.DEFINE_string(
    'split', None, "`test` or `validation` patients; none: the run's setting."
  )
  flags.DEFINE_integer(
    'mimicked',
    None,
    'Predictions to compare with the closest deliverable dose, seconds each; '
    "none: the run's setting.",
  )
  flags.DEFINE_string(
    'scheduler',
    None,
    'Evaluate on a Dask cluster: tcp://HOST:PORT, its scheduler file, '
    'PATH.json, or local:N, N processes of this machine.',
  )


def main() -> None:
  values = flags.FLAGS
  if values.workdir is None:
    raise errors.UserError('--workdir is missing: name a training run')
  from dvhflax.evaluation.evaluate import evaluate
  from dvhflax.sources.engines import HERE, Engine

  with contextlib.ExitStack() as stack:
    engine: Engine = HERE
    if values.scheduler:
      from dvhflax.cli import compiled
      from dvhflax.sources.dask_engine import Dask

      engine = dask = stack.enter_context(Dask(values.scheduler, compiled.keep))
      print(dask.words, flush=True)
    text = evaluate(
      values.workdir,
      anatomy_workdir=values.anatomy_workdir,
      cohort_path=values.cohort,
      which=values.checkpoint,
      output=values.output,
      split=values.split,
      mimicked=values.mimicked,
      engine=engine,
    )
  print(text)
