"""Bundles: their arrays, their sums, and names of those that come along."""

import configparser
import glob
import os
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import dvhflax
from dvhflax import errors, sha256sums
from dvhflax.training import bundle, pretrained
from dvhflax.training.trees import named

ROOT = pathlib.Path(dvhflax.__file__).parents[1]


def variables():
  """Of a network with one within, and with constants."""
  rng = np.random.default_rng(0)
  weights = {'layer': {'kernel': rng.normal(size=(3, 4)), 'bias': [7e4, 1.0]}}
  found = {
    'params': weights,
    'batch_stats': {'norm': {'mean': rng.normal(size=4)}},
    'dvh_statistics': {},
    'prior': {'fields': rng.normal(size=5), 'levels': np.arange(3)},
    'first_dose': {
      'network': {
        'params': {'kernel': rng.normal(size=3)},
        'batch_stats': {'var': rng.random(3)},
      }
    },
  }
  return _as_jax(found)


def _as_jax(tree):
  if isinstance(tree, dict):
    return {key: _as_jax(value) for key, value in tree.items()}
  return jnp.asarray(tree, None if np.asarray(tree).dtype == int else 'float32')


def write(path, tree):
  with bundle.making(str(path)) as folder:
    bundle.write_network(folder, tree)
    bundle.write_info(
      folder,
      name='tiny',
      step=12,
      run={'workdir': 'run', 'weights_sha256': 'ab'},
      config={'seed': 1},
      data={'structures': []},
    )
  return str(path)


@pytest.fixture
def made(tmp_path):
  return write(tmp_path / 'folder', variables())


def test_round_trip(made, tmp_path):
  tree = variables()
  opened = bundle.Bundle(made)
  restored = opened.restore(12, 'model', tree)
  assert restored.keys() == tree.keys() and restored['dvh_statistics'] == {}
  found, was, rounded = (
    dict(named(x)) for x in (restored, tree, bundle.rounded(tree))
  )
  assert found.keys() == was.keys()
  halved = {'params/layer/kernel'}
  assert halved < was.keys()
  for name, values in was.items():
    wanted = values = np.asarray(values)
    # The bias has a value that is beyond float16.
    if name in halved:
      wanted = values.astype(np.float16).astype(np.float32)
      assert not np.array_equal(wanted, values)
    assert found[name].dtype == values.dtype
    np.testing.assert_array_equal(found[name], wanted)
    np.testing.assert_array_equal(rounded[name], wanted)
  assert opened.json(12, 'config') == {'seed': 1}
  assert {opened.find(w) for w in ('best', 'latest', '12')} == {12}
  with pytest.raises(errors.CheckpointError, match=r"'13'.*step 12 only"):
    opened.find('13')
  # Twice the same bytes: what differs in a history is what changed.
  again = write(tmp_path / 'again', variables())
  for name in os.listdir(made):
    one, other = (pathlib.Path(p, name).read_bytes() for p in (made, again))
    assert one == other


def test_a_network_of_another_shape(made):
  tree = variables()
  tree['params']['layer']['kernel'] = jnp.zeros((3, 5))
  with pytest.raises(errors.CheckpointError, match=r'another.*layer/kernel'):
    bundle.Bundle(made).restore(12, 'model', tree)
  del tree['params']['layer']['kernel']
  with pytest.raises(errors.CheckpointError, match=r'another.*layer/kernel'):
    bundle.Bundle(made).restore(12, 'model', tree)


def flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def cut(path):
  path.write_text(''.join(path.read_text().splitlines(True)[:1]))


def remove(path):
  path.unlink()


@pytest.mark.parametrize(
  'name, damage, words',
  [
    ('network.npz', flip, 'network.npz is damaged or another one'),
    ('network.npz', remove, 'network.npz is missing'),
    ('bundle.json', flip, 'bundle.json is damaged'),
    ('bundle.json', remove, 'bundle.json is missing'),
    ('SHA256SUMS', flip, r'\w+\.\w+'),
    # What has lost its sum could be anything.
    ('SHA256SUMS', cut, 'network.npz does not belong there'),
    ('SHA256SUMS', remove, 'SHA256SUMS is missing'),
    ('more.npz', pathlib.Path.touch, 'more.npz does not belong there'),
  ],
)
def test_damage_is_told_in_a_line(name, damage, words, made):
  damage(pathlib.Path(made, name))
  assert bundle.is_bundle(made)
  with pytest.raises(errors.CheckpointError, match=words) as raised:
    bundle.Bundle(made)
  assert made in str(raised.value) and '\n' not in str(raised.value)


def test_files_of_another_bundle(made, tmp_path):
  tree = variables()
  tree['params']['layer']['kernel'] += 1
  other = write(tmp_path / 'other', tree)
  shutil.copy(f'{other}/network.npz', f'{made}/network.npz')
  with pytest.raises(
    errors.CheckpointError, match=r'network\.npz is .*another'
  ):
    bundle.Bundle(made)


def test_a_later_version_and_a_hidden_file(made):
  path = pathlib.Path(made, 'bundle.json')
  pathlib.Path(made, '.DS_Store').touch()
  bundle.Bundle(made)
  text = path.read_text()
  path.write_text(text.replace('"schema_version": 1', '"schema_version": 2'))
  sha256sums.write(made)
  with pytest.raises(errors.CheckpointError, match=r'schema_version 2.*later'):
    bundle.Bundle(made)


def test_nothing_is_left_of_one_that_failed(tmp_path):
  with pytest.raises(KeyError), bundle.making(str(tmp_path / 'x')):
    raise KeyError
  assert not list(tmp_path.iterdir())
  (tmp_path / 'there').mkdir()
  with (
    pytest.raises(errors.UserError, match='exists'),
    bundle.making(str(tmp_path / 'there')),
  ):
    pass


def test_names(made, tmp_path, monkeypatch):
  monkeypatch.setattr(pretrained, '_folder', lambda: tmp_path / 'none')
  with pytest.raises(errors.CheckpointError, match=r"'prostate'.*has none yet"):
    dvhflax.pretrained('prostate')
  monkeypatch.setattr(pretrained, '_folder', lambda: tmp_path)
  (tmp_path / 'README.md').touch()
  assert pretrained.names() == ['folder']
  assert dvhflax.pretrained('folder') == made
  with pytest.raises(
    errors.CheckpointError, match=r'did you mean folder.*there are folder;'
  ):
    dvhflax.pretrained('foldr')
  with pytest.raises(errors.CheckpointError, match=r"'../folder'"):
    dvhflax.pretrained('../folder')


def test_the_wheel_has_every_file_of_a_bundle(made, tmp_path):
  """`.ci/smoke` looks into the wheel; here what its pattern finds."""
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  patterns = setup['options.package_data']['dvhflax'].split(', ')
  inside = tmp_path / 'package' / 'pretrained' / 'tiny'
  shutil.copytree(made, inside)
  deep = inside / 'cohort' / 'masks' / 'c' / '0' / '0' / '0' / '0' / '0'
  deep.parent.mkdir(parents=True)
  deep.touch()
  found = {
    path
    for pattern in patterns
    for path in glob.glob(f'{tmp_path}/package/{pattern}', recursive=True)
  }
  assert {str(p) for p in inside.rglob('*')} <= found


def test_those_that_come_along_are_whole_and_small():
  for name in pretrained.names():
    path = pathlib.Path(dvhflax.pretrained(name))
    assert bundle.Bundle(str(path)).name == name
    size = sum(p.stat().st_size for p in path.rglob('*') if p.is_file())
    assert size < 20e6, name


def test_json_that_is_nested_deeply_is_refused(made):
  pathlib.Path(made, 'bundle.json').write_text('[' * 100_000)
  sha256sums.write(made)
  with pytest.raises(errors.CheckpointError, match=r'faulty .*nested too deep'):
    bundle.Bundle(made)
