"""Makes a bundle of a run: a folder to give away, read like a run.

It has the network in half precision, a few test patients, all that a prediction
needs of the cohort, and a model card with the results of `dvhflax evaluate`,
which has to come first. For runs on simulated patients.

example:
  dvhflax bundle --workdir=runs/small --output=bundles/small
"""

from absl import flags

from dvhflax import errors


def define() -> None:
  flags.DEFINE_string(
    'workdir', None, 'A training run that was evaluated, or its URL.'
  )
  flags.DEFINE_string('output', None, 'Folder to make, named as the bundle.')
  flags.DEFINE_integer('patients', 3, 'Test patients whose masks come along.')
  flags.DEFINE_integer('plans', 0, 'Doses of each of them that come along.')
  flags.DEFINE_string(
    'checkpoint', 'best', '`best`, `latest`, or the number of a saved step.'
  )
  flags.DEFINE_string(
    'evaluation', None, "Its evaluation's folder; none: WORKDIR/evaluation."
  )
  flags.DEFINE_string(
    'cohort', None, 'The cohort store, if it moved since training.'
  )


def main() -> None:
  values = flags.FLAGS
  if not values.workdir or not values.output:
    raise errors.UserError(
      'say which run and which folder: --workdir, --output'
    )
  from dvhflax.evaluation.bundling import make_bundle

  done = make_bundle(
    values.workdir,
    values.output,
    which=values.checkpoint,
    cohort_path=values.cohort,
    evaluation=values.evaluation,
    patients=values.patients,
    plans=values.plans,
  )
  print(
    f'half precision changes doses by at most {done.change:.2g} of what 1.0 '
    f'stands for\nwritten to {done.path}: {done.size / 1e6:.1f} MB'
  )
