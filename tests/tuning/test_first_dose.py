"""Whose the first dose of a session is, and that the audit trail tells."""

import json

from conftest import make_patient
import numpy as np
import pytest

from dvhflax.errors import SessionError
from dvhflax.evaluation.predict import predict_all
from dvhflax.training import first_dose
from dvhflax.training import runs as networks
from dvhflax.tuning import trail as trail_lib
from dvhflax.tuning.session import Session


@pytest.fixture(scope='module')
def network(matched_run):
  return networks.load_network(matched_run)


@pytest.fixture(scope='module')
def within(matched_run):
  """The anatomy-only network's own run."""
  return networks.load_network(first_dose.workdir_of(matched_run))[0]


def dose_of(network, masks):
  features = network.features(masks, (3.0, 3.0, 5.0))
  return network.decode(features, np.zeros((3, 16), np.float32))


def saved(session, path):
  session.save(path)
  return json.loads(path.read_text())


def rewritten(trail, path, asked):
  """The trail as it would be with another first step."""
  step = {**trail['steps'][0], 'asked': asked}
  changed = {**trail, 'steps': [step, *trail['steps'][1:]]}
  path.write_text(json.dumps({**changed, 'sha256': trail_lib.digest(changed)}))


def test_it_is_of_the_network_within(network, within, tmp_path):
  one = Session(*network, 'p6')
  step = one.first_dose()
  np.testing.assert_allclose(step.dose, dose_of(within, one.masks), atol=1e-6)
  assert step.desired_dvh is None and 'desired' not in step.metrics
  tuned = one.tune('rectum mean <= 30 Gy')
  assert np.abs(tuned.dose - step.dose).max() > 1e-3
  trail = saved(one, tmp_path / 'trail.json')
  assert trail['steps'][0]['asked'] == {'of': 'within'}
  replayed = Session(*network, 'p6').replay(tmp_path / 'trail.json')
  np.testing.assert_array_equal(replayed[0].dose, step.dose)
  np.testing.assert_array_equal(replayed[1].dose, tuned.dose)


def test_a_run_that_is_named_goes_before(network, within, tmp_path):
  one = Session(*network, 'p6', within)
  step = one.first_dose()
  np.testing.assert_array_equal(step.dose, dose_of(within, one.masks))
  trail = saved(one, tmp_path / 'trail.json')
  assert trail['steps'][0]['asked'] == {'of': 'anatomy'}
  # Trails before there were networks within others do not tell.
  rewritten(trail, tmp_path / 'old.json', None)
  for name in ('trail.json', 'old.json'):
    (again,) = Session(*network, 'p6', within).replay(tmp_path / name)
    np.testing.assert_array_equal(again.dose, step.dose)


def test_a_network_alone_gives_that_for_the_mean_dvh(trained_run, tmp_path):
  network = networks.load_network(trained_run)
  one = Session(*network, 'p6')
  step = one.first_dose()
  np.testing.assert_array_equal(step.desired_dvh, network[0].mean_dvh)
  trail = saved(one, tmp_path / 'trail.json')
  assert trail['steps'][0]['asked'] == {'of': 'mean_dvh'}
  rewritten(trail, tmp_path / 'old.json', None)
  (again,) = Session(*network, 'p6').replay(tmp_path / 'old.json')
  np.testing.assert_array_equal(again.dose, step.dose)
  rewritten(trail, tmp_path / 'other.json', {'of': 'within'})
  with pytest.raises(SessionError, match="no first dose 'within'"):
    Session(*network, 'p6').replay(tmp_path / 'other.json')
  rewritten(trail, tmp_path / 'damaged.json', {'of': 'something'})
  with pytest.raises(SessionError, match='damaged steps'):
    Session(*network, 'p6').replay(tmp_path / 'damaged.json')


def test_an_old_trail_of_a_network_with_one_within(network, tmp_path):
  """What asked for the mean DVH then still does."""
  one = Session(*network, 'p6')
  step = one._first_dose('mean_dvh')
  rewritten(saved(one, tmp_path / 'now.json'), tmp_path / 'old.json', None)
  (again,) = Session(*network, 'p6').replay(tmp_path / 'old.json')
  np.testing.assert_array_equal(again.dose, step.dose)


def test_a_prediction_without_a_wish_is_that_dose(
  matched_run, within, tmp_path
):
  (done,) = predict_all(matched_run, patient='p6', output=str(tmp_path))
  wanted = dose_of(within, make_patient(6).masks)
  np.testing.assert_allclose(done.step.dose, wanted, atol=1e-6)
  with np.load(tmp_path / 'dose.npz') as stored:
    np.testing.assert_array_equal(stored['dose'], done.step.dose)
