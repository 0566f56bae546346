"""A tuning session on the tiny run, its audit trail, the command line."""

import dataclasses
import json
import os
import subprocess
import sys

from conftest import GRID
import jax
import nibabel
import numpy as np
import pydicom
import pytest

from dvhflax.checksum import checksum
from dvhflax.cohort.store import Cohort
from dvhflax.errors import SessionError, WishError
from dvhflax.evaluation.predict import predict
from dvhflax.report import prediction
from dvhflax.training import runs as networks
from dvhflax.tuning import plan_metrics
from dvhflax.tuning import trail as trail_lib
from dvhflax.tuning.session import Session

POINTS = 'rectum V50% <= 30%; PTV D95 >= 90%'


@pytest.fixture(scope='module')
def network(trained_run):
  return networks.load_network(trained_run, 'best', None)


def test_tune_undo_save_and_replay(network, tmp_path):
  one = Session(*network, 'p6', who='A. Physician')
  first = one.first_dose()
  tuned = one.tune(POINTS)
  assert tuned.desired_dvh is not None
  again = one.undo()
  assert again is first
  plan = one.cohort.dvh[0, 0]
  wished = one.tune(['rectum mean <= 30 Gy'], curves=plan)
  assert not np.array_equal(wished.desired_dvh, plan)
  path = str(tmp_path / 'trail.json')
  one.save(path)
  with open(path) as file:
    trail = json.load(file)
  actions = [entry['action'] for entry in trail['steps']]
  assert actions == ['first_dose', 'tune', 'undo', 'tune']
  assert trail['steps'][0]['who'] == 'A. Physician'
  other = Session(*network, 'p6')
  replayed = other.replay(path)
  assert len(replayed) == 2
  np.testing.assert_array_equal(replayed[0].dose, first.dose)
  np.testing.assert_array_equal(replayed[1].dose, wished.dose)
  other.save(path)
  with open(path) as file:
    assert json.load(file) == trail


def test_replay_allows_for_another_rounding(network, tmp_path):
  loaded, cohort = network
  one = Session(loaded, cohort, 'p6')
  one.first_dose()
  one.tune(POINTS)
  path = str(tmp_path / 'trail.json')
  one.save(path)
  # Not one factor: that would be another reference, and the same Gy.
  rounding = 1 + 1e-5 * np.linspace(0, 1, GRID[2])
  elsewhere = dataclasses.replace(
    loaded, decode=lambda *inputs: loaded.decode(*inputs) * rounding
  )
  for atol in (0.0, 1e-7):
    with pytest.raises(SessionError, match=r'step 0 gives another.*with atol'):
      Session(elsewhere, cohort, 'p6').replay(path, atol=atol)
  replayed = Session(elsewhere, cohort, 'p6').replay(path, atol=1e-3)
  assert len(replayed) == 2
  assert not np.array_equal(replayed[1].dose, one.current.dose)


def test_points_in_cc(network):
  one = Session(*network, 'p6')
  one.first_dose()
  whole = one.masks[..., 1].sum() * 0.045
  points = one.tune(['rectum V10 <= 1 cc', 'rectum V10 <= 5%']).metrics[
    'points'
  ]
  assert [point['unit'] for point in points] == ['cc', '%']
  assert points[0]['achieved'] == pytest.approx(
    points[1]['achieved'] / 100 * whole
  )
  with pytest.raises(WishError, match=f'{whole:.1f} cc'):
    one.tune('rectum V10 <= 400 cc')


def test_the_encoder_runs_once(trained_run, monkeypatch):
  calls, made = [], []

  def counted(model):
    encode, decode = halves(model)
    made.extend([encode, decode])
    return lambda *args: calls.append(1) or encode(*args), decode

  halves = networks.halves
  monkeypatch.setattr(networks, 'halves', counted)
  one = Session.open(trained_run, 'p6')
  one.first_dose()
  for most in (50, 30, 10):
    one.tune(f'rectum V50% <= {most}%')
  assert len(calls) == 1
  assert [half._cache_size() for half in made] == [1, 1]


def asking(**changed):
  """A step of a trail."""
  return {
    'action': 'tune', 'asked': {'points': [], **changed}, 'dose_sha256': '',
    'metrics': {'achieved': {}},
  }  # fmt: skip


def test_what_a_trail_does_not_tell_is_another_dose(network, tmp_path):
  one, path = Session(*network, 'p6'), str(tmp_path / 'trail.json')
  one.first_dose()
  one.save(path)
  with open(path) as file:
    trail = json.load(file)
  step = trail['steps'][0]
  for row in (None, {}, {'mean': 'x'}):
    achieved = {'achieved': {**step['metrics']['achieved'], 'PTV': row}}
    changed = {**step, 'metrics': achieved, 'dose_sha256': ''}
    forged = {**trail, 'steps': [changed]}
    with open(path, 'w') as file:
      json.dump({**forged, 'sha256': trail_lib.digest(forged)}, file)
    with pytest.raises(SessionError, match='step 0 gives another dose'):
      Session(*network, 'p6').replay(path, atol=1e-3)


def test_a_trail_that_is_nested_deeply_is_refused(network, tmp_path):
  path = tmp_path / 'trail.json'
  path.write_text('[' * 100_000)
  with pytest.raises(SessionError, match='cannot be read: maximum recursion'):
    Session(*network, 'p6').replay(path)


def test_another_trail_is_refused(network, tmp_path):
  one = Session(*network, 'p6')
  one.first_dose()
  path = str(tmp_path / 'trail.json')
  one.save(path)
  with pytest.raises(SessionError, match='another patient'):
    Session(*network, 'p7').replay(path)
  with open(path) as file:
    trail = json.load(file)

  def write(changed):
    with open(path, 'w') as file:
      json.dump(changed, file)

  write({**trail, 'steps': [{**trail['steps'][0], 'who': 'another'}]})
  with pytest.raises(SessionError, match='was changed since'):
    Session(*network, 'p6').replay(path)
  forged = {**trail, 'steps': [{**trail['steps'][0], 'dose_sha256': '0'}]}
  write({**forged, 'sha256': trail_lib.digest(forged)})
  with pytest.raises(SessionError, match='another dose than is recorded'):
    Session(*network, 'p6').replay(path)
  other = {**network[0].identity, 'weights_sha256': '0'}
  forged = {**trail, 'checkpoint': {'network': other, 'anatomy': None}}
  write({**forged, 'sha256': trail_lib.digest(forged)})
  with pytest.raises(SessionError, match='another checkpoint'):
    Session(*network, 'p6').replay(path)
  for key, value, words in (
    ('masks_sha256', '0', "'p6' with other masks than here: read the files"),
    ('prescription_gy', 60.0, "'p6' with another prescription: 60.0 Gy, here"),
  ):
    forged = {**trail, 'patient': {**trail['patient'], key: value}}
    write({**forged, 'sha256': trail_lib.digest(forged)})
    with pytest.raises(SessionError, match=words):
      Session(*network, 'p6').replay(path)
  for key, value, words in (
    ('steps', 5, 'damaged steps'),
    ('steps', [{**trail['steps'][0], 'action': 'foo'}], 'damaged steps'),
    ('checkpoint', 5, 'does not say whose'),
    ('steps', [trail['steps'][0], asking(curves=[[1.0], [[]]])], 'damaged'),
    ('steps', [trail['steps'][0], asking(curves=[[1.0], []])], 'damaged'),
    ('steps', [trail['steps'][0], asking(reference_gy={})], 'damaged'),
    ('steps', [trail['steps'][0], asking(points=[5])], 'damaged'),
    ('steps', [trail['steps'][0], asking(points=['x'])], 'step 1: .x. is not'),
    ('steps', [{**trail['steps'][0], 'time': {}}], 'damaged steps'),
  ):
    forged = {**trail, key: value}
    write({**forged, 'sha256': trail_lib.digest(forged)})
    with pytest.raises(SessionError, match=words):
      Session(*network, 'p6').replay(path)
  write([])
  with pytest.raises(SessionError, match='not an audit trail'):
    Session(*network, 'p6').replay(path)


def test_what_is_out_of_turn_is_refused(network):
  one = Session(*network, 'p1')
  with pytest.raises(SessionError, match='call first_dose'):
    one.tune(POINTS)
  one.first_dose()
  for act in (one.undo, one.first_dose, one.tune):
    with pytest.raises(SessionError):
      act()
  with pytest.raises(WishError, match='the patient has no such structure'):
    one.tune('rectum V50% <= 30%')


def test_metrics_of_a_plan_and_of_its_dvh_agree(cohort):
  dose, masks = cohort.dose(0, 0), cohort.masks(0)
  reference = cohort.reference(0, 0)
  assert reference.gy == 85 and reference.prescription_gy == 78
  achieved = plan_metrics.achieved(dose, masks, cohort.structures, reference)
  desired = plan_metrics.desired(
    cohort.dvh[0, 0], cohort.structures, cohort.dvh_spec, reference
  )
  level = float(85 * cohort.dvh_spec.levels[1])
  for name, row in desired.items():
    for key in ('mean', 'max', 'D98%', 'D95%', 'D2%'):
      assert row[key] == pytest.approx(achieved[name][key], abs=level)
  ptv = achieved['PTV']
  assert ptv['V95%'] == 100
  # Half of it receives 80 Gy, the other half 90 on average of 85.
  assert ptv['D95%'] == pytest.approx(80, abs=0.05)
  assert ptv['max'] == pytest.approx(90, abs=0.05)
  assert ptv['HI'] == pytest.approx(10 / 85, abs=1e-3)


def test_reach(cohort):
  reach = plan_metrics.reach_of(cohort, cohort.present[0])
  train = reach.compare(cohort.dvh[0, 1])
  assert train['distance'] == 0 and train['farther_than'] == 0
  far = reach.compare(np.ones_like(cohort.dvh[0, 0]))
  assert far['distance'] > far['usual_95'] and far['farther_than'] == 1


def command(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'dvhflax', 'predict', *arguments],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def test_command_line(trained_run, tmp_path):
  output = tmp_path / 'p6'
  run = f'--workdir={trained_run}', '--patient=p6', f'--output={output}'
  result = command(*run, f'--points={POINTS}')
  assert result.returncode == 0, result.stderr
  assert 'not for clinical use' in result.stdout
  assert 'rectum V50% <= 30%: achieved' in result.stdout
  with open(output / 'metrics.json') as file:
    written = json.load(file)
  assert written['use'].endswith('not for clinical use')
  assert written['reference_from'] == (
    'D95% of PTV = 80 Gy, as in the training plans'
  )
  assert written['achieved']['PTV']['D95%'] == pytest.approx(80)
  with np.load(output / 'dose.npz') as stored:
    dose, reference_gy = stored['dose'], float(stored['reference_gy'])
  assert reference_gy > 85
  image = nibabel.load(output / 'dose.nii.gz')
  np.testing.assert_allclose(image.get_fdata(), reference_gy * dose, rtol=1e-5)
  assert nibabel.aff2axcodes(image.affine) == ('L', 'P', 'S')
  # Round the origin: nothing tells where a simulated patient lies.
  np.testing.assert_allclose(image.affine[:3, 3], [10.5, 10.5, -7.5])
  rtdose = pydicom.dcmread(output / 'dose.dcm')
  assert rtdose.DoseComment.endswith('not for clinical use')
  assert f'Asked for: {POINTS}' in rtdose.ImageComments
  np.testing.assert_allclose(rtdose.ImagePositionPatient, [-10.5, -10.5, -7.5])
  assert (output / 'sheet.png').read_bytes()[:4] == b'\x89PNG'
  assert (output / 'dvh.csv').read_text().startswith('structure,dose,desired')
  replayed = Session.open(trained_run, 'p6').replay(output / 'trail.json')
  np.testing.assert_allclose(replayed[-1].dose, dose)


@pytest.mark.parametrize(
  'wished, points, reason',
  [
    (None, 'rectum V70', 'is not a point'),
    ('plan:p0/x', None, 'write plan:PATIENT/NUMBER'),
    ('none.csv', None, 'No such file'),
  ],
)
def test_wishes_that_are_not_read(network, wished, points, reason):
  with pytest.raises(WishError, match=reason):
    predict(Session(*network, 'p6'), wished, points)


@pytest.mark.parametrize(
  'arguments, reason',
  [
    (['--patient=x'], "no patient 'x'"),
    (['--patient=p6', '--points=colon V70 <= 9%'], "no structure 'colon'"),
  ],
  ids=['patient', 'structure'],
)
def test_errors_are_one_line(arguments, reason, trained_run):
  result = command(f'--workdir={trained_run}', *arguments)
  assert result.returncode == 2
  (line,) = result.stderr.strip().splitlines()
  assert reason in line


def test_checksum_tells_weights_apart(network):
  tree = {'a': np.zeros(3), 'b': np.ones(2)}
  moved = jax.tree.map(lambda x: x + 1e-9, tree)
  assert checksum(tree) != checksum(moved)


def test_a_number_that_is_not_finite_is_null_in_json(network, tmp_path):
  """HI of a dose whose D50% is not positive is NaN, which JSON lacks."""
  loaded, cohort = network
  inverted = dataclasses.replace(
    loaded, decode=lambda *inputs: -loaded.decode(*inputs)
  )
  exact = dataclasses.replace(cohort.metadata, normalisation={
    'kind': 'prescription'
  })  # fmt: skip
  one = Session(inverted, Cohort(cohort.path, exact), 'p6')
  step = one.first_dose()
  assert np.isnan(step.metrics['achieved']['PTV']['HI'])
  prediction.write(one, step, str(tmp_path))
  for name in ('metrics.json', 'trail.json'):
    text = (tmp_path / name).read_text()

    def refuse(constant):
      raise AssertionError(constant)

    json.loads(text, parse_constant=refuse)
  again = Session(inverted, Cohort(cohort.path, exact), 'p6')
  assert len(again.replay(tmp_path / 'trail.json')) == 1
