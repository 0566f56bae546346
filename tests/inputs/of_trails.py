"""Audit trails and predicted doses of a session."""

import contextlib
import json
import pathlib
import random
import zipfile

import numpy as np

from inputs import damage
from inputs.of_wishes import session


class Trails:
  """Replayed in a session with a toy network."""

  words = ()

  def make(self, folder: pathlib.Path) -> None:
    make_cohort, made = session()
    make_cohort(folder / 'cohort')
    one = made(str(folder / 'cohort'))
    one.tune('rectum V50% <= 30%; PTV D95 >= 90%')
    one.rename(0, 'start', 'a note')
    one.undo()
    one.redo()
    one.lock(['rectum'])
    one.tune(['body mean <= 20 Gy'], curves=one.current.dvh)
    one.save(str(folder / 'trail.json'))

  def open(self, folder: pathlib.Path) -> None:
    import toy_network

    from dvhflax.cohort.store import Cohort

    self.toy = toy_network
    self.cohort = Cohort.open(str(folder / 'cohort'))
    self.sound = self._replay(folder / 'trail.json', 0.0)
    assert len(self.sound) == 3

  def _replay(self, path, atol):
    one = self.toy.toy_session(self.cohort, first=False)
    steps = one.replay(str(path), atol=atol)
    for step in steps:
      dose = step.dose_gy
      assert np.isfinite(dose).all() and 0 <= dose.min() <= dose.max() < 300
    again = path.parents[1] / 'out' / 'again.json'
    if again.parent.is_dir():
      one.save(str(again))
      json.loads(again.read_text())
    return steps

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    from dvhflax.tuning import trail

    path = folder / 'trail.json'
    if rng.random() < 0.25:
      damage.file(path, rng)
      return 'bytes'
    values = json.loads(path.read_text())
    if rng.random() < 0.7:
      values['steps'], how = damage.json_of(values['steps'], rng)
    else:
      values, how = damage.json_of(values, rng)
    # Else the checksum alone would tell.
    if isinstance(values, dict) and rng.random() < 0.9:
      with contextlib.suppress(TypeError, ValueError):
        values['sha256'] = trail.digest(values)
    path.write_bytes(damage.dumped(values, rng))
    return str(how)

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    atol = rng.choice((0.0, 0.0, 1e-3))
    steps = self._replay(folder / 'trail.json', atol)
    # Whatever was changed, the doses are those of some steps of before.
    known = {step.dose.tobytes() for step in self.sound}
    if atol == 0:
      assert {step.dose.tobytes() for step in steps} <= known
    return []


class DoseFiles:
  """`dose.npz` of a prediction."""

  words = ()

  def make(self, folder: pathlib.Path) -> None:
    from dvhflax.tuning import dose_file

    make_cohort, made = session()
    make_cohort(folder / 'cohort')
    one = made(str(folder / 'cohort'))
    dose_file.write(str(folder / 'dose.npz'), one, one.current)
    np.save(folder / 'masks.npy', one.masks)

  def open(self, folder: pathlib.Path) -> None:
    self.masks = np.load(folder / 'masks.npy')
    self.sound = self._read(folder)

  def _read(self, folder):
    from dvhflax.tuning import dose_file

    dose_gy = dose_file.read(str(folder / 'dose.npz'), self.masks)
    assert dose_gy.shape == self.masks.shape[:-1]
    assert dose_gy.dtype == np.float32 and np.isfinite(dose_gy).all()
    assert 0 < dose_gy.max() <= 1000 and dose_gy.min() >= -0.1 * dose_gy.max()
    return dose_gy

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    path = folder / 'dose.npz'
    kind = rng.randrange(4)
    if kind == 0:
      damage.file(path, rng)
      return 'bytes'
    with zipfile.ZipFile(path) as file:
      parts = {name: file.read(name) for name in file.namelist()}
    name = rng.choice(sorted(parts))
    if kind == 1:
      parts[name] = damage.bytes_of(parts[name], rng)
      how = f'{name}: bytes'
    else:
      with np.load(path) as file:
        values = dict(file)
      name = name.removesuffix('.npy')
      value, how = values[name], f'{name}: '
      with np.errstate(all='ignore'):
        how += self._one(values, name, value, rng)
      np.savez(path, **values)
      return how
    with zipfile.ZipFile(path, 'w') as file:
      for name, content in parts.items():
        file.writestr(name, content)
    return how

  def _one(self, values, name, value, rng):
    kind = rng.randrange(6)
    if kind == 0:
      del values[name]
      return 'removed'
    if kind == 1 and value.dtype.kind == 'f':
      by = rng.choice((-1, 0, 100, 1e30, np.nan, 1e-3))
      values[name] = value * by
      return f'times {by}'
    if kind == 2:
      values[name] = value.reshape(-1)[: rng.randrange(4)]
      return 'of another shape'
    if kind == 3:
      kind = rng.choice(('U', 'S', 'O', 'c16', 'f8'))
      number = value.dtype.kind == 'f'
      values[name] = value.astype(kind) if number else np.array(3)
      return 'of another type'
    if kind == 4 and name == 'dose':
      values[name] = value.copy()
      values[name].flat[rng.randrange(value.size)] = rng.choice(
        (np.nan, np.inf, -5, 1e9)
      )
      return 'one value'
    values[name] = np.array(rng.choice((0, -1, 1e308, np.nan, '', 'x' * 9999)))
    return f'is {str(values[name])[:20]}'

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    apart = np.abs(self._read(folder) - self.sound).max()
    self.differs = [f'dose by {apart:.3g}'] if apart else []
    return []
