"""The live WebSocket: previews, the newest wins, several pages."""

import contextlib
import dataclasses
import json
import threading
import time

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from app.serving import wait_for

PULL = {'structure': 'rectum', 'dose_gy': 40.0, 'volume_percent': 20.0}


def follow(served, session, **headers):
  url = f'ws://127.0.0.1:{served.access.port}/api/v1/sessions/{session}/live'
  given = {'Authorization': f'Bearer {served.access.token}', **headers}
  return connect(url, additional_headers=given, max_size=2**25)


def move(seq, volume=20.0, **more):
  handle = {**PULL, 'volume_percent': volume}
  return json.dumps({'type': 'move', 'seq': seq, 'handles': [handle], **more})


def receive(socket):
  """A message: a preview's head with its `dose`, or a text."""
  message = socket.recv(timeout=30)
  if isinstance(message, str):
    return json.loads(message)
  length = int.from_bytes(message[:4], 'little')
  assert length % 4 == 0
  head = json.loads(message[4 : 4 + length])
  units = np.frombuffer(message[4 + length :], '<u2')
  return {**head, 'dose': units * head['gy_per_unit']}


def test_a_preview_is_what_the_step_will_be(served, client, begin):
  state = begin()
  with follow(served, state['session']) as socket:
    socket.send(move(1))
    preview = receive(socket)
    assert (preview['type'], preview['seq']) == ('preview', 1)
    one = f'/api/v1/sessions/{state["session"]}'
    assert client.get(one).json() == state
    tuned = client.post(f'{one}/steps', json={'handles': [PULL]}).json()
    told = {'type': 'changed', 'revision': tuned['revision']}
    assert receive(socket) == told
  step = tuned['steps'][-1]
  for key in ('desired', 'achieved', 'goals', 'distance', 'points'):
    assert preview[key] == step[key], key
  answer = client.get(f'{one}/doses/step-1')
  unit = float(answer.headers['x-gy-per-unit'])
  dose = unit * np.frombuffer(answer.content, '<u2')
  np.testing.assert_allclose(preview['dose'], dose, atol=1e-6)


def test_what_cannot_be_is_refused_and_the_next_answered(served, begin):
  with follow(served, begin()['session']) as socket:
    for text in (
      '{}',
      '[' * 10_000,
      'x',
      json.dumps({'type': 'move', 'seq': -1}),
      json.dumps({'type': 'stop', 'seq': 1}),
      json.dumps({'type': 'move', 'seq': 1, 'more': 1}),
      '{"type": "move", "seq": 1, "handles": [{"structure": "rectum", '
      '"dose_gy": NaN, "volume_percent": 1}]}',
    ):
      socket.send(text)
      assert receive(socket)['type'] == 'refused', text
    socket.send(move(2, points=['gut mean <= 3 Gy']))
    refused = receive(socket)
    assert (refused['type'], refused['seq']) == ('refused', 2)
    assert 'gut' in refused['error']
    socket.send(move(3))
    assert receive(socket)['seq'] == 3


def test_the_newest_wins(make_server, load, tmp_path):
  network, cohort, anatomy = load()
  going = threading.Event()

  def slow(*inputs):
    if going.is_set():
      time.sleep(0.05)
    return network.decode(*inputs)

  slowed = dataclasses.replace(network, decode=slow), cohort, anatomy
  with make_server(tmp_path / 'app', load=lambda: slowed) as served:
    with served.client() as client:
      body = {'patient': 'p6'}
      session = client.post('/api/v1/sessions', json=body).json()['session']
    going.set()
    with follow(served, session) as socket:
      began = time.monotonic()
      for seq in range(200):
        socket.send(move(seq, 10 + 0.1 * seq))
        time.sleep(0.002)
      last_sent = time.monotonic()
      answered = []
      while not answered or answered[-1] != 199:
        answered.append(receive(socket)['seq'])
      late = time.monotonic() - last_sent
  assert answered == sorted(answered)
  # No more than there was time for, and no queue behind the last.
  assert len(answered) <= (last_sent - began + late) / 0.05 + 2
  assert len(answered) < 100 and late < 1.0


def test_pages_of_one_session_and_of_two(served, client, begin):
  one, other = begin('p6')['session'], begin('p7')['session']
  with (
    follow(served, one) as a,
    follow(served, one) as b,
    follow(served, other) as c,
  ):
    for seq in range(5):
      for socket, volume in ((a, 20), (b, 20), (c, 60)):
        socket.send(move(seq, volume + seq))
    last = {}
    for name, socket in (('a', a), ('b', b), ('c', c)):
      while last.get(name, {}).get('seq') != 4:
        last[name] = receive(socket)
    np.testing.assert_array_equal(last['a']['dose'], last['b']['dose'])
    assert not np.array_equal(last['a']['dose'], last['c']['dose'])
    answer = client.post(
      f'/api/v1/sessions/{one}/steps', json={'handles': [PULL]}
    )
    assert answer.status_code == 200
    told = receive(a)
    assert told == receive(b) and told['type'] == 'changed'
    with pytest.raises(TimeoutError):
      c.recv(timeout=0.2)


def test_a_page_that_leaves_is_forgotten(served, begin):
  session = begin()['session']
  opened = served.desk._open[session]
  with follow(served, session):
    wait_for(lambda: opened.in_use)
  wait_for(lambda: not opened.in_use)
  # Cut off in the middle of a computation.
  with contextlib.suppress(OSError), follow(served, session) as socket:
    socket.send(move(1))
    socket.socket.shutdown(2)
  wait_for(lambda: not opened.in_use)


def test_too_long_a_message_ends_it(served, client, begin):
  session = begin()['session']
  with follow(served, session) as socket:
    socket.send('x' * 300_000)
    with pytest.raises(Exception, match=r'1009|too big|closed'):
      socket.recv(timeout=10)
  assert client.get('/api/v1/health').status_code == 200


@pytest.mark.parametrize(
  'headers',
  [
    {'Authorization': 'Bearer wrong'},
    {'Origin': 'http://evil.example'},
    {'Origin': 'null'},
    {'Authorization': ''},
    {'Host': 'evil.example'},
    {'Sec-Fetch-Site': 'same-site'},
  ],
)
def test_others_cannot_follow(served, begin, headers):
  with pytest.raises(InvalidStatus) as caught:
    follow(served, begin()['session'], **headers)
  assert caught.value.response.status_code in (400, 403)


def test_a_session_that_is_not_there(served):
  with pytest.raises(InvalidStatus):
    follow(served, '0' * 16)
