"""What every key of a configuration may be: its type and its range.

`defaults.py` has the keys, `checks.py` the rules between several keys.
"""

from collections.abc import Collection, Mapping
import dataclasses
import math
from typing import Any, Protocol

from dvhflax import errors, losses, normalisation
from dvhflax.io.formats import FORMATS
from dvhflax.models.conditioning import WAYS
from dvhflax.models.conditioning.matched import PRIORS
from dvhflax.schedules import SCHEDULES
from dvhflax.sites import protocol as protocol_lib

# What fits a 32-bit integer, with room for the few that are added to a seed.
_MOST_WHOLE = 2**31 - 2
# What float32 holds.
_MOST_REAL = 3e38


class Rule(Protocol):
  """What a value must be."""

  @property
  def wanted(self) -> str:
    """What to use, for a message."""

  def allows(self, value: Any) -> bool:
    """Whether a value is that, of whatever type it may be."""


@dataclasses.dataclass(frozen=True)
class _Whole:
  """A whole number: 3.0, '3' and True are none."""

  least: int
  most: int = _MOST_WHOLE

  @property
  def wanted(self) -> str:
    upto = '' if self.most == _MOST_WHOLE else f' to {self.most}'
    return f'a whole number from {self.least}{upto or " on"}'

  def allows(self, value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and self.least <= value <= self.most


@dataclasses.dataclass(frozen=True)
class _Real:
  """A finite number from `least` to `most`, or between where it is open."""

  least: float = -math.inf
  most: float = math.inf
  above: bool = False
  below: bool = False
  unit: str = ''

  @property
  def wanted(self) -> str:
    parts = ['a finite number']
    if self.least > -math.inf:
      parts.append(f'{"above" if self.above else "from"} {self.least:g}')
    if self.most < _MOST_REAL:
      parts.append(f'{"below" if self.below else "up to"} {self.most:g}')
    return ' '.join(parts) + (f', {self.unit}' if self.unit else '')

  def allows(self, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      return False
    try:
      number = float(value)
    except OverflowError:
      return False
    return (
      math.isfinite(number)
      and (self.least < number if self.above else self.least <= number)
      and (number < self.most if self.below else number <= self.most)
    )


@dataclasses.dataclass(frozen=True)
class _OneOf:
  """One of several words."""

  words: Collection[str]

  @property
  def wanted(self) -> str:
    return f'one of {", ".join(self.words)}'

  def allows(self, value: Any) -> bool:
    return isinstance(value, str) and value in self.words


class _Switch:
  wanted = 'True or False'

  def allows(self, value: Any) -> bool:
    return isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class _Text:
  """A text that can be printed; `least` characters of it."""

  wanted: str
  least: int = 1

  def allows(self, value: Any) -> bool:
    printable = isinstance(value, str) and value.isprintable()
    return printable and self.least <= len(value.strip()) <= 4096


@dataclasses.dataclass(frozen=True)
class _Each:
  """A tuple or list, `number` long if that is not 0, each by one rule."""

  rule: Rule
  wanted: str
  number: int = 0

  def allows(self, value: Any) -> bool:
    if not isinstance(value, (tuple, list)) or not value:
      return False
    return len(value) == (self.number or len(value)) and all(
      map(self.rule.allows, value)
    )


@dataclasses.dataclass(frozen=True)
class _Or:
  """What a rule allows, or None where a key need not be set."""

  rule: Rule

  @property
  def wanted(self) -> str:
    return f'{self.rule.wanted}, or None'

  def allows(self, value: Any) -> bool:
    return value is None or self.rule.allows(value)


_NOT_NEGATIVE = _Real(0, _MOST_REAL)
_SHARE = _Real(0, 1)
_PATH = _Text('the path of a file or folder')

RULES: dict[str, Rule] = {
  'seed': _Whole(0),
  'batch_size': _Whole(1),
  'batch_parts': _Whole(1),
  'epochs': _Whole(1),
  'max_steps': _Whole(0),
  'checkpoint_every_epochs': _Whole(1),
  'cohort.path': _PATH,
  'cohort.source': _OneOf(('simulated', 'openkbp', *FORMATS, 'store')),
  'cohort.raw': _Or(_Text(_PATH.wanted, 0)),
  'cohort.structures': _Each(
    _Text('a name'), "names of structures, such as ('body', 'rectum', 'PTV')"
  ),
  'cohort.names': _Or(_Text(_PATH.wanted, 0)),
  'cohort.prescription_gy': _Or(_Real(0.1, 1000, unit='in Gy')),
  'cohort.contour_ends': _OneOf(('rounded', 'half_slice', 'outermost')),
  'cohort.ct': _Switch(),
  'cohort.sum_beams': _Switch(),
  'cohort.sum_fractions': _Switch(),
  'cohort.sum_plans': _Switch(),
  'cohort.plans': _Whole(0, 10**4),
  'cohort.held_out_plans': _Whole(0, 10**4),
  'cohort.replace_plans': _Switch(),
  'cohort.patients': _Whole(3, 10**6),
  'cohort.seed': _Whole(0),
  'cohort.grid': _Each(
    _Whole(1, 4096), 'three whole numbers of voxels, such as (64, 64, 32)', 3
  ),
  'cohort.spacing_mm': _Each(
    _Real(0.01, 1000),
    'three numbers of mm from 0.01 to 1000, such as (7.5, 5.0, 6.0)',
    3,
  ),
  'cohort.validation_patients': _Whole(1, 10**6),
  'cohort.test_patients': _Whole(1, 10**6),
  'cohort.normalisation': _OneOf(normalisation.KINDS),
  'cohort.dose_dtype': _OneOf(('float16', 'float32')),
  'cohort.dvh_kind': _OneOf(('volume_at_dose', 'dose_at_volume')),
  'cohort.dvh_points': _Whole(2, 10**4),
  'cohort.dvh_max_dose': _Real(
    0.01, 10, unit='in fractions of the reference dose'
  ),
  'model.conditioning': _OneOf(WAYS),
  'model.prior': _OneOf(PRIORS),
  'model.patch': _Whole(1, 64),
  'model.smoothing': _Switch(),
  'model.standardise_dvh': _Switch(),
  'model.norm': _OneOf(('batch', 'group', 'mixed')),
  'model.base_channels': _Whole(1, 2**16),
  'model.max_channels': _Whole(1, 2**16),
  'model.dropout': _Real(0, 1, below=True),
  'model.beams': _Whole(0, 360),
  'model.convolution': _OneOf(('auto', 'native', 'im2col', 'lax')),
  'model.remat': _Switch(),
  'model.dtype': _OneOf(('float32', 'bfloat16')),
  'first_dose.max_steps': _Whole(1),
  'optimizer.learning_rate': _NOT_NEGATIVE,
  'optimizer.decay': _NOT_NEGATIVE,
  'optimizer.schedule': _OneOf(SCHEDULES),
  'optimizer.warmup_steps': _Whole(0),
  'optimizer.clip_norm': _NOT_NEGATIVE,
  'optimizer.average': _Real(0, 1, below=True),
  **{f'loss.{name}_weight': _NOT_NEGATIVE for name in losses.TERMS},
  'data.own_wish_share': _SHARE,
  'data.bent_wish_share': _SHARE,
  'data.mirrored_share': _SHARE,
  'data.validation_wishes': _Whole(1),
  'data.validation_own_wish_share': _SHARE,
  'data.validation_bent_wish_share': _SHARE,
  'data.placement': _OneOf(('auto', 'device', 'memory', 'store')),
  'data.read_ahead': _Whole(1),
  'evaluation.wishes': _Whole(1),
  'evaluation.own_wish_share': _SHARE,
  'evaluation.bent_wish_share': _SHARE,
  'evaluation.batch_size': _Whole(1),
  'evaluation.split': _OneOf(('test', 'validation')),
  'evaluation.label_plans': _Whole(0),
  'evaluation.obedience_wishes': _Whole(0),
  'evaluation.mimicked': _Whole(0),
}

# Of a protocol's fields; what they may be beyond that it checks itself.
_OF_TYPE: dict[Any, Rule] = {
  str: _Text('a name'),
  int: _Whole(0),
  float: _Real(0, 1e6),
  tuple[float, float]: _Each(_Real(0, 1e6), 'two finite numbers from 0', 2),
}
_OAR_RULES, _PROTOCOL_RULES = (
  {
    f.name: _OF_TYPE[f.type]
    for f in dataclasses.fields(c)
    if f.type in _OF_TYPE
  }
  for c in (protocol_lib.Oar, protocol_lib.Protocol)
)


def check_value(key: str, value: Any, rule: Rule) -> None:
  """Raises a ConfigError that names the key if the value is not allowed."""
  if not rule.allows(value):
    raise errors.ConfigError(
      f'{errors.plain(key)}={errors.shown(value)}: use {rule.wanted}'
    )


def check_keys(flat: Mapping[str, Any]) -> None:
  """Raises a ConfigError for the first key that is unknown or missing.

  Args:
    flat: of `config.flatten`, without what is in `planning`.
  """
  groups = {key.partition('.')[0] for key in RULES if '.' in key}
  for key in sorted(flat.keys() - RULES.keys()):
    if key in groups:
      raise errors.ConfigError(
        f'{key}={errors.shown(flat[key])}: it must hold keys, such as '
        f'{next(k for k in RULES if k.startswith(f"{key}."))}'
      )
    raise errors.ConfigError(f'unknown configuration key: {errors.plain(key)}')
  missing = sorted(RULES.keys() - flat.keys())
  if missing:
    raise errors.ConfigError(f'missing configuration key: {missing[0]}')


def check_values(flat: Mapping[str, Any]) -> None:
  """Raises a ConfigError for the first key whose value is not allowed.

  Args:
    flat: of `config.flatten`, without what is in `planning`.
  """
  for key, rule in RULES.items():
    check_value(key, flat[key], rule)


def check_planning(planning: Any) -> None:
  """Raises a ConfigError for a value of another type than the protocol's.

  Args:
    planning: `config.planning` as plain dicts.
  """
  _check_group('planning', planning)
  for name, value in planning.items():
    if name in _PROTOCOL_RULES:
      check_value(f'planning.{name}', value, _PROTOCOL_RULES[name])
  for group in ('targets', 'oars'):
    _check_group(f'planning.{group}', planning.get(group, {}))
  for name, gy in planning.get('targets', {}).items():
    check_value(
      f'planning.targets.{name}', gy, _Real(0, 1000, above=True, unit='in Gy')
    )
  for name, oar in planning.get('oars', {}).items():
    _check_group(f'planning.oars.{name}', oar)
    for field, value in oar.items():
      if field in _OAR_RULES:
        check_value(f'planning.oars.{name}.{field}', value, _OAR_RULES[field])


def _check_group(key: str, value: Any) -> None:
  if not isinstance(value, Mapping):
    raise errors.ConfigError(
      f'{errors.plain(key)}={errors.shown(value)}: it must hold keys'
    )
