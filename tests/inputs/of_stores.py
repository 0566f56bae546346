"""Cohort stores: their metadata, and the arrays' descriptions and chunks."""

import json
import pathlib
import random

import numpy as np

from inputs import damage

_MOST_GY = 1000


class Stores:
  words = ('cohort',)

  def make(self, folder: pathlib.Path) -> None:
    from conftest import SPLITS, make_patient, write_cohort

    patients = [make_patient(i, plans=2 + i % 2) for i in range(4)]
    patients[1] = make_patient(1, plans=2, lacking=(1,))
    splits = [SPLITS[i] for i in (0, 0, 5, 6)]
    write_cohort(folder / 'cohort', patients, splits)

  def open(self, folder: pathlib.Path) -> None:
    self.sound = self._read(folder / 'cohort')

  def _read(self, path):
    """All that is read of a store, plan by plan in Gy."""
    from dvhflax.cohort.store import Cohort
    from dvhflax.cohort.validate import validate_cohort

    cohort = Cohort.open(str(path))
    structures = len(cohort.structures)
    assert len(set(p.id for p in cohort.patients)) == len(cohort.patients)
    assert 1 <= structures <= 9 and len(cohort.patients) <= 9
    assert cohort.valid.sum() == sum(p.plans for p in cohort.patients)
    assert cohort.present.shape == (len(cohort.patients), structures)
    assert cohort.normalisation.kind == 'target_mean'
    for covered, spread in cohort.normalisation.coverage.values():
      assert 0 < covered < 10 and 0 <= spread < 10
    dvh = cohort.dvh
    assert np.isfinite(dvh).all() and dvh.min() >= 0 and dvh.max() <= 1
    assert (np.diff(dvh, axis=-1) <= 1e-6).all()
    cohort.own_spacings  # noqa: B018
    found = {}
    for p, record in enumerate(cohort.patients):
      masks, doses = cohort.masks(p), cohort.doses(p)
      assert masks.max() == 1 and masks.shape[-1] == structures
      assert np.isfinite(doses).all() and doses.min() >= 0
      assert 0 < record.prescription_gy < _MOST_GY
      assert all(0 < x < _MOST_GY for x in record.spacing_mm)
      cohort.ct(p)
      for n, fractions in enumerate(doses):
        gy = cohort.reference(p, n).to_gy(fractions)
        assert gy.max() <= _MOST_GY
        found[record.id, n] = gy, masks, record.prescription_gy, record.split
    faults = validate_cohort(str(path))
    return cohort.identity, found, faults

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    folder = folder / 'cohort'
    paths = [p for p in sorted(folder.rglob('*')) if p.is_file()]
    kind = rng.randrange(4)
    if kind == 0:
      path = rng.choice(paths)
    else:
      names = ('metadata.json', 'metadata.json', 'zarr.json')
      name = names[kind - 1]
      path = rng.choice([p for p in paths if p.name == name])
    told = str(path.relative_to(folder))
    if path.suffix == '.json' and rng.random() < 0.75:
      values, how = damage.json_of(json.loads(path.read_text()), rng)
      path.write_bytes(damage.dumped(values, rng))
      return f'{told}: {how}'
    if rng.random() < 0.1:
      path.unlink()
      return f'{told}: removed'
    damage.file(path, rng)
    return f'{told}: bytes'

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    identity, found, faults = self._read(folder / 'cohort')
    # What is another cohort to a network, or is told by `validate`, is told.
    same = identity == self.sound[0] and not faults
    if same:
      for key, its in self.sound[1].items():
        mine = found[key]
        assert all(np.array_equal(a, b) for a, b in zip(mine, its)), key
    if faults:
      return [f'cohort: {fault}' for fault in faults[:3]]
    if not same:
      self.differs = ['another identity']
    return []
