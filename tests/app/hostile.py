"""Requests that are not to be served, drawn at random."""

import base64
import json
import random
import socket

SECRET = b'for research'  # of `about`: what no hostile request is to be told

METHODS = ('GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'X')
HOSTS = (
  'evil.example', 'evil.example:{port}', '127.0.0.1', 'localhost',
  '127.0.0.1:1', '127.0.0.1.evil.example:{port}', '[::1]:{port}', '',
  '0.0.0.0:{port}',
  '127.0.0.1:{port}@evil.example', '127.0.0.1:{port}, x', '2130706433:{port}',
)  # fmt: skip
ORIGINS = (
  'null', 'http://evil.example', 'https://127.0.0.1:{port}', 'file://',
  'http://127.0.0.1:1', 'http://127.0.0.1', 'http://127.0.0.1:{port}.evil.com',
  'http://localhost:{port}/', 'http://LOCALHOST.evil:{port}', '',
)  # fmt: skip
PATHS = (
  '/api/v1/about', '/api/v1/patients', '/api/v1/sessions', '/', '/index.html',
  '/api/v1/templates', '/api/v1/uploads', '/api/v1/sessions/{session}',
  '/api/v1/sessions/{session}/trail', '/api/v1/sessions/{session}/live',
)  # fmt: skip
CLIMBING = (
  '/../../../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd',
  '/..%2f..%2fetc%2fpasswd', '/..\\..\\etc\\passwd', '//etc/passwd',
  '/static/../../../setup.cfg',
  '/%00', '/index.html%00.js', '/access.json', '/../access.json', '/app.lock',
  '/.', '/..', '/%c0%ae%c0%ae/etc/passwd', '/file:///etc/passwd', '/~root',
  '/api/v1/sessions/..%2f..%2faccess', '/api/v1/sessions/%2e%2e',
  '/api/v1/sessions/{session}/doses/..%2f..%2faccess.json',
  '/api/v1/sessions/{session}/export?what=csv&dose=../../access.json',
  '/api/v1/sessions/{session}/export?what=../x&dose=step-0',
  '/api/v1/jobs/..%2f..%2faccess', '/api/v1/uploads/..%2f..',
)  # fmt: skip
TOKENS = ('', 'x', 'None', 'null', 'é', '0' * 43, 'undefined', '../', ' ')
BODIES = (
  b'', b'{', b'[', b'null', b'"x"', b'{"patient": 1}', b'{"patient": ["p6"]}',
  b'{"patient": "p6", "trail": {}}', b'\xff\xfe', b'{"patient": "../p6"}',
  b'{"handles": [{"structure": "rectum"}]}', b'[' * 100_000, b'{"a":' * 50_000,
  b'{"patient": "p6", "__proto__": {}}', b'1e999',
  b'{"points": ["' + b'x' * 5000 + b'"]}',
  b'{"trail": ' + b'[' * 2000 + b']' * 2000 + b'}',
  b'{"handles": [{"structure": "rectum", "dose_gy": 1e308, '
  b'"volume_percent": 5}]}', b'{"points": [' + b'"a",' * 5000 + b'"a"]}',
)  # fmt: skip
UPLOADS = (
  '../x', '/etc/passwd', 'a/../../x', '..', '.', '', 'a//b', 'a/./b',
  'a\\..\\b', 'C:\\x', 'C:/x', '~/x', 'a\x00b', 'a\nb', 'x' * 300,
  '/'.join('a' * 40),
  'a/' * 600 + 'x', '\u202egnp.x', 'a/..', '../../access.json', 'a:b',
)  # fmt: skip


def send(port, request, *, cut=None, wait=5.0):
  """The bytes that a raw request is answered with.

  Args:
    port: of the server.
    request: bytes.
    cut: only so many are sent, and the connection closed.
    wait: seconds for the answer.
  """
  with socket.create_connection(('127.0.0.1', port), timeout=wait) as wire:
    try:
      wire.sendall(request if cut is None else request[:cut])
      if cut is not None:
        return b''
      found = b''
      while piece := wire.recv(65536):
        found += piece
      return found
    except (ConnectionError, TimeoutError):
      return b''


def raw(method, path, headers, body=b''):
  """A request as bytes."""
  lines = [f'{method} {path} HTTP/1.1']
  lines += [f'{name}: {value}' for name, value in headers]
  lines.append('Connection: close')
  if body:
    lines.append(f'Content-Length: {len(body)}')
  return '\r\n'.join([*lines, '', '']).encode() + body


class Hostile:
  """Draws requests, each with one fault at least."""

  def __init__(self, port, token, session, upload, seed=0):
    self._random = random.Random(seed)
    self._names = {'port': port, 'session': session}
    self._port, self._token, self._upload = port, token, upload
    self.kinds = [
      self.wrong_host, self.wrong_origin, self.wrong_token, self.climbing,
      self.bad_body, self.bad_upload, self.too_large, self.garbage,
      self.long_address, self.other_site,
    ]  # fmt: skip

  def draw(self):
    """Bytes of a request, and its kind."""
    kind = self._random.choice(self.kinds)
    return kind(), kind.__name__

  def _one(self, of):
    return self._random.choice(of).format(**self._names)

  def _headers(self, **others):
    mine = {
      'Host': f'127.0.0.1:{self._port}',
      'Authorization': f'Bearer {self._token}',
      **others,
    }
    return [(name.replace('_', '-'), v) for name, v in mine.items() if v != '-']

  def wrong_host(self):
    headers = self._headers(Host=self._one(HOSTS))
    return raw(self._one(METHODS), self._one(PATHS), headers)

  def wrong_origin(self):
    headers = self._headers(Origin=self._one(ORIGINS))
    return raw(self._one(METHODS), self._one(PATHS), headers)

  def other_site(self):
    site = self._one(('cross-site', 'same-site', 'x'))
    headers = self._headers(Sec_Fetch_Site=site)
    return raw(self._one(METHODS), self._one(PATHS), headers)

  def wrong_token(self):
    token = self._one(TOKENS)
    where = self._random.randrange(4)
    if where == 0:
      headers = self._headers(Authorization=f'Bearer {token}')
    elif where == 1:
      cookie = f'dvhflax-{self._port}={token}; x={self._token}'
      headers = self._headers(Authorization='-', Cookie=cookie)
    elif where == 2:
      headers = self._headers(Authorization=f'Basic {self._token}')
    else:
      headers = self._headers(Authorization='-')
      bare = token.encode('ascii', 'ignore').decode().strip()
      return raw('GET', f'/?token={bare}', headers)
    return raw(self._one(METHODS), self._one(PATHS), headers)

  def climbing(self):
    method = self._one(('GET', 'DELETE', 'PUT'))
    return raw(method, self._one(CLIMBING), self._headers())

  def bad_body(self):
    method, path = self._random.choice(
      [
        ('POST', '/api/v1/sessions'),
        ('POST', '/api/v1/sessions/{session}/steps'),
        ('PUT', '/api/v1/sessions/{session}/goals'),
        ('PUT', '/api/v1/sessions/{session}/locked'),
        ('PATCH', '/api/v1/sessions/{session}/steps/0'),
        ('POST', '/api/v1/sessions/{session}/deliverable'),
        ('PUT', '/api/v1/templates/x'),
        ('POST', '/api/v1/uploads'),
      ]
    )
    body = self._random.choice(BODIES)
    path = path.format(**self._names)
    return raw(method, path, self._headers(), body)

  def bad_upload(self):
    path = self._random.choice(UPLOADS)
    header = base64.urlsafe_b64encode(path.encode()).decode().rstrip('=')
    if self._random.random() < 0.3:
      header = self._one(('***', 'a', '=', 'é', 'A' * 5000))
    headers = self._headers(X_Path=header)
    path = f'/api/v1/uploads/{self._upload}/files'
    return raw('PUT', path, headers, b'content')

  def too_large(self):
    length = self._one(
      ('99999999999', '9' * 40, '-1', '1e9', '0x10', '2000000')
    )
    headers = [*self._headers(), ('Content-Length', length)]
    path = f'/api/v1/sessions/{self._names["session"]}/steps'
    return raw('POST', path, headers) + b'x' * self._random.randrange(2000)

  def long_address(self):
    kind = self._random.randrange(3)
    if kind == 0:
      return raw('GET', '/' + 'a' * self._random.choice((3000, 70_000)), [])
    if kind == 1:
      return raw('GET', '/', self._headers(X='y' * 70_000))
    bare = self._headers(Authorization='-')
    return raw('GET', '/?' + 'token=x&' * 200, bare)

  def garbage(self):
    kind = self._random.randrange(4)
    if kind == 0:
      return self._random.randbytes(self._random.randrange(1, 3000))
    if kind == 1:
      return b'GET / HTTP/9.9\r\n\r\n'
    if kind == 2:
      chunked = [('Transfer-Encoding', 'chunked')]
      path = '/api/v1/sessions'
      return raw('POST', path, [*self._headers(), *chunked]) + b'zz\r\nxx'
    twice = [*self._headers(), ('Host', f'127.0.0.1:{self._port}')]
    return raw('GET', '/api/v1/about', twice)


def served(answer, kind):
  """Whether a request got what it is not to have."""
  if not answer:
    return False
  status = answer.split(b' ', 2)[1:2]
  good = bool(status) and status[0][:1] in (b'2', b'3')
  # A body that happens to be no fault, such as no field at all.
  return (good and kind != 'bad_body') or b'root:' in answer or SECRET in answer


def told(answer):
  """The error of an answer, None if it is not JSON."""
  try:
    return json.loads(answer.partition(b'\r\n\r\n')[2])['error']
  except (ValueError, KeyError, TypeError):
    return None
