"""Makes a bundle of an evaluated run; see `training.bundle`."""

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from dvhflax import errors, files
from dvhflax.checksum import checksum
from dvhflax.cohort import identity
from dvhflax.cohort.excerpt import write_excerpt
from dvhflax.cohort.store import Cohort
from dvhflax.evaluation.predictors import Predict, for_patient, make_predict
from dvhflax.report import model_card
from dvhflax.training import bundle as bundle_lib
from dvhflax.training import remote, runs
from dvhflax.training.checkpoint import Checkpoints

# Wishes a patient that doses are compared for: plans of their own.
_WISHES = 4
# Keys of a configuration that hold paths of the machine of the training.
_PATHS = ('path', 'raw', 'names')


@dataclasses.dataclass(frozen=True)
class Bundled:
  """A bundle that was written.

  Attributes:
    path: of its folder.
    size: of all files together, in bytes.
    change: largest difference of a predicted dose that half precision makes, in
      fractions of the reference.
  """

  path: str
  size: int
  change: float


def make_bundle(
  workdir: str,
  output: str,
  *,
  which: str = 'best',
  cohort_path: str | None = None,
  evaluation: str | None = None,
  patients: int = 3,
  plans: int = 0,
) -> Bundled:
  """Writes a bundle, whole or not at all.

  Args:
    workdir: of a run on simulated patients that was evaluated.
    output: folder to make; its name is that of the bundle.
    which: `best`, `latest` or a saved step.
    cohort_path: cohort store, if it moved since.
    evaluation: folder of that step's evaluation; None: `workdir/evaluation`.
    patients: number of test patients whose masks come along, the first ones.
    plans: number of doses of each of them.

  Raises:
    UserError: if something is missing, or is not to be given away.
  """
  workdir = remote.absolute(workdir)
  remote.require_folder(output, '--output')
  if bundle_lib.is_bundle(workdir):
    raise errors.UserError(f'{workdir} is a bundle already: name a run')
  model, variables, config, cohort, step = runs.load_model(
    workdir, which, cohort_path
  )
  with remote.opened(workdir) as there:
    checkpoints = Checkpoints(there.path)
    data = checkpoints.json(step, 'data')
    checkpoints.close()
  require_simulated(cohort)
  test = cohort.split('test')
  if not 1 <= patients <= len(test) or plans < 0:
    raise errors.UserError(
      f'{patients} patients with {plans} doses each: there are {len(test)} '
      'test patients; take at least 1, and 0 doses or more'
    )
  chosen = test[:patients].tolist()
  summary = _summary(evaluation or os.path.join(workdir, 'evaluation'), step)
  batch_size = config.evaluation.batch_size
  change, compared = largest_change(
    make_predict(model, variables, batch_size),
    make_predict(model, bundle_lib.rounded(variables), batch_size),
    cohort,
    chosen,
  )
  run = {
    'workdir': os.path.basename(workdir),
    'weights_sha256': checksum(variables),
  }
  name = os.path.basename(os.path.abspath(output))
  facts = model_card.Facts(
    name=name,
    run=run['workdir'],
    step=step,
    config=config,
    parameters=sum(x.size for x in jax.tree.leaves(variables['params'])),
    cohort=cohort,
    summary=summary,
    change=change,
    compared=compared,
    patients=tuple(cohort.patients[p].id for p in chosen),
    doses=plans,
  )
  with bundle_lib.making(os.path.abspath(output)) as folder:
    bundle_lib.write_network(folder, variables)
    bundle_lib.write_info(
      folder,
      name=name,
      step=step,
      run=run,
      config=_without_paths(config),
      data=identity.without_place(data),
    )
    write_excerpt(cohort, bundle_lib.cohort_of(folder), chosen, plans)
    files.write_text(
      os.path.join(folder, bundle_lib.CARD), model_card.card(facts)
    )
  size = sum(
    p.stat().st_size for p in pathlib.Path(output).rglob('*') if p.is_file()
  )
  return Bundled(output, size, change)


def largest_change(
  before: Predict, after: Predict, cohort: Cohort, patients: list[int]
) -> tuple[float, int]:
  """Largest difference of two networks' doses, and of how many doses it is.

  Args:
    before, after: networks.
    cohort: of the patients.
    patients: their places; some plans of their own are the wishes.
  """
  largest, number = 0.0, 0
  for p in patients:
    plans = np.linspace(0, cohort.patients[p].plans - 1, _WISHES)
    wishes = cohort.dvh[p, np.unique(plans.astype(int))]
    masks = cohort.masks(p)
    doses = (
      for_patient(predict, cohort, p)(masks, wishes)
      for predict in (before, after)
    )
    for one, other in zip(*doses):
      largest = max(largest, float(np.abs(one - other).max()))
      number += 1
  return largest, number


def require_simulated(cohort: Cohort) -> None:
  """Refuses others, whose masks are not to be given away by mistake.

  Raises:
    CohortError: for a cohort of imported patients, or of unknown origin.
  """
  provenance = cohort.metadata.provenance
  while isinstance(provenance.get('from'), dict):
    provenance = provenance['from']
  if provenance.get('source') != 'simulated':
    raise errors.CohortError(
      f'{cohort.path} is not of simulated patients: a bundle has ids, masks '
      'and DVHs of the cohort, and is made of simulated ones only'
    )


def _summary(folder: str, step: int) -> Mapping[str, Any]:
  """Of the evaluation that the card is to show."""
  path = os.path.join(folder, 'summary.json')
  how = 'run dvhflax evaluate on this checkpoint, or name its --evaluation'
  try:
    summary = json.loads(remote.read_text(folder, 'summary.json'))
    evaluated = summary['step']
    summary['table1'], summary['split'], summary['samples']
  except (OSError, KeyError, TypeError, ValueError):
    raise errors.UserError(
      f'{path} is missing or of another version: {how}'
    ) from None
  if evaluated != step:
    raise errors.UserError(
      f'{path} is of step {evaluated}, the checkpoint of step {step}: {how}'
    )
  return summary


def _without_paths(config: ml_collections.ConfigDict) -> dict[str, Any]:
  values = config.to_dict()
  for key in _PATHS:
    if values['cohort'][key]:
      values['cohort'][key] = os.path.basename(
        os.path.normpath(values['cohort'][key])
      )
  return values
