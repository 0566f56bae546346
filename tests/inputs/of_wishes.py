"""Wish files, points, goals and their templates, tables of names."""

import json
import pathlib
import random

import numpy as np

from inputs import damage

_POINTS = (
  'rectum V70 <= 10%', 'rectum V50% <= 30 %', 'PTV D95 >= 95%',
  'rectum mean <= 30 Gy', 'body max < 85 Gy', 'PTV D0.5cc <= 84.5 Gy',
  'rectum V10 <= 1 cc', 'PTV D98 = 76 Gy', 'body mean = 20%',
  'rectum D1cc ≤ 70Gy',
)  # fmt: skip
_CELLS = ('nan', 'inf', '-1', '1e308', '1e999', '', 'x', '0', '1.0000001',
          '-1e-9', '0x1', '1,5', '100', '٣')  # fmt: skip


def session():
  """A session with a toy network, and its first dose."""
  from conftest import make_tiny_cohort
  import toy_network

  from dvhflax.cohort.store import Cohort

  def made(folder):
    return toy_network.toy_session(Cohort.open(folder))

  return make_tiny_cohort, made


class WishFiles:
  """Curves in CSV and JSON."""

  words = ('PTV', 'rectum', 'body')

  def make(self, folder: pathlib.Path) -> None:
    doses = np.linspace(0, 90, 10)
    curves = {
      'body': np.clip(1 - doses / 60, 0, 1),
      'rectum': np.clip(1.2 - doses / 70, 0, 1),
      'PTV': np.interp(doses, (70, 88), (1, 0)),
    }
    rows = [
      f'{name},{d:g},{100 * v:.6g}'
      for name, volumes in curves.items()
      for d, v in zip(doses, volumes)
    ]
    (folder / 'gy.csv').write_text(
      '\n'.join(['structure,dose_gy,volume_percent', *rows]) + '\n'
    )
    for key, by in (('dose', 1 / 85), ('dose_percent', 100 / 78)):
      entries = [
        {'structure': n, key: (doses * by).tolist(), 'volume': v.tolist()}
        for n, v in curves.items()
      ]
      (folder / f'{key}.json').write_text(json.dumps(entries))

  def open(self, folder: pathlib.Path) -> None:
    from dvhflax.dvh import DVHSpec
    from dvhflax.normalisation import Normalisation
    from dvhflax.patient import Structure

    self.structures = tuple(map(Structure.from_name, ('body', 'rectum', 'PTV')))
    kinds = ('volume_at_dose', 'dose_at_volume')
    self.specs = [DVHSpec(kind, 16, 1.3) for kind in kinds]
    self.normalisations = [
      Normalisation('prescription'),
      Normalisation('target_mean', 95.0, {'PTV': (1.0, 0.01)}),
    ]
    for path in folder.iterdir():
      for spec in self.specs:
        for normalisation in self.normalisations:
          self._read(path, spec, normalisation)

  def _read(self, path, spec, normalisation):
    from dvhflax.tuning import wish, wish_file

    curves = wish_file.read_curves(str(path), 78.0)
    fractions, reference = wish.in_fractions(
      curves, self.structures, normalisation, 78.0
    )
    vectors = wish.from_curves(fractions, self.structures, [True] * 3, spec)
    assert vectors.shape == (3, 16) and np.isfinite(vectors).all()
    assert vectors.min() >= 0
    assert reference is None or 0 < reference.gy < 300
    steps = np.diff(vectors, axis=1)
    if spec.kind == 'volume_at_dose':
      assert vectors.max() <= 1 and (steps <= 0).all()
      np.testing.assert_allclose(vectors[:, 0], 1, atol=1e-5)
    else:
      assert vectors.max() <= 4 and (steps >= 0).all()

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    self.path = path = rng.choice(sorted(folder.iterdir()))
    if rng.random() < 0.35:
      damage.file(path, rng)
      return f'{path.name}: bytes'
    if path.suffix == '.json':
      values, how = damage.json_of(json.loads(path.read_text()), rng)
      path.write_bytes(damage.dumped(values, rng))
      return f'{path.name}: {how}'
    lines = path.read_text().splitlines()
    place, kind = rng.randrange(len(lines)), rng.randrange(6)
    cells = lines[place].split(',')
    if kind == 0:
      cells[rng.randrange(len(cells))] = rng.choice(_CELLS)
    elif kind == 1:
      rng.shuffle(cells)
    elif kind == 2:
      cells.append(rng.choice(_CELLS))
    elif kind == 3:
      cells = cells[:-1]
    lines[place] = ','.join(cells)
    if kind == 4:
      lines.insert(place, rng.choice(lines))
    elif kind == 5:
      rng.shuffle(lines)
    text = rng.choice(('\n', '\n', '\r\n', '\r')).join(lines)
    path.write_bytes(text.encode(rng.choice(('utf-8', 'utf-16', 'utf-8-sig'))))
    return f'{path.name}: {kind} {lines[min(place, len(lines) - 1)]!r}'

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    path = folder / self.path.name
    self._read(path, rng.choice(self.specs), rng.choice(self.normalisations))
    return []


class Points:
  """Points and goals, tuned to in a session with a toy network."""

  words = ('points', 'goals', 'point', 'goal', 'structure')

  def make(self, folder: pathlib.Path) -> None:
    make_cohort, _ = session()
    make_cohort(folder / 'cohort')

  def open(self, folder: pathlib.Path) -> None:
    _, made = session()
    self.session = made(str(folder / 'cohort'))
    for text in _POINTS:
      self._tune([text])

  def _tune(self, points):
    from dvhflax.tuning import goals

    one = self.session
    preview = one.preview(points)
    dvh = preview.desired_dvh
    assert np.isfinite(dvh).all() and dvh.min() >= 0 and dvh.max() <= 1
    assert (np.diff(dvh, axis=1) <= 1e-6).all()
    for point in preview.points:
      assert np.isfinite(point['achieved']) and point['asked'], point
    texts = [points] if isinstance(points, str) else points
    goals.check(texts, one.cohort.structures)

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    points = rng.sample(_POINTS, rng.randint(1, 3))
    kind = rng.randrange(9)
    if kind == 0:
      self.points = rng.choice(damage.VALUES)
    elif kind == 1:
      place = rng.randrange(len(points))
      self.points = [*points[:place], rng.choice(damage.VALUES)]
    elif kind == 2:
      self.points = damage.text_of('; '.join(points), rng)
    elif kind == 3:
      words = ' '.join(points).split()
      rng.shuffle(words)
      self.points = [' '.join(words[:6])]
    elif kind > 5:
      self.points = [_mixed(rng) for _ in points]
    else:
      self.points = [damage.text_of(text, rng) for text in points]
    return repr(self.points)[:150]

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    from dvhflax import errors

    given = self.points if isinstance(self.points, list) else [self.points]
    texts = [text for text in given if isinstance(text, str) and text]
    self.words = (*Points.words, *(errors.plain(t)[:20] for t in texts))
    self._tune(self.points)
    return []


def _mixed(rng: random.Random) -> str:
  """Words of several points, each at its place: it often makes sense."""
  drawn = (rng.choice(_POINTS).split(maxsplit=3) for _ in range(4))
  return ' '.join(rng.choice(column) for column in zip(*drawn, strict=True))


class Templates:
  """Templates of goals, and tables of names."""

  words = ('template', 'mine')

  def make(self, folder: pathlib.Path) -> None:
    template = {'schema_version': 1, 'site': 'pelvis', 'goals': list(_POINTS)}
    (folder / 'mine.json').write_text(json.dumps(template))
    table = {'rectum': ['rect.*', 'enddarm'], 'PTV': ['ptv_?78'], 'body': []}
    (folder / 'names.json').write_text(json.dumps(table))

  def open(self, folder: pathlib.Path) -> None:
    self.damaged = 'mine'
    self.read(folder, random.Random(0))
    self.damaged = 'names'
    self.read(folder, random.Random(0))

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    self.damaged = rng.choice(('mine', 'names'))
    path = folder / f'{self.damaged}.json'
    if rng.random() < 0.3:
      damage.file(path, rng)
      return f'{path.name}: bytes'
    values, how = damage.json_of(json.loads(path.read_text()), rng)
    path.write_bytes(damage.dumped(values, rng))
    return f'{path.name}: {how}'

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    from dvhflax.io import names
    from dvhflax.tuning import goals, templates

    if self.damaged == 'names':
      wanted = ('body', 'rectum', 'PTV')
      rows = names.read_table(str(folder / 'names.json'), wanted)
      assert all(name in wanted for name, _ in rows)
      found = names.match(['Rectum', 'PTV_78', 'outline'], wanted, rows)
      assert all(0 <= i < 3 for i in found.chosen.values())
      return []
    stored = templates.Templates(folder)
    stored.all()
    template = stored.get('mine')
    assert template.goals == goals.check(template.goals)
    assert isinstance(template.site, str) and template.site.isprintable()
    return []
