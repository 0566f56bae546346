"""Who is served and who is not; hostile and slow requests."""

import json
import os
import socket
import stat
import time

import httpx
import pytest

from app import hostile
from app.serving import wait_for
from dvhflax.app import connection, http
from dvhflax.app.keeping import Folder
from dvhflax.errors import UserError


def get(served, path='/api/v1/about', **headers):
  given = {name.replace('_', '-'): value for name, value in headers.items()}
  return httpx.get(f'{served.url}{path}', headers=given)


def bearer(served):
  return f'Bearer {served.access.token}'


def test_the_address_with_the_token_becomes_a_cookie(served):
  answer = get(served, f'/?token={served.access.token}')
  assert (answer.status_code, answer.headers['location']) == (303, '/')
  cookie = answer.headers['set-cookie']
  for part in ('HttpOnly', 'SameSite=Strict', 'Path=/'):
    assert part in cookie
  assert 'Domain' not in cookie
  name, _, value = cookie.partition(';')[0].partition('=')
  assert name == f'dvhflax-{served.access.port}'
  assert get(served, Cookie=f'{name}={value}').status_code == 200
  page = get(served, '/', Cookie=f'{name}={value}')
  assert page.headers['content-type'].startswith('text/html')
  policy = page.headers['content-security-policy']
  assert "default-src 'self'" in policy and 'unsafe' not in policy
  assert page.headers['x-content-type-options'] == 'nosniff'
  assert page.headers['cache-control'] == 'no-store'
  assert get(served, Cookie=f'{name}={value}x').status_code == 401


@pytest.mark.parametrize(
  ('headers', 'status'),
  [
    ({}, 401),
    ({'Authorization': 'Bearer'}, 401),
    ({'Authorization': 'Bearer wrong'}, 401),
    ({'Cookie': 'dvhflax=wrong'}, 401),
    ({'Host': 'evil.example'}, 403),
    ({'Host': '127.0.0.1'}, 403),
    ({'Origin': 'http://evil.example'}, 403),
    ({'Origin': 'null'}, 403),
    ({'Sec_Fetch_Site': 'cross-site'}, 403),
    ({'Sec_Fetch_Site': 'same-site'}, 403),
  ],
)
def test_others_are_refused(served, headers, status):
  if status == 403:
    headers = {'Authorization': bearer(served), **headers}
  answer = get(served, **headers)
  assert answer.status_code == status
  assert answer.json()['error']
  assert 'set-cookie' not in answer.headers
  assert 'access-control-allow-origin' not in answer.headers


def test_its_own_page_is_served(served):
  for host in ('127.0.0.1', 'localhost'):
    name = f'{host}:{served.access.port}'
    answer = get(
      served,
      Authorization=bearer(served),
      Host=name,
      Origin=f'http://{name}',
      Sec_Fetch_Site='same-origin',
    )
    assert answer.status_code == 200


def test_it_listens_on_the_loopback_alone(served):
  [listener] = served.server.servers[0].sockets
  assert listener.getsockname()[0] == '127.0.0.1'


def hostile_of(served, client, begin, seed):
  answer = client.post('/api/v1/uploads', json={'kind': 'nifti'})
  session = begin()['session']
  return hostile.Hostile(
    served.access.port,
    served.access.token,
    session,
    answer.json()['upload'],
    seed,
  )


@pytest.fixture
def impatient(monkeypatch):
  """A server that waits a moment for what does not come."""
  monkeypatch.setattr(connection, 'HEADERS_S', 0.3)
  monkeypatch.setattr(http, 'IDLE_S', 0.3)


def attack(served, client, begin, number, seed):
  """Sends hostile requests: none is served, and none stops the server."""
  drawn = hostile_of(served, client, begin, seed)
  before = sorted(client.get('/api/v1/sessions').json(), key=str)
  bad, answered = [], 0
  for n in range(number):
    request, kind = drawn.draw()
    if n % 17 == 5:
      hostile.send(served.access.port, request, cut=len(request) // 2)
      continue
    answer = hostile.send(served.access.port, request)
    answered += bool(answer)
    if hostile.served(answer, kind) or b' 500 ' in answer[:20]:
      bad.append((kind, request[:200], answer[:200]))
  assert not bad
  assert answered > 0.7 * number
  assert client.get('/api/v1/health').json() == {'ok': True}
  after = sorted(client.get('/api/v1/sessions').json(), key=str)
  assert [one['session'] for one in after] == [one['session'] for one in before]
  uploads = served.folder.path / 'uploads'
  files = [path for path in uploads.rglob('*') if path.is_file()]
  assert all(path.name in ('upload.json', 'names.json') for path in files)


def test_hostile_requests(served, client, begin, impatient):
  attack(served, client, begin, 120, seed=1)


@pytest.mark.slow
def test_two_thousand_hostile_requests(served, client, begin, impatient):
  attack(served, client, begin, 2000, seed=2)


def test_every_kind_of_hostile_request(served, client, begin, impatient):
  """That the attack is one: each kind is refused with words."""
  drawn = hostile_of(served, client, begin, 3)
  for kind in drawn.kinds:
    answers = [hostile.send(served.access.port, kind()) for _ in range(6)]
    assert any(answers), kind.__name__
    assert not any(hostile.served(a, kind.__name__) for a in answers)


def test_slow_connections_are_left(served, monkeypatch, client):
  monkeypatch.setattr(connection, 'HEADERS_S', 0.3)
  monkeypatch.setattr(http, 'IDLE_S', 0.3)
  port = served.access.port
  head = hostile.raw(
    'POST',
    '/api/v1/sessions',
    [('Host', f'127.0.0.1:{port}'), ('Authorization', bearer(served))],
  )
  body = head.replace(b'\r\n\r\n', b'\r\nContent-Length: 50\r\n\r\n{')
  for sent in (b'', b'GET / HTT', head[:-2], body):
    with socket.create_connection(('127.0.0.1', port), timeout=10) as wire:
      wire.sendall(sent)
      began = time.monotonic()
      try:
        answer = wire.recv(1000)
      except ConnectionError:
        answer = b''
      assert time.monotonic() - began < 5
      assert not answer or b' 400 ' in answer[:20]
  assert client.get('/api/v1/health').status_code == 200


def test_a_body_that_is_too_large_is_not_read(served, client):
  answer = client.post('/api/v1/uploads', content=b'x' * (2**20 + 1))
  assert answer.status_code == 413

  def pieces():
    for _ in range(2**8):
      yield b'x' * 2**13

  answer = client.post('/api/v1/uploads', content=pieces())
  assert answer.status_code == 413


def test_no_path_leaves_the_page(served, client):
  for path in ('/access.json', '/../access.json', '/%2e%2e/access.json'):
    assert client.get(path).status_code == 404


def test_the_folder_is_private_and_of_one_server(served):
  folder = served.folder.path
  assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
  assert stat.S_IMODE(os.stat(folder / 'access.json').st_mode) == 0o600
  with pytest.raises(UserError, match='another `dvhflax app`'):
    Folder(str(folder))


def test_a_token_that_others_could_read_is_not_used_again(tmp_path):
  folder = Folder(str(tmp_path / 'app'))
  first = folder.access()
  folder.keep_access(first)
  assert folder.access() == first
  os.chmod(tmp_path / 'app' / 'access.json', 0o644)
  assert folder.access().token != first.token
  (tmp_path / 'app' / 'access.json').write_text('{}')
  os.chmod(tmp_path / 'app' / 'access.json', 0o600)
  assert len(folder.access().token) >= 32
  folder.release()


def test_logs_hold_no_patient_and_no_token(served, client, begin, caplog):
  """Neither of requests nor of unexpected errors."""
  session = begin()['session']

  def broken(*_):
    raise ValueError('of patient p6')

  opened = served.desk._open[session]
  opened.session.undo, kept = broken, opened.session.undo
  answer = client.post(f'/api/v1/sessions/{session}/undo')
  opened.session.undo = kept
  assert answer.status_code == 500 and 'p6' not in answer.text
  get(served, f'/?token={served.access.token}')
  logged = wait_for(lambda: caplog.text)
  assert 'ValueError' in logged
  assert 'p6' not in logged and served.access.token not in logged


def test_errors_are_json(served):
  answer = get(served)
  assert json.loads(answer.content) == {'error': answer.json()['error']}
