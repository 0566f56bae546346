"""The configuration that a checkpoint holds, as the code of today has it."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.config import rules as config_rules
from dvhflax.sites import PROSTATE

# The keys that came after the first checkpoints, in the order in which they
# came, each with what the code did before there was it. A key that is new goes
# to the end, so that older runs can still be restored.
LATER: tuple[dict[str, Any], ...] = (
  {'loss.structure_weight': 0.0},
  {'loss.mean_dose_weight': 0.0, 'data.mirrored_share': 0.0},
  {'model.beams': 0},
  # `remat` is about memory: the numbers are the same with it and without.
  {'batch_parts': 1, 'model.remat': True, 'data.placement': 'auto'},
  {
    'cohort.structures': ('body', 'bladder', 'rectum', 'PTV'),
    'cohort.names': None,
    'cohort.prescription_gy': None,
    'cohort.sum_beams': False,
  },
  {'cohort.ct': False},
  {'cohort.replace_plans': False, 'planning': PROSTATE.protocol.to_dict()},
  # Of simulated patients; `_what_was_before` has the others'.
  {
    'cohort.normalisation': 'target_mean',
    'cohort.contour_ends': 'half_slice',
    'cohort.sum_fractions': False,
    'cohort.sum_plans': False,
    'cohort.dose_dtype': 'float16',
  },
  {'cohort.held_out_plans': 0},
  {'model.prior': 'geometry', 'model.patch': 1, 'first_dose.max_steps': 300},
  # An evaluation has the numbers it had, and these beside them.
  {
    'evaluation.split': 'test',
    'evaluation.label_plans': 10,
    'evaluation.obedience_wishes': 36,
    'evaluation.mimicked': 0,
  },
  # Of runs without own wishes; `_what_was_before` has the others'.
  {
    'data.bent_wish_share': 0.0,
    'data.validation_own_wish_share': 0.0,
    'data.validation_bent_wish_share': 0.0,
    'evaluation.own_wish_share': 0.0,
    'evaluation.bent_wish_share': 0.0,
  },
  {
    'optimizer.schedule': 'inverse_time',
    'optimizer.warmup_steps': 0,
    'optimizer.clip_norm': 0.0,
    'optimizer.average': 0.0,
    'loss.max_dose_weight': 0.0,
  },
  {'loss.gradient_weight': 0.0},
  {'model.smoothing': False},
)
# Keys that are no more and that changed no number.
_FORMER = frozenset({'data.in_memory'})


def read(saved: Mapping[str, Any]) -> ml_collections.ConfigDict:
  """A configuration that was saved with a run, complete and of today's types.

  Keys that are newer than the run get what the code did before there were
  these. A key that is missing while newer ones are there was lost: what it was
  cannot be known, and a guess would change the prediction.

  Args:
    saved: the checkpoint's `config` item.

  Raises:
    ConfigError: for a key that is lost, unknown or impossible.
  """
  if not isinstance(saved, Mapping):
    raise errors.ConfigError(f'the configuration is {errors.shown(saved)}')
  config = config_lib.default()
  flat = _flatten(saved)
  for key in _FORMER:
    flat.pop(key, None)
  flat = _what_was_before(flat) | flat
  if 'planning' not in flat:
    raise errors.ConfigError('missing configuration key: planning')
  config.planning = _planning(flat.pop('planning'))
  config_rules.check_keys(flat)
  config_rules.check_values(flat)
  for key, value in flat.items():
    group, _, name = key.rpartition('.')
    part = config[group] if group else config
    part[name] = tuple(value) if isinstance(value, list) else value
  return config


def _planning(saved: Any) -> ml_collections.ConfigDict:
  config_rules.check_planning(saved)
  try:
    return ml_collections.ConfigDict(saved)
  except (TypeError, ValueError) as error:
    raise errors.ConfigError(f'planning: {error}') from None


def _flatten(saved: Mapping[str, Any]) -> dict[str, Any]:
  """`{'model.norm': 'batch', ...}`, `planning` in one piece."""
  flat: dict[str, Any] = {}
  for name, value in saved.items():
    if isinstance(value, Mapping) and name != 'planning':
      flat.update({f'{name}.{key}': one for key, one in value.items()})
    else:
      flat[str(name)] = value
  return flat


def _what_was_before(flat: Mapping[str, Any]) -> dict[str, Any]:
  """The values of keys that are newer than all of a saved configuration."""
  before: dict[str, Any] = {}
  for keys in reversed(LATER):
    if keys.keys() & flat.keys():
      break
    before |= keys
  # All the imports that there were then.
  imported = flat.get('cohort.source') in ('openkbp', 'dicom', 'nifti')
  if imported and 'cohort.normalisation' in before:
    before['cohort.normalisation'] = 'prescription'
  # The share of training ruled validation and evaluation too.
  for key in ('data.validation_own_wish_share', 'evaluation.own_wish_share'):
    if key in before and 'data.own_wish_share' in flat:
      before[key] = flat['data.own_wish_share']
  return before
