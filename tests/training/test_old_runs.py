"""A run of an older version predicts and evaluates what it did then.

The run is described in `golden/README.md`.
"""

import csv
import json
import pathlib
import shutil

import numpy as np
import pytest

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.config import saved as config_saved
from dvhflax.evaluation.evaluate import evaluate
from dvhflax.training.runs import load_networks
from dvhflax.tuning import wish
from dvhflax.tuning.session import Session

ARCHIVE = pathlib.Path(__file__).parents[1] / 'golden' / 'first_format.zip'
CONFIG = 'run/checkpoints/114/config/metadata'
DATA = 'run/checkpoints/114/data/metadata'
KEYS = sorted(
  key
  for key in config_lib.flatten(config_lib.default())
  if not key.startswith('planning.')
)


@pytest.fixture(scope='module')
def old(tmp_path_factory) -> pathlib.Path:
  """The unpacked archive, to read only."""
  folder = tmp_path_factory.mktemp('old')
  shutil.unpack_archive(ARCHIVE, folder)
  return folder


@pytest.fixture(scope='module')
def saved(old):
  return json.loads((old / CONFIG).read_text())


# A run without these is taken for one of before them.
NEWEST = config_saved.LATER[-1].keys()


def copy(old, folder, item, change) -> str:
  """A copy of the run, the item changed; its workdir."""
  shutil.copytree(old / 'run', folder / 'run')
  values = json.loads((folder / item).read_text())
  change(values)
  (folder / item).write_text(json.dumps(values))
  return str(folder / 'run')


def without(values, key):
  """A copy of nested dicts without `a.b`."""
  values = json.loads(json.dumps(values))
  part, *names = values, *key.split('.')
  for name in names[:-1]:
    part = part.get(name, {})
  part.pop(names[-1], None)
  return values


def session(workdir, old):
  network, cohort, _ = load_networks(
    str(workdir), cohort_path=str(old / 'cohort')
  )
  return Session(network, cohort, 'sim-0002')


def test_doses_are_those_of_then(old):
  expected = np.load(old / 'expected' / 'doses.npz')
  opened = session(old / 'run', old)
  np.testing.assert_allclose(
    opened.first_dose().dose, expected['first'], atol=1e-4
  )
  curves, reference = wish.from_plan(
    opened.cohort, 'sim-0000', 1, opened.present, 78.0
  )
  step = opened.tune(curves=curves, reference_gy=reference.gy)
  np.testing.assert_allclose(step.dose, expected['wish'], atol=1e-4)
  # The wish is heard: it moves the dose by far more than the tolerance.
  assert np.abs(expected['wish'] - expected['first']).max() > 5e-3


def test_errors_are_those_of_then(old, tmp_path):
  evaluate(
    str(old / 'run'),
    cohort_path=str(old / 'cohort'),
    output=str(tmp_path / 'evaluation'),
  )
  summary, expected = (
    json.loads((folder / 'summary.json').read_text())
    for folder in (tmp_path / 'evaluation', old / 'expected')
  )
  assert summary['step'] == 114 and summary['samples'] == 4
  for name, wanted in expected['table1']['network']['structures'].items():
    found = summary['table1']['network']['structures'][name]
    for dose in ('mean_dose', 'max_dose'):
      for number in ('mean', 'absolute_mean', 'std'):
        assert found[dose][number] == pytest.approx(
          wanted[dose][number], abs=0.02
        )


def test_the_saved_configuration_is_read_as_it_was(saved):
  config = config_saved.read(saved)
  assert config.cohort.grid == (16, 16, 8) and config.model.beams == 7
  flat = config_lib.flatten(config)
  for group, values in saved.items():
    if isinstance(values, dict) and group != 'planning':
      for name, value in values.items():
        assert flat[f'{group}.{name}'] == value
  assert config_lib.protocol(config).beamlet_mm == 20


def test_keys_that_are_newer_than_a_run_get_what_was_before_them(saved):
  """A new key that is not in `config_saved.LATER` fails here."""
  whole = config_lib.flatten(config_saved.read(saved))
  for number in range(len(config_saved.LATER)):
    older, newer = saved, {}
    for keys in config_saved.LATER[number:]:
      newer |= keys
    for key in newer:
      older = without(older, key)
    flat = config_lib.flatten(config_saved.read(older))
    for key in KEYS:
      wanted = newer.get(key, whole[key])
      assert flat[key] == (list(wanted) if type(wanted) is tuple else wanted)
    if 'planning' in newer:
      assert flat['planning.beamlet_mm'] == 5.0


@pytest.mark.parametrize('share', [0.0, 0.4])
def test_the_own_share_of_training_ruled_all_wishes(share, saved):
  older = json.loads(json.dumps(saved))
  older['data']['own_wish_share'] = share
  config = config_saved.read(older)
  assert config.data.own_wish_share == share
  assert config.data.validation_own_wish_share == share
  assert config.evaluation.own_wish_share == share
  # Not that of a run which has a share of its own.
  newer = config.to_dict()
  newer['evaluation']['own_wish_share'] = 0.7
  config = config_saved.read(newer)
  assert config.data.validation_own_wish_share == share
  assert config.evaluation.own_wish_share == 0.7


@pytest.mark.parametrize('kind', ['own', 'bent'])
def test_the_wishes_of_an_evaluation(kind, old, tmp_path):
  def change(values):
    if kind == 'own':  # an older run, of before the share of evaluation
      values['data']['own_wish_share'] = 1.0
      return
    newer = config_saved.read(values).to_dict()
    newer['evaluation']['bent_wish_share'] = 1.0
    values |= newer

  evaluate(
    copy(old, tmp_path, CONFIG, change),
    cohort_path=str(old / 'cohort'),
    output=str(tmp_path / 'evaluation'),
  )
  with open(tmp_path / 'evaluation' / 'samples.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert all(row['patient_id'] == row['desired_patient_id'] for row in rows)
  assert {row['bent'] for row in rows} == {str(kind == 'bent')}


def test_an_older_run_predicts_the_same(old, tmp_path):
  def change(values):
    del values['cohort']['ct'], values['cohort']['replace_plans']
    del values['planning']
    values['data']['in_memory'] = True

  opened = session(copy(old, tmp_path, CONFIG, change), old)
  expected = np.load(old / 'expected' / 'doses.npz')
  np.testing.assert_allclose(
    opened.first_dose().dose, expected['first'], atol=1e-4
  )


@pytest.mark.parametrize('key', sorted({*KEYS, 'planning'} - NEWEST))
def test_a_lost_key_is_named(key, saved):
  complete = config_saved.read(saved).to_dict()
  with pytest.raises(errors.ConfigError, match=f'missing .* key: {key}$'):
    config_saved.read(without(complete, key))


@pytest.mark.parametrize(
  'item, change, words',
  [
    (CONFIG, lambda c: c['model'].pop('norm'), 'model.norm'),
    (CONFIG, lambda c: c['model'].update(norm=3), 'model.norm=3'),
    (CONFIG, lambda c: c['model'].update(depth=3), 'model.depth'),
    (CONFIG, lambda c: c.update(cohort=3), 'cohort=3'),
    (CONFIG, lambda c: c.update(planning=3), 'planning=3'),
    (DATA, lambda d: d.pop('structures'), "lacks 'structures'"),
    (DATA, lambda d: d['dvh'].pop('kind') and d.pop('dvh'), "lacks 'dvh'"),
    (DATA, lambda d: d['dvh'].pop('max_dose'), "lacks 'max_dose'"),
    (DATA, lambda d: d['dvh'].update(points=9), 'impossible values'),
    (DATA, lambda d: d.update(spacing_mm=[1, 2, 'x']), 'is faulty'),
  ],
)
def test_a_damaged_run_says_what(item, change, words, old, tmp_path):
  workdir = copy(old, tmp_path, item, change)
  with pytest.raises(errors.CheckpointError, match=words) as caught:
    session(workdir, old)
  assert workdir in str(caught.value)
