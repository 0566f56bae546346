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
