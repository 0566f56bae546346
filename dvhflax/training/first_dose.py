"""The anatomy-only network whose dose is matched to a wish.

It is a run of its own, in the folder `first_dose` of the workdir: it resumes,
has its own history, and can be evaluated. Its variables become a part of the
network that is trained after it, see `models/conditioning/matched.py`.
"""

import os
from typing import Any

import ml_collections

from dvhflax.models.conditioning import has_matched_dose
from dvhflax.training import runs

_FOLDER = 'first_dose'


def workdir_of(workdir: str) -> str:
  """Where the run lies, within the workdir of the network that it serves."""
  return os.path.join(workdir, _FOLDER)


def needed(config: ml_collections.ConfigDict) -> bool:
  """Whether a configuration's network has a first dose."""
  matched = has_matched_dose(config.model.conditioning)
  return matched and config.model.prior == 'first_dose'


def config_of(
  config: ml_collections.ConfigDict,
) -> ml_collections.ConfigDict:
  """The configuration of its run."""
  first = config.copy_and_resolve_references()
  first.model.conditioning = 'none'
  first.model.prior = 'geometry'
  first.max_steps = config.first_dose.max_steps
  first.epochs = config.first_dose.max_steps
  return first


def variables(workdir: str) -> Any:
  """The trained variables, `{'params': ..., 'batch_stats': ...}`.

  Args:
    workdir: absolute path, of the network that it serves.

  Raises:
    CheckpointError: if it is not there.
  """
  found = runs.restore(workdir_of(workdir))[1]
  return {name: found[name] for name in ('params', 'batch_stats')}
