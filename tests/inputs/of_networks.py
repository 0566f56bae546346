"""Checkpoints, bundles, and what is exported of them as ONNX."""

import json
import pathlib
import random
import shutil

import numpy as np

from inputs import damage


def _variables(folder):
  from dvhflax.training import runs

  _, variables, config, data, _ = runs.restore(str(folder), 'best')
  return variables, config, data


class Checkpoints:
  """A run's, and a bundle made of it."""

  words = ('run', 'bundle')

  def make(self, folder: pathlib.Path) -> None:
    from conftest import make_config, make_tiny_cohort
    import jax

    from dvhflax.checksum import checksum
    from dvhflax.cohort import identity
    from dvhflax.cohort.store import Cohort
    from dvhflax.models.build import build_unet, initial_variables
    from dvhflax.training import bundle, checkpoint, runs

    make_tiny_cohort(folder / 'cohort')
    cohort = Cohort.open(str(folder / 'cohort'))
    config = make_config('cohort')
    data = runs.data_item(cohort) | identity.item(cohort)
    model = build_unet(config, data)
    variables = initial_variables(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    moved = jax.tree.map(
      lambda x: (np.asarray(x) + 0.1 * rng.random(x.shape)).astype(x.dtype),
      variables,
    )
    run = folder / 'run'
    opened = checkpoint.Checkpoints(str(run), create=True)
    for step, loss in ((4, 0.5), (8, 0.4)):
      opened.save(
        step, model=moved, train={'count': np.ones(2)},
        config=config.to_dict(), data=data, validation_loss=loss,
      )  # fmt: skip
    opened.close()
    with bundle.making(str(folder / 'bundle')) as aside:
      bundle.write_network(aside, moved)
      bundle.write_info(
        aside, name='tiny', step=8,
        run={'workdir': 'run', 'weights_sha256': checksum(moved)},
        config=config.to_dict(), data=identity.without_place(data),
      )  # fmt: skip
    shutil.rmtree(folder / 'cohort')

  def open(self, folder: pathlib.Path) -> None:
    from absl import logging

    from dvhflax.training import checkpoint

    checkpoint.quiet()
    logging.set_verbosity(logging.ERROR)
    self.sound = {n: _variables(folder / n) for n in ('run', 'bundle')}

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    self.name = rng.choice(('run', 'run', 'run', 'bundle'))
    folder = folder / self.name
    paths = [p for p in sorted(folder.rglob('*')) if p.is_file()]
    texts = [p for p in paths if _is_json(p)]
    path = rng.choice(rng.choice((paths, texts)))
    told = str(path.relative_to(folder))
    if rng.random() < 0.08:
      path.unlink()
      return f'{told}: removed'
    if path in texts and rng.random() < 0.8:
      values, how = damage.json_of(json.loads(path.read_text()), rng)
      path.write_bytes(damage.dumped(values, rng))
      how = f'{told}: {how}'
      if self.name == 'bundle' and rng.random() < 0.8:
        from dvhflax import sha256sums

        sha256sums.write(folder)
      return how
    damage.file(path, rng)
    return f'{told}: bytes'

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    import jax

    variables, config, data = _variables(folder / self.name)
    mine, its = (
      jax.tree.leaves(v) for v in (variables, self.sound[self.name][0])
    )
    # A weight that another file has would be another dose, and no word of it.
    assert all(np.array_equal(a, b) for a, b in zip(mine, its, strict=True))
    if config.to_json() != self.sound[self.name][1].to_json():
      self.differs.append('config')
    if data != self.sound[self.name][2]:
      self.differs.append('data')
    return []


class Onnx(Checkpoints):
  """What is exported of a damaged checkpoint, and its metadata."""

  def open(self, folder: pathlib.Path) -> None:
    super().open(folder)
    self.read(folder.parent / 'seed', random.Random(0))

  name = 'run'

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    self.name = 'run'
    step = folder / 'run' / 'checkpoints' / '8'
    path = step / rng.choice(('config', 'data', 'data')) / 'metadata'
    values, how = damage.json_of(json.loads(path.read_text()), rng)
    path.write_bytes(damage.dumped(values, rng))
    return f'{path.parent.name}: {how}'

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    import onnx

    from dvhflax.evaluation.export import export

    output = folder.parent / 'out' / 'network.onnx'
    output.parent.mkdir(exist_ok=True)
    export(str(folder / 'run'), str(output))
    proto = onnx.load(str(output))
    onnx.checker.check_model(proto)
    metadata = {p.key: p.value for p in proto.metadata_props}
    spacing = json.loads(metadata['spacing_mm'])
    assert len(spacing) == 3 and all(0 < x < 1000 for x in spacing)
    data, config = (_strict(metadata[key]) for key in ('data', 'config'))
    names = [s['name'] for s in data['structures']]
    assert len(set(names)) == len(names) == 3
    assert data['dvh']['points'] == 16 and 0 < data['dvh']['max_dose'] < 100
    assert tuple(config['cohort']['grid']) == (8, 8, 4)
    assert metadata['step'] == '8' and 'research' in metadata['use']
    return []


def _strict(text):
  """JSON without NaN, which other languages do not read."""

  def refuse(name):
    raise AssertionError(name)

  return json.loads(text, parse_constant=refuse)


def _is_json(path):
  try:
    return isinstance(json.loads(path.read_text()), dict)
  except ValueError:
    return False
