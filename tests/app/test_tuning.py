"""Steps of a session, over HTTP."""

import json

import numpy as np
import pytest

PULL = {'structure': 'rectum', 'dose_gy': 40.0, 'volume_percent': 20.0}


def dose_of(client, session, name):
  answer = client.get(f'/api/v1/sessions/{session}/doses/{name}')
  assert answer.status_code == 200, answer.text
  return answer.content, answer.headers['x-gy-per-unit']


@pytest.fixture
def one(begin):
  return f'/api/v1/sessions/{begin()["session"]}'


def test_a_pull_bends_the_curve_and_changes_the_dose(client, begin):
  state = begin()
  one = f'/api/v1/sessions/{state["session"]}'
  first = dose_of(client, state['session'], 'step-0')
  answer = client.post(f'{one}/steps', json={'handles': [PULL], 'name': 'less'})
  assert answer.status_code == 200, answer.text
  tuned = answer.json()
  step = tuned['steps'][tuned['current']]
  assert (step['id'], step['name'], step['action']) == (
    'step-1',
    'less',
    'tune',
  )
  levels = np.array(tuned['dvh']['levels']) * step['desired_reference_gy']
  at = np.interp(40.0, levels, step['desired'][1])
  assert at == pytest.approx(0.2, abs=1e-3)
  # The other curves stay what they were.
  np.testing.assert_allclose(
    step['desired'][2], state['steps'][0]['achieved'][2], atol=1e-6
  )
  assert dose_of(client, state['session'], 'step-1') != first
  assert step['points'][0]['unit'] == '%'
  assert set(step['distance']) == {
    'wish', 'answer', 'in_reach', 'stands_in_the_way', 'share',
  }  # fmt: skip


def test_undo_and_redo_bring_back_the_very_dose(client, begin):
  state = begin()
  session = state['session']
  one = f'/api/v1/sessions/{session}'
  first = dose_of(client, session, 'step-0')
  client.post(f'{one}/steps', json={'handles': [PULL]})
  tuned = dose_of(client, session, 'step-1')
  undone = client.post(f'{one}/undo').json()
  assert (undone['current'], undone['can_redo']) == (0, True)
  assert dose_of(client, session, 'step-0') == first
  assert client.get(f'{one}/doses/step-1').status_code == 404
  redone = client.post(f'{one}/redo').json()
  assert redone['steps'][-1]['id'] == 'step-1' and not redone['can_redo']
  assert dose_of(client, session, 'step-1') == tuned
  balanced = client.post(f'{one}/balanced').json()
  assert balanced['steps'][-1]['action'] == 'balanced'
  assert dose_of(client, session, balanced['steps'][-1]['id']) == first


def test_bends_start_from_the_curves_that_are_named(client, one):
  client.post(f'{one}/steps', json={'handles': [PULL]})
  other = [{**PULL, 'dose_gy': 10.0, 'volume_percent': 95.0}]
  body = {'handles': other, 'from': 'achieved'}
  achieved = client.post(f'{one}/steps', json=body).json()
  before = achieved['steps'][1]['achieved']
  np.testing.assert_allclose(
    achieved['steps'][2]['desired'][2], before[2], atol=1e-5
  )
  curves = {'PTV': achieved['steps'][0]['achieved'][2]}
  answer = client.post(f'{one}/steps', json={'curves': curves})
  assert answer.status_code == 200, answer.text
  np.testing.assert_allclose(
    answer.json()['steps'][3]['desired'][2], curves['PTV'], atol=1e-6
  )


def test_goals_of_old_sessions_can_be_removed_one_by_one(client, one, served):
  old = ['rectum V1000 <= 10%', 'rectum mean <= 30']
  served.desk._open[one.rpartition('/')[2]].goals = [*old]
  for goals in ([*old, 'rectum V40 <= 1%'], old[1:]):
    answer = client.put(f'{one}/goals', json=goals)
    assert answer.json().get('goals') == goals, answer.text
  [result] = client.get(one).json()['steps'][0]['goals']
  assert result['met'] is None and 'give the dose' in result['fault']


def test_names_notes_goals_and_locks(client, one):
  state = client.patch(
    f'{one}/steps/0', json={'name': 'begin', 'note': 'two\nlines'}
  ).json()
  assert state['steps'][0]['name'] == 'begin'
  assert state['steps'][0]['note'] == 'two\nlines'
  assert state['doses'][0]['label'] == 'begin'
  goals = ['rectum V40 <= 1%', 'PTV D95 >= 10 Gy']
  state = client.put(f'{one}/goals', json=goals).json()
  assert state['goals'] == goals
  missed, met = state['steps'][0]['goals']
  assert (missed['met'], met['met']) == (False, True)
  assert missed['by'] < 0 < met['by'] and met['unit'] == 'Gy'
  state = client.put(f'{one}/locked', json=['PTV']).json()
  assert state['locked'] == ['PTV']
  body = {'points': ['PTV D95 >= 50 Gy']}
  refused = client.post(f'{one}/steps', json=body)
  assert refused.status_code == 400 and 'locked' in refused.json()['error']
  held = client.post(f'{one}/steps', json={'handles': [PULL]})
  if held.status_code == 200:
    assert held.json()['steps'][-1]['held']['share'] <= 1
  assert client.put(f'{one}/locked', json=[]).json()['locked'] == []


@pytest.mark.parametrize(
  ('method', 'path', 'body', 'status', 'words'),
  [
    ('POST', 'undo', None, 409, 'nothing to undo'),
    ('POST', 'redo', None, 409, 'nothing to redo'),
    ('POST', 'steps', {'points': ['rectum V70 < 10%; x']}, 400, 'not a point'),
    ('POST', 'steps', {'points': ['gut V70 <= 10%']}, 400, 'no structure'),
    ('POST', 'steps', {'handles': [{**PULL, 'structure': 'x'}]}, 400, 'no str'),
    ('POST', 'steps', {'handles': [{**PULL, 'dose_gy': -1}]}, 400, '>= 0'),
    ('POST', 'steps', {'handles': [{**PULL, 'more': 1}]}, 400, 'unknown field'),
    ('POST', 'steps', {'curves': {'PTV': [1, 0]}}, 400, '16 elements'),
    ('POST', 'steps', {'curves': {'gut': [0.5] * 16}}, 400, 'curves are of'),
    ('POST', 'steps', {'from': 'nothing'}, 400, 'nothing'),
    ('POST', 'steps', [1], 400, 'not understood'),
    ('PATCH', 'steps/7', {'name': 'x'}, 404, 'no step'),
    ('PATCH', 'steps/0', {'name': 'x\u0007'}, 409, 'control'),
    ('PATCH', 'steps/0', {'name': 'x' * 201}, 400, 'length'),
    ('PUT', 'goals', ['PTV is fine'], 400, 'not a point'),
    ('PUT', 'goals', {'a': 1}, 400, 'array'),
    ('PUT', 'goals', ['rectum V1000 <= 10%'], 400, 'are they cGy'),
    ('PUT', 'goals', ['rectum V40 <= 10'], 400, 'in % or in cc'),
    ('PUT', 'locked', ['gut'], 400, 'no such structure'),
    ('POST', '', {'patient': 'p99'}, 404, 'no such patient'),
    ('POST', '', {}, 400, 'either a patient or a trail'),
    ('POST', '', {'trail': {}}, 400, 'whose'),
    ('POST', '', {'trail': {'patient': {'id': 'x'}}}, 400, 'not listed'),
    ('POST', '', {'trail': {'patient': {'id': 'p6'}}}, 400, 'trail'),
  ],
)
def test_what_cannot_be_is_refused(
  client, one, method, path, body, status, words
):
  address = f'{one}/{path}' if path else '/api/v1/sessions'
  before = client.get(one).json()
  answer = client.request(method, address, json=body)
  assert answer.status_code == status, answer.text
  assert words in answer.json()['error']
  assert client.get(one).json() == before


def test_a_trail_is_read_and_a_session_deleted(client, begin):
  state = begin()
  one = f'/api/v1/sessions/{state["session"]}'
  client.post(f'{one}/steps', json={'handles': [PULL]})
  answer = client.get(f'{one}/trail')
  assert 'p6' not in answer.headers['content-disposition']
  trail = answer.json()
  again = client.post('/api/v1/sessions', json={'trail': trail})
  assert again.status_code == 200, again.text
  assert again.json()['session'] != state['session']
  assert dose_of(client, again.json()['session'], 'step-1') == dose_of(
    client, state['session'], 'step-1'
  )
  trail['steps'][0]['who'] = 'another'
  changed = client.post('/api/v1/sessions', json={'trail': trail})
  assert changed.status_code == 400 and 'changed' in changed.json()['error']
  assert '/' not in changed.json()['error'].replace('and/or', '')
  assert client.delete(one).status_code == 200
  assert client.get(one).status_code == 404
  assert client.delete(one).status_code == 404


def test_templates(client):
  def listed():
    return {one['key']: one for one in client.get('/api/v1/templates').json()}

  built_in = [one for one in listed().values() if one['built_in']]
  assert built_in
  goals = ['rectum V40 <= 30%', 'PTV D95 >= 74 Gy']
  put = client.put('/api/v1/templates/mine-1', json={'goals': goals})
  assert put.status_code == 200, put.text
  assert listed()['mine-1']['goals'] == goals
  assert not listed()['mine-1']['built_in']
  for key, body in (
    ('a.b', {'goals': goals}),
    ('%2e%2e', {'goals': goals}),
    (built_in[0]['key'], {'goals': goals}),
    ('mine', {'goals': ['no goal']}),
  ):
    assert client.put(f'/api/v1/templates/{key}', json=body).status_code >= 400
  assert client.delete('/api/v1/templates/mine-1').status_code == 200
  assert 'mine-1' not in listed()
  assert client.delete('/api/v1/templates/mine-1').status_code >= 400


def test_a_trail_of_strange_values_is_refused(client, begin):
  """One whose checksum fits, but that no session wrote."""
  from dvhflax.tuning import trail as trail_lib

  one = f'/api/v1/sessions/{begin()["session"]}'
  trail = client.get(f'{one}/trail').json()
  for asked in ({'of': 'x'}, {'of': None}, [1], 'x'):
    strange = json.loads(json.dumps(trail))
    strange['steps'][0]['asked'] = asked
    strange['sha256'] = trail_lib.digest(strange)
    answer = client.post('/api/v1/sessions', json={'trail': strange})
    assert answer.status_code == 400, answer.text
