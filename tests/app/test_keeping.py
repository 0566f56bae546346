"""Sessions survive: the server's end, many of them, another place."""

import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import sys
import weakref

import httpx
import numpy as np
import psutil
import pytest

from app.serving import wait_for
from app.test_files import mask_file, put_file
from app.test_live import follow, move
from dvhflax.app import desk as desk_lib
from dvhflax.app import memory

PULL = {'structure': 'rectum', 'dose_gy': 40.0, 'volume_percent': 20.0}


def content_of(state):
  """A state without the count of changes, which begins anew with a server."""
  return {k: v for k, v in state.items() if k != 'revision'}


def test_the_last_saved_session_is_listed_first(client):
  states = [
    client.post('/api/v1/sessions', json={'patient': 'p6'}).json()
    for _ in range(3)
  ]
  keys = [state['session'] for state in states]
  listed = [one['session'] for one in client.get('/api/v1/sessions').json()]
  assert listed[:3] == keys[::-1]
  client.put(f'/api/v1/sessions/{keys[0]}/goals', json=['rectum V40 <= 30%'])
  listed = [one['session'] for one in client.get('/api/v1/sessions').json()]
  assert listed[:3] == [keys[0], keys[2], keys[1]]


def test_a_session_survives_the_server(make_server, tmp_path, cohort):
  folder = tmp_path / 'app'
  with make_server(folder) as served, served.client() as client:
    access = served.access
    state = client.post('/api/v1/sessions', json={'patient': 'p6'}).json()
    one = f'/api/v1/sessions/{state["session"]}'
    client.post(f'{one}/steps', json={'handles': [PULL], 'name': 'less'})
    client.post(f'{one}/undo')
    client.put(f'{one}/goals', json=['rectum V40 <= 30%'])
    client.put(f'{one}/locked', json=['PTV'])
    before = client.get(one).json()
    dose = client.get(f'{one}/doses/step-0').content
    upload = client.post('/api/v1/uploads', json={'kind': 'nifti'})
    key = upload.json()['upload']
    for s, name in enumerate(('body', 'rectum', 'PTV')):
      content = mask_file(cohort.masks(6)[..., s], tmp_path)
      put_file(client, key, f'mine/{name}.nii.gz', content)
    imported = client.post(f'/api/v1/uploads/{key}/import', json={}).json()
    [patient] = imported['patients']
    mine = client.post('/api/v1/sessions', json={'patient': patient}).json()
  with make_server(folder) as served, served.client() as client:
    # The page that is open goes on.
    assert served.access == access
    listed = client.get('/api/v1/sessions').json()
    assert {o['session'] for o in listed} == {state['session'], mine['session']}
    assert content_of(client.get(one).json()) == content_of(before)
    assert client.get(f'{one}/doses/step-0').content == dose
    redone = client.post(f'{one}/redo').json()
    assert redone['steps'][-1]['name'] == 'less'
    again = client.get(f'/api/v1/sessions/{mine["session"]}').json()
    assert content_of(again) == content_of(mine)
    client.delete(f'/api/v1/uploads/{key}')
    # It is in memory still; after the next start its files are missed.
  with make_server(folder) as served, served.client() as client:
    answer = client.get(f'/api/v1/sessions/{mine["session"]}')
    assert answer.status_code == 409 and 'upload' in answer.json()['error']


def test_sessions_outlive_another_import(
  make_server, tmp_path, cohort, monkeypatch
):
  """They keep the names and the prescription that they began with."""
  monkeypatch.setattr(desk_lib, '_MOST_OPEN', 1)
  masks = cohort.masks(6)
  thin = np.copy(masks[..., 1])
  thin[..., : thin.shape[2] // 2] = 0
  volumes = {
    'body': masks[..., 0], 'Rectum': masks[..., 1], 'Darm': thin,
    'PTV': masks[..., 2],
  }  # fmt: skip

  def upload(client):
    key = client.post('/api/v1/uploads', json={'kind': 'nifti'}).json()
    for name, mask in volumes.items():
      content = mask_file(mask, tmp_path)
      put_file(client, key['upload'], f'mine/{name}.nii.gz', content)
    return key['upload']

  def read(client, upload, **asked):
    answer = client.post(f'/api/v1/uploads/{upload}/import', json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()['patients']

  def begin(client, patient):
    return client.post('/api/v1/sessions', json={'patient': patient}).json()

  folder = tmp_path / 'app'
  with make_server(folder) as served, served.client() as client:
    key = upload(client)
    [patient] = read(client, key, names={'rectum': ['=Darm']})
    one = f'/api/v1/sessions/{begin(client, patient)["session"]}'
    client.post(f'{one}/steps', json={'handles': [PULL]})
    before, dose = client.get(one).json(), client.get(f'{one}/doses/step-1')
    trail = client.get(f'{one}/trail').content
    read(client, key, prescription_gy=60.0)
    other = begin(client, patient)
    assert other['patient']['prescription_gy'] == 60
    sizes = [s['structures'][1]['volume_cc'] for s in (before, other)]
    assert sizes[0] < sizes[1]
    # It is not in memory any more, nor are the files as they were read then.
    assert content_of(client.get(one).json()) == content_of(before)
    assert client.get(f'{one}/doses/step-1').content == dose.content
    # Nor does it matter that the last import failed.
    assert not read(client, key, names={'PTV': ['=']})
    refused = client.post('/api/v1/sessions', json={'patient': patient})
    assert refused.status_code == 400
  with make_server(folder) as served, served.client() as client:
    again = client.get(one)
    assert content_of(again.json()) == content_of(before), again.text
    read(client, key)
    answer = client.post('/api/v1/sessions', content=b'{"trail": %s}' % trail)
    assert answer.status_code == 400
    assert answer.json()['error'] == (
      "the trail is of patient 'mine' with other masks than here: read the "
      'files again with the names of structures that they were read with then'
    )
    # Uploaded twice, once as then: that one is found.
    read(client, upload(client), names={'rectum': ['=Darm']})
    answer = client.post('/api/v1/sessions', content=b'{"trail": %s}' % trail)
    assert answer.status_code == 200, answer.text
    for each in list(served.desk.uploads):
      client.delete(f'/api/v1/uploads/{each.key}')
  with make_server(folder) as served, served.client() as client:
    answer = client.get(one)
    assert answer.status_code == 409 and 'again' in answer.json()['error']
    assert client.get(f'{one}/trail').content == trail
    # Uploaded again it goes on.
    [patient] = read(client, upload(client))
    again = client.get(one).json()
    assert again['steps'] == before['steps']
    assert again['patient'] == {**before['patient'], 'key': patient}
    assert client.get(f'{one}/doses/step-1').content == dose.content


def test_few_sessions_are_in_memory(make_server, tmp_path, monkeypatch):
  monkeypatch.setattr(desk_lib, '_MOST_OPEN', 2)
  with make_server(tmp_path / 'app') as served, served.client() as client:
    begun = []
    for _ in range(5):
      state = client.post('/api/v1/sessions', json={'patient': 'p6'}).json()
      begun.append(state)
      assert len(served.desk._open) <= 2
    for state in begun:
      found = client.get(f'/api/v1/sessions/{state["session"]}').json()
      assert content_of(found) == content_of(state)


def test_what_was_closed_is_freed(make_server, tmp_path, monkeypatch):
  monkeypatch.setattr(desk_lib, '_MOST_OPEN', 1)
  times = []
  monkeypatch.setattr(desk_lib.memory, 'give_back', lambda: times.append(None))
  with make_server(tmp_path / 'app') as served, served.client() as client:

    def begin():
      state = client.post('/api/v1/sessions', json={'patient': 'p6'}).json()
      return state['session']

    key = begin()
    opened = weakref.ref(served.desk._open[key].session)
    one = f'/api/v1/sessions/{key}'
    client.post(f'{one}/steps', json={'handles': [PULL]})
    for what in (
      'masks',
      'plans',
      'doses/step-1',
      'export?what=csv&dose=step-1',
    ):
      assert client.get(f'{one}/{what}').status_code == 200, what
    with follow(served, key) as socket:
      socket.send(move(1))
      socket.recv(timeout=30)
    wait_for(lambda: not served.desk._open[key].in_use)
    begin()
    wait_for(lambda: gc.collect() >= 0 and opened() is None)
  assert len(times) == 2


def test_the_heap_is_given_back():
  if not hasattr(ctypes.CDLL(None), 'malloc_trim'):
    pytest.skip('another C library')
  process = psutil.Process()
  # Too small for pages of their own, and the last of them is kept.
  pieces = [np.ones(60_000, np.uint8) for _ in range(2000)]
  last = pieces.pop()
  before = process.memory_info().rss
  pieces.clear()
  memory.give_back()
  assert before - process.memory_info().rss > 80e6
  assert last.all()


def test_damaged_files_are_left_alone(make_server, tmp_path):
  folder = tmp_path / 'app'
  with make_server(folder) as served, served.client() as client:
    state = client.post('/api/v1/sessions', json={'patient': 'p6'}).json()
  sessions = folder / 'sessions'
  (sessions / ('0' * 16 + '.session.json')).write_text('{')
  (sessions / 'other.txt').write_text('mine')
  trail = sessions / f'{state["session"]}.trail.json'
  trail.write_text(trail.read_text().replace('78.0', '79.0'))
  with make_server(folder) as served, served.client() as client:
    [listed] = client.get('/api/v1/sessions').json()
    answer = client.get(f'/api/v1/sessions/{listed["session"]}')
    assert answer.status_code == 409 and 'changed' in answer.json()['error']
    assert str(folder) not in answer.json()['error']
  assert (sessions / 'other.txt').read_text() == 'mine'


def test_two_sessions_at_once(make_server, tmp_path):
  """Steps of two patients, from two threads: each has its own."""
  from concurrent.futures import ThreadPoolExecutor

  def tune(served, patient, volume):
    with served.client() as client:
      body = {'patient': patient}
      state = client.post('/api/v1/sessions', json=body).json()
      one = f'/api/v1/sessions/{state["session"]}'
      for n in range(4):
        pull = {**PULL, 'volume_percent': volume - n}
        answer = client.post(f'{one}/steps', json={'handles': [pull]})
        assert answer.status_code == 200
      return client.get(one).json()

  with make_server(tmp_path / 'app') as served, ThreadPoolExecutor(2) as pool:
    one = pool.submit(tune, served, 'p6', 20)
    other = pool.submit(tune, served, 'p7', 60)
    one, other = one.result(), other.result()
  assert len(one['steps']) == len(other['steps']) == 5
  asked = [step['points'][0]['asked'] for step in one['steps'][1:]]
  assert [text.split('= ')[1] for text in asked] == [
    f'{20 - n:.4f}%' for n in range(4)
  ]
  assert other['steps'][1]['points'][0]['asked'].endswith('60.0000%')
  assert not np.array_equal(
    one['steps'][-1]['achieved'], other['steps'][-1]['achieved']
  )


@contextlib.contextmanager
def command(trained_run, folder, *flags):
  """`dvhflax app` as a process, and its address."""
  process = subprocess.Popen(
    [
      sys.executable,
      '-m',
      'dvhflax',
      'app',
      f'--workdir={trained_run}',
      f'--sessions={folder}',
      '--nobrowser',
      *flags,
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONUNBUFFERED': '1'},
  )
  try:
    yield process
  finally:
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize('stop', [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_and_stops(trained_run, tmp_path, stop):
  folder = tmp_path / 'app'
  with command(trained_run, folder) as process:
    address = process.stdout.readline().strip()
    assert address.startswith('http://127.0.0.1:') and '?token=' in address
    with httpx.Client(timeout=60) as client:
      client.get(address)
      base = address.partition('/?')[0]
      about = client.get(f'{base}/api/v1/about').json()
      assert about['use'] and 'loading' in about
      state = client.post(
        f'{base}/api/v1/sessions', json={'patient': 'p6'}
      ).json()
      assert not client.get(f'{base}/api/v1/about').json()['loading']
    process.send_signal(stop)
    out, err = process.communicate(timeout=20)
    assert process.returncode in (0, -stop)
    assert 'Traceback' not in err and state['session'] not in out + err
  assert (folder / 'sessions' / f'{state["session"]}.trail.json').exists()


@pytest.mark.slow
def test_what_cannot_be_served_is_one_line(trained_run, tmp_path, make_server):
  with make_server(tmp_path / 'one') as served:
    taken = f'--port={served.access.port}'
    for flags, words in (
      (['--checkpoint=99'], '99'),
      ([taken], 'port'),
      ([f'--sessions={served.folder.path}'], 'another'),
    ):
      with command(trained_run, tmp_path / 'two', *flags) as process:
        wait_for(lambda p=process: p.poll() is not None, 60)
        assert process.returncode == 2
        err = process.stderr.read()
        assert words in err and 'Traceback' not in err
        assert err.count('\n') == 1
