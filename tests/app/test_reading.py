"""What the page reads: patients, states, volumes."""

import numpy as np
import pytest

from dvhflax.app import volumes


def volume(answer, kind, shape):
  """A body `[Z][Y][X]` as an array `[X, Y, Z]`."""
  found = np.frombuffer(answer.content, kind)
  return found.reshape(shape[::-1]).transpose(2, 1, 0)


def test_about_and_patients(client):
  about = client.get('/api/v1/about').json()
  assert not about['loading']
  assert about['use'].endswith('not for clinical use')
  assert len(about['dvh']['levels']) == about['dvh']['points']
  assert client.get('/api/v1/health').json() == {'ok': True}
  patients = client.get('/api/v1/patients').json()
  assert [one['label'] for one in patients] == [f'p{n}' for n in range(8)]
  assert patients[6] == {
    'key': 'p6',
    'label': 'p6',
    'source': 'cohort',
    'prescription_gy': 78.0,
    'plans': 3,
    'faults': None,
  }


def test_state_of_a_new_session(client, begin, cohort):
  state = begin()
  index = cohort.index('p6')
  masks = cohort.masks(index)
  assert state['patient']['label'] == 'p6'
  assert [s['name'] for s in state['structures']] == ['body', 'rectum', 'PTV']
  voxel_cc = 3 * 3 * 5 / 1000
  for s, structure in enumerate(state['structures']):
    volume_cc = float(masks[..., s].sum()) * voxel_cc
    assert structure['volume_cc'] == pytest.approx(volume_cc)
  grid = state['grid']
  assert grid['shape'] == [8, 8, 4] and grid['spacing_mm'] == [3, 3, 5]
  # The middle of the grid is the origin, so voxel 0 is half a grid away.
  assert grid['origin_mm'] == [-10.5, -10.5, -7.5]
  target = np.argwhere(masks[..., 2])
  np.testing.assert_allclose(grid['isocentre'], target.mean(0))
  [step] = state['steps']
  assert step['action'] == 'first_dose' and step['id'] == 'step-0'
  assert (state['can_undo'], state['can_redo']) == (False, False)
  assert state['can_have']['kind'] == 'own'
  low, high = (
    np.array(state['can_have']['low']),
    np.array(state['can_have']['high']),
  )
  assert low.shape == (3, 16) and (low <= high).all()
  ids = [dose['id'] for dose in state['doses']]
  assert ids == ['step-0', 'plan-0', 'plan-1', 'plan-2']
  again = client.get(f'/api/v1/sessions/{state["session"]}').json()
  assert again == state
  listed = client.get('/api/v1/sessions').json()
  assert {'session', 'patient', 'label', 'steps', 'saved'} == set(listed[0])
  assert state['session'] in [one['session'] for one in listed]


def test_dvhs_of_the_doses_and_of_all_plans(client, begin, cohort):
  state = begin()
  one = f'/api/v1/sessions/{state["session"]}'
  goals = ['rectum V40 <= 30%', 'PTV mean <= 85.2 Gy', 'PTV max <= 90 Gy']
  state = client.put(f'{one}/goals', json=goals).json()
  index, shape = cohort.index('p6'), state['grid']['shape']
  bits = volume(client.get(f'{one}/masks'), 'u1', shape)
  plans = client.get(f'{one}/plans').json()
  assert [plan['number'] for plan in plans] == [0, 1, 2]
  found = []
  for plan in plans:
    # References are of each plan, and none is the prescription.
    reference = cohort.reference(index, plan['number'])
    assert plan['reference_gy'] == pytest.approx(reference.gy)
    answer = client.get(f'{one}/doses/{plan["dose"]}')
    unit = float(answer.headers['x-gy-per-unit'])
    dose_gy = unit * volume(answer, '<u2', shape)
    levels_gy = np.array(state['dvh']['levels']) * reference.gy
    for s, vector in enumerate(plan['achieved']):
      inside = dose_gy[(bits >> s) & 1 > 0]
      volumes = (inside[:, None] >= levels_gy - 0.01).mean(0)
      # float16 doses of 0.05 Gy may lie on the other side of a level.
      assert np.median(np.abs(volumes - vector)) < 1e-6
    measured = client.get(f'{one}/doses/{plan["dose"]}/dvh').json()
    rectum = dose_gy[bits & 2 > 0]
    assert measured['goals'][0]['achieved'] == pytest.approx(
      100 * (rectum >= 40).mean()
    )
    assert measured['reference_gy'] == 78
    ptv = dose_gy[bits & 4 > 0].mean()
    for mean in (
      measured['goals'][1]['achieved'],
      measured['metrics']['achieved']['PTV']['mean'],
    ):
      assert mean == pytest.approx(ptv, abs=0.05)
    found.append(measured)
  can_have = state['can_have']
  assert can_have['reference_gy'] == 78
  for s, name in enumerate(('body', 'rectum', 'PTV')):
    curves = np.array([one['achieved'][s] for one in found])
    for told, exact in (('low', curves.min(0)), ('high', curves.max(0))):
      # Between levels of 6 Gy a curve is known to be straight alone.
      apart = np.abs(np.array(can_have[told][s]) - exact).mean()
      assert apart < 0.07, (name, told)
  v40, mean, most = can_have['goals']
  assert v40['text'] == goals[0] and v40['unit'] == '%'
  assert v40['low'] <= v40['high']
  means = [one['goals'][1]['achieved'] for one in found]
  assert mean['low'] == pytest.approx(min(means), abs=0.8)
  assert mean['kept'] in (1, 2) and mean['high'] - mean['low'] < 1.1
  assert most['low'] is None and most['kept'] is None
  step = client.get(f'{one}/doses/step-0/dvh').json()
  assert step['achieved'] == state['steps'][0]['achieved']
  assert step['goals'] == state['steps'][0]['goals']
  assert client.get(f'{one}/doses/plan-9/dvh').status_code == 404


def test_nobody_wished_for_a_first_dose(client, begin):
  """It is for the mean DVH of the training plans: no wish to go on from."""
  state = begin()
  one = f'/api/v1/sessions/{state["session"]}'
  [first] = state['steps']
  assert first['desired'] is None and first['metrics']['desired'] is None
  assert first['distance']['wish'] is None and first['distance']['answer'] > 0
  point = {'points': ['rectum mean <= 10 Gy']}
  implied = client.post(f'{one}/steps', json=point).json()['steps'][1]
  client.post(f'{one}/undo')
  bent = {**point, 'from': 'achieved'}
  asked = client.post(f'{one}/steps', json=bent).json()['steps'][1]
  assert implied['desired'] == asked['desired'] is not None
  # What was not asked for stays what it was.
  assert asked['desired'][2] == pytest.approx(first['achieved'][2], abs=1e-6)
  assert implied['distance']['wish'] > 0


def test_volumes(client, begin, cohort, served):
  state = begin()
  one = f'/api/v1/sessions/{state["session"]}'
  shape, index = state['grid']['shape'], cohort.index('p6')
  opened = served.desk._open[state['session']]
  wanted = opened.session.current.dose_gy
  answer = client.get(f'{one}/doses/step-0')
  unit = float(answer.headers['x-gy-per-unit'])
  dose = unit * volume(answer, '<u2', shape)
  np.testing.assert_allclose(dose, np.maximum(wanted, 0), atol=0.51 * unit)
  assert unit < 0.01
  plan = client.get(f'{one}/doses/plan-1')
  dose = float(plan.headers['x-gy-per-unit']) * volume(plan, '<u2', shape)
  wanted = cohort.reference(index, 1).to_gy(cohort.dose(index, 1))
  np.testing.assert_allclose(dose, wanted, atol=0.01)
  answer = client.get(f'{one}/masks')
  assert answer.headers['x-bytes'] == '1'
  bits = volume(answer, 'u1', shape)
  for s in range(3):
    np.testing.assert_array_equal(bits >> s & 1, cohort.masks(index)[..., s])


@pytest.mark.parametrize(
  'path',
  [
    'sessions/0123456789abcdef',
    'sessions/{session}/doses/step-9',
    'sessions/{session}/doses/plan-3',
    'sessions/{session}/doses/deliverable-0',
    'sessions/{session}/doses/step--1',
    'sessions/{session}/doses/٣',
    'sessions/{session}/ct',
    'jobs/none',
    'nothing',
  ],
)
def test_what_is_not_there(client, begin, path):
  path = path.format(session=begin()['session'])
  answer = client.get(f'/api/v1/{path}')
  assert answer.status_code == 404
  assert answer.json()['error']


def test_other_methods_are_refused(client):
  answer = client.put('/api/v1/about')
  assert answer.status_code == 405
  assert answer.json()['error']


@pytest.mark.parametrize(
  ('structures', 'size'), [(3, 1), (8, 1), (9, 2), (17, 4), (40, 8)]
)
def test_masks_have_a_bit_a_structure(structures, size):
  rng = np.random.default_rng(0)
  masks = rng.integers(0, 2, (2, 3, 4, structures)).astype(np.uint8)
  body, found = volumes.mask_bytes(masks)
  assert found == size
  bits = np.frombuffer(body, f'<u{size}').reshape(4, 3, 2).transpose(2, 1, 0)
  for s in range(structures):
    here = bits >> np.uint64(s) & np.uint64(1) if size == 8 else bits >> s & 1
    np.testing.assert_array_equal(here, masks[..., s])


def test_a_dose_of_zeros_has_a_unit():
  body, unit = volumes.dose_bytes(np.zeros((2, 2, 2), np.float32))
  assert unit > 0 and not any(body)
