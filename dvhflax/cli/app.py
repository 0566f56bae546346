"""Opens the page: pull the desired DVH, and the dose follows.

The page is served on this machine alone, and opened in the browser; the
address that is printed holds a token that other users do not have. Patients
are those of the cohort, and your own: drop a folder of DICOM-RT or NIfTI onto
the page. Every step is kept in the folder of the sessions. For research, not
for clinical use.

examples:
  dvhflax app --workdir=runs/small
  dvhflax app --network=prostate
"""

import importlib.util
import os

from absl import flags

from dvhflax import errors


def define() -> None:
  flags.DEFINE_string('workdir', None, 'A training run, its URL, or a bundle.')
  flags.DEFINE_string(
    'network', None, 'Name of a network that comes with dvhflax, in its place.'
  )
  flags.DEFINE_string('cohort', None, 'The cohort store, if it moved.')
  flags.DEFINE_string(
    'anatomy_workdir', None, 'An anatomy-only run, which gives the first dose.'
  )
  flags.DEFINE_string(
    'checkpoint', 'best', '`best`, `latest`, or the number of a saved step.'
  )
  flags.DEFINE_string(
    'sessions',
    None,
    'Folder that keeps sessions and uploads; none: WORKDIR/sessions, of a '
    'bundle or a URL here, sessions/NAME.',
  )
  flags.DEFINE_integer('port', 0, '0: the last one of the folder, or any.')
  flags.DEFINE_boolean('browser', True, 'Whether to open the browser.')


def main() -> None:
  lacking = [
    name
    for name in ('starlette', 'uvicorn', 'websockets')
    if not importlib.util.find_spec(name)
  ]
  if lacking:
    raise errors.UserError(
      f"the page needs {', '.join(lacking)}: pip install 'dvhflax[app]'"
    )
  from dvhflax.app import server
  from dvhflax.cohort import place
  from dvhflax.training.bundle import is_bundle
  from dvhflax.training.pretrained import pretrained
  from dvhflax.training.runs import load_networks

  values = flags.FLAGS
  if bool(values.network) == bool(values.workdir):
    raise errors.UserError(
      'give a run or a bundle, --workdir, or a network that comes with '
      'dvhflax, --network'
    )
  workdir = pretrained(values.network) if values.network else values.workdir
  if not (place.is_url(workdir) or os.path.isdir(workdir)):
    raise errors.CheckpointError(f'there is no run at {workdir}')
  folder = values.sessions
  if not folder and (is_bundle(workdir) or place.is_url(workdir)):
    # A bundle is not written into: it may lie among installed packages.
    name = os.path.basename(os.path.normpath(workdir))
    folder = os.path.join('sessions', name)
  server.serve(
    lambda: load_networks(
      workdir, values.checkpoint, values.cohort, values.anatomy_workdir
    ),
    folder or os.path.join(workdir, 'sessions'),
    port=values.port,
    browser=values.browser,
  )
