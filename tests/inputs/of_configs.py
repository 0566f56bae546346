"""Configurations: as a run has saved them, as files, and as objects."""

import json
import pathlib
import random
import re

from inputs import damage

_LITERALS = (
  'None', 'True', '-1', '0', '0.5', '1e308', "float('nan')", "float('inf')",
  "''", "'x'", '()', '(1,)', '(1, 2, 3)', "('a', 'b')", '{}', '[]', '10**30',
  'lambda: 0', "'\\x1b[31m'", "'x' * 10**5", '[0] * 10**5', '1j', "b'x'",
)  # fmt: skip


class Configs:
  # A key, or where a configuration file is faulty, the file.
  words = ()

  def make(self, folder: pathlib.Path) -> None:
    from dvhflax import config as config_lib

    config = config_lib.default()
    (folder / 'saved.json').write_text(json.dumps(config.to_dict()))
    lines = [
      'from dvhflax import config as config_lib', '', '',
      'def get_config(variant=None):', '  config = config_lib.default()',
    ]  # fmt: skip
    for key, value in sorted(config_lib.flatten(config).items()):
      if not key.startswith('planning') and value is not None:
        value = tuple(value) if isinstance(value, list) else value
        lines.append(f'  config.{key} = {value!r}')
    lines.append('  return config')
    (folder / 'mine.py').write_text('\n'.join(lines) + '\n')

  def open(self, folder: pathlib.Path) -> None:
    from dvhflax import config as config_lib
    from dvhflax.config import rules

    self.words = tuple(
      {part for key in rules.RULES for part in key.split('.') if len(part) > 3}
      | {'planning', 'configuration', 'seed'}
    )
    self.config_lib = config_lib
    self.default = config_lib.default().to_json()
    for name in ('saved.json', 'mine.py'):
      self.name = name
      self.read(folder, random.Random(0))

  def _load(self, path):
    from dvhflax import errors
    from dvhflax.cli import program

    try:
      return self.config_lib.load(path)
    except errors.UserError:
      raise
    except Exception as error:
      # What a command says of an error in the user's own Python.
      text = ' '.join(program._config_fault(error, path).split())
      raise errors.ConfigError(text) from None

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    self.name = rng.choice(('saved.json', 'saved.json', 'mine.py'))
    # Python's own words, on the user's own Python.
    self.quotes = self.name == 'mine.py'
    path = folder / self.name
    if self.name == 'saved.json':
      values, how = damage.json_of(json.loads(path.read_text()), rng)
      path.write_text(json.dumps(values))
      return str(how)
    lines = path.read_text().splitlines()
    kind = rng.randrange(5)
    place = rng.randrange(5, len(lines) - 1)
    before = lines[place]
    if kind == 0:
      name = rng.choice(('x', 'cohort', 'model', 'cohort.x', 'lock', 'a b'))
      lines[place] = f'  config.{name} = {rng.choice(_LITERALS)}'
    elif kind == 1:
      lines[place] = damage.text_of(before, rng)
      # What is damaged may not do other things than a configuration does.
      if not re.fullmatch(r"  config\.[\w.]* = [\w.,'() -]*", lines[place]):
        lines[place] = before.replace('=', '==')
    elif kind == 2:
      lines = lines[:place]
    else:
      lines[place] = f'{before.partition(" = ")[0]} = {rng.choice(_LITERALS)}'
    path.write_text('\n'.join(lines) + '\n', errors='replace')
    return f'{kind} {lines[min(place, len(lines) - 1)]}'[:120]

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    from dvhflax.config import saved

    if self.name == 'saved.json':
      config = saved.read(json.loads((folder / self.name).read_text()))
    else:
      config = self._load(str(folder / self.name))
    self.config_lib.validate(config)
    self.config_lib.dvh_spec(config)
    self.config_lib.protocol(config)
    # It can be saved with a run, and read again.
    again = saved.read(json.loads(json.dumps(config.to_dict())))
    assert self.config_lib.flatten(again) == self.config_lib.flatten(config)
    if config.to_json() != self.default:
      self.differs = ['another configuration']
    return []
