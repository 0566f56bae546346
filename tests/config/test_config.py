"""Every key of a configuration is checked; a message names the key."""

import math
import pathlib

from hypothesis import given, settings
from hypothesis import strategies as st
import ml_collections
import pytest

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.config import rules as config_rules

ROOT = pathlib.Path(__file__).parents[2]
DEFAULT = config_lib.flatten(config_lib.default())
KEYS = sorted(DEFAULT)

# None of these is allowed for any key, but for `NOT_WRONG`.
WRONG = (
  None, True, 'word', '', -1, 0.5, 10**19, -(10**400), math.nan, math.inf,
  1 + 2j, b'bytes', object(), (), (1,), ('a', 'b', 'c'), (-1, -1, -1),
  (math.nan,) * 3, (1, 2, 3, 4), ((1,), 2, 3), [None] * 3, {'x': 1}, {},
  float, lambda: 0, '\x1b[31m', 'x' * 10**5, [0] * 10**5,
)  # fmt: skip


def with_value(key, value):
  """The default configuration, one key forced to a value of any type."""
  plain = config_lib.default().to_dict()
  part, *names = plain, *key.split('.')
  for name in names[:-1]:
    part = part[name]
  part[names[-1]] = value
  return ml_collections.ConfigDict(plain, convert_dict=True)


def is_right(key, value):
  """What of `WRONG` a key allows, told by hand."""
  text = isinstance(value, str)
  if key in ('cohort.raw', 'cohort.names'):
    return value is None or (text and value in ('word', ''))
  if key == 'cohort.path':
    return value == 'word'
  if key == 'planning.name':
    return value == 'word'
  if key == 'cohort.prescription_gy':
    return value is None or value == 0.5
  if isinstance(DEFAULT[key], bool):
    # Simulated patients have no CT.
    return value is True and key != 'cohort.ct'
  if value == (-1, -1, -1) or not isinstance(value, (int, float)):
    return False
  # What diverges is not refused: that is seen by training.
  unbounded = key.startswith(('optimizer', 'loss')) and value == 10**19
  return isinstance(DEFAULT[key], float) and (value == 0.5 or unbounded)


@pytest.mark.parametrize('key', KEYS)
def test_a_wrong_value_is_refused_by_its_key(key):
  accepted = []
  for value in WRONG:
    try:
      config_lib.validate(with_value(key, value))
      accepted.append(value)
    except errors.ConfigError as error:
      text = str(error)
      assert key.split('.')[-1] in text or value == {}
      assert len(text) < 400 and text.isprintable()
  assert [v for v in accepted if not is_right(key, v)] == []


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_whatever_a_key_holds_there_is_no_traceback(data):
  key = data.draw(st.sampled_from(KEYS))
  leaf = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
  )
  names = st.text(st.characters(exclude_characters='.'), min_size=1, max_size=5)
  value = data.draw(
    st.recursive(
      leaf,
      lambda x: st.lists(x, max_size=4) | st.dictionaries(names, x),
      max_leaves=6,
    )
  )
  try:
    config = with_value(key, value)
  except (ValueError, TypeError, AttributeError):
    return  # what a ConfigDict does not hold
  try:
    config_lib.validate(config)
  except errors.ConfigError as error:
    assert len(str(error)) < 1000 and str(error).isprintable()


@pytest.mark.parametrize(
  'key, value, words',
  [
    ('seed', -1, 'seed=-1: use a whole number from 0'),
    ('cohort.seed', -5, 'cohort.seed=-5'),
    ('epochs', 3.0, r'epochs=3.0: use a whole number from 1'),
    ('cohort.grid', ('a', 'b', 'c'), 'cohort.grid=.*three whole numbers'),
    ('cohort.grid', (60, 64, 32), 'grid=.*power of two'),
    ('model.patch', 3, 'does not divide into cells of model.patch=3'),
    ('model.prior', 'first_dose', "'bottleneck' has no matched dose"),
    ('cohort.spacing_mm', (1, 0, 1), 'cohort.spacing_mm=.*numbers of mm from'),
    ('cohort.prescription_gy', 7800, 'up to 1000, in Gy'),
    ('cohort.dvh_max_dose', 80, 'in fractions of the reference dose'),
    ('optimizer.learning_rate', math.nan, 'learning_rate=nan: use a finite'),
    ('model.dropout', 1.0, 'below 1'),
    ('model.norm', 'layer', 'one of batch, group, mixed'),
    ('cohort.structures', ('body', 'PTV', 'PTV'), 'names one twice'),
    ('planning.beams', 7.5, 'planning.beams=7.5: use a whole number'),
    ('planning.targets.PTV', '78', 'planning.targets.PTV='),
    ('planning.targets.PTV', 7800.0, 'in Gy'),
    ('planning.oars.rectum.weights', (1, 'a'), r'rectum.weights=.*two finite'),
    ('planning.body_weights', (1.0,), 'planning.body_weights=.*two finite'),
    ('planning.gap', math.inf, 'planning.gap=inf'),
    ('planning.oars.rectum', 3, 'planning.oars.rectum=3: it must hold keys'),
    ('planning', 3, 'planning=3: it must hold keys'),
    ('cohort', 3, 'cohort=3: it must hold keys'),
    ('model.depth', 3, 'unknown configuration key: model.depth'),
  ],
)
def test_messages(key, value, words):
  with pytest.raises(errors.ConfigError, match=words):
    config_lib.validate(with_value(key, value))


@pytest.mark.parametrize('group', ['data.', 'data.validation_', 'evaluation.'])
def test_shares_of_wishes_are_1_together_at_most(group):
  config = config_lib.default()
  keys = [f'{group}{kind}_wish_share' for kind in ('own', 'bent')]
  config.update_from_flattened_dict(dict(zip(keys, (0.3, 0.7))))
  config_lib.validate(config)
  config.update_from_flattened_dict({keys[1]: 0.8})
  words = f'{keys[0]}=0.3 and {keys[1]}=0.8 are 1.1 of the wishes'
  with pytest.raises(errors.ConfigError, match=words):
    config_lib.validate(config)


@pytest.mark.parametrize('key', [k for k in KEYS if 'planning.' not in k])
def test_a_missing_key_is_named(key):
  config = config_lib.default()
  group, _, name = key.rpartition('.')
  del (config[group] if group else config)[name]
  with pytest.raises(errors.ConfigError, match=f'missing .* key: {key}$'):
    config_lib.validate(config)


@pytest.mark.parametrize('config', [None, 5, {}, 'words'])
def test_what_is_no_configuration(config):
  with pytest.raises(errors.ConfigError, match='must return a ConfigDict'):
    config_lib.validate(config)


def test_every_key_has_a_rule():
  config_rules.check_keys(
    {k: v for k, v in DEFAULT.items() if not k.startswith('planning.')}
  )


def test_the_configurations_of_the_product_are_valid():
  for path in sorted((ROOT / 'configs').glob('*.py')):
    module = {}
    exec(compile(path.read_text(), path, 'exec'), module)
    for variant in module.get('VARIANTS', ('',)):
      arguments = (variant,) if variant else ()
      config_lib.validate(module['get_config'](*arguments))
