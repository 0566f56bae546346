"""What the fields of a configuration together must be, and what they make.

`rules.py` has the type and range of each.
"""

from typing import Any

import ml_collections

from dvhflax import dvh, errors
from dvhflax.config import rules as config_rules
from dvhflax.models.conditioning import has_matched_dose
from dvhflax.models.pooling import cells_of, pooling_plan
from dvhflax.patient import Structure
from dvhflax.sites.protocol import Protocol

# Of shares that are 1 together.
_ROUNDING = 1e-9


def flatten(
  config: ml_collections.ConfigDict, prefix: str = ''
) -> dict[str, Any]:
  """`{'model.norm': 'batch', ...}`, tuples as lists as JSON gives them."""
  flat = {}
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      flat.update(flatten(value, f'{prefix}{name}.'))
    else:
      flat[prefix + name] = list(value) if isinstance(value, tuple) else value
  return flat


def validate(config: ml_collections.ConfigDict) -> None:
  """Raises a ConfigError that names the first impossible key."""
  if not isinstance(config, ml_collections.ConfigDict):
    raise errors.ConfigError(
      f'the configuration is {errors.shown(config)}: get_config() of its file '
      'must return a ConfigDict, such as dvhflax.config.default()'
    )
  flat = {
    key: value
    for key, value in flatten(config).items()
    if key.partition('.')[0] != 'planning'
  }
  config_rules.check_keys(flat)
  config_rules.check_values(flat)
  pooling_plan(cells_of(config.cohort.grid, config.model.patch))
  _validate_structures(config.cohort.structures)
  if config.cohort.ct and config.cohort.source == 'simulated':
    raise errors.ConfigError(
      'cohort.ct=True: simulated patients have no CT; leave it False, or set '
      'another cohort.source'
    )
  protocol(config)
  _validate_wish_shares(flat)
  if config.cohort.source in ('simulated', 'store') and not config.cohort.plans:
    raise errors.ConfigError(
      f'cohort.plans=0: say how many plans to compute for the patients of '
      f'cohort.source={config.cohort.source}'
    )
  if config.cohort.held_out_plans and not config.cohort.plans:
    raise errors.ConfigError(
      f'cohort.held_out_plans={config.cohort.held_out_plans}: the training '
      'patients are not planned; set cohort.plans too'
    )
  matched = has_matched_dose(config.model.conditioning)
  if config.model.prior == 'first_dose' and not matched:
    raise errors.ConfigError(
      "model.prior='first_dose': model.conditioning="
      f'{config.model.conditioning!r} has no matched dose; use one that has, '
      "such as 'film+matched'"
    )
  held_out = config.cohort.validation_patients + config.cohort.test_patients
  if config.cohort.source == 'simulated' and (
    held_out >= config.cohort.patients
  ):
    raise errors.ConfigError(
      f'cohort.patients={config.cohort.patients} leaves no training patients '
      f'after {held_out} for validation and test'
    )


def _validate_structures(names: tuple[str, ...]) -> None:
  roles = [Structure.from_name(name).role for name in names]
  if len(set(names)) != len(names):
    raise errors.ConfigError('cohort.structures names one twice')
  if roles.count('body') != 1 or 'target' not in roles:
    raise errors.ConfigError(
      f'cohort.structures={errors.shown(tuple(names))} needs one body and a '
      'target (PTV...)'
    )


def _validate_wish_shares(flat: dict[str, Any]) -> None:
  for group in ('data.', 'data.validation_', 'evaluation.'):
    own, bent = (flat[f'{group}{kind}_wish_share'] for kind in ('own', 'bent'))
    if own + bent > 1 + _ROUNDING:
      raise errors.ConfigError(
        f'{group}own_wish_share={own} and {group}bent_wish_share={bent} are '
        f'{own + bent:g} of the wishes together: use 1 at most'
      )


def protocol(config: ml_collections.ConfigDict) -> Protocol:
  """The planning protocol that a configuration asks for.

  Raises:
    ConfigError: for a key of `planning` that is unknown, missing or impossible.
  """
  planning = config.get('planning')
  if isinstance(planning, ml_collections.ConfigDict):
    planning = planning.to_dict()
  config_rules.check_planning(planning)
  try:
    return Protocol.from_dict(planning)
  except errors.PlanningError as error:
    raise errors.ConfigError(f'planning: {error}') from None


def dvh_spec(config: ml_collections.ConfigDict) -> dvh.DVHSpec:
  """The DVH vector that a configuration asks for."""
  cohort = config.cohort
  return dvh.DVHSpec(
    cohort.dvh_kind, cohort.dvh_points, float(cohort.dvh_max_dose)
  )
