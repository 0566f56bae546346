"""An S3 server of one bucket, on the loopback: what TensorStore asks for."""

import contextlib
import hashlib
import http.server
import threading
import urllib.parse
from xml.sax import saxutils

import pytest

from dvhflax.cohort import place

BUCKET = 'bucket'
ACCESS_KEY = 'key'


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def answer(self, status, body=b'', **headers):
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name.replace('_', '-'), value)
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(body)

  def refuse(self, status, code):
    self.answer(status, f'<Error><Code>{code}</Code></Error>'.encode())

  def key(self):
    """The object's, None if the request was refused."""
    length = int(self.headers.get('Content-Length') or 0)
    self.body = self.rfile.read(length)
    path, _, self.query = self.path.partition('?')
    bucket, _, key = urllib.parse.unquote(path)[1:].partition('/')
    if f'Credential={ACCESS_KEY}/' not in self.headers.get('Authorization', ''):
      self.refuse(403, 'AccessDenied')
    elif bucket != BUCKET:
      self.refuse(404, 'NoSuchBucket')
    elif self.command in ('PUT', 'DELETE') and not self.server.takes(
      self.command, key
    ):
      self.refuse(403, 'AccessDenied')
    else:
      return key
    return None

  def do_GET(self):
    key, objects = self.key(), self.server.objects
    if key is None:
      return
    if not key:
      prefix = dict(urllib.parse.parse_qsl(self.query)).get('prefix', '')
      listed = ''.join(
        f'<Contents><Key>{saxutils.escape(k)}</Key>'
        f'<Size>{len(objects[k])}</Size></Contents>'
        for k in sorted(objects)
        if k.startswith(prefix)
      )
      self.answer(
        200,
        f'<ListBucketResult><IsTruncated>false</IsTruncated>{listed}'
        '</ListBucketResult>'.encode(),
      )
    elif key in objects:
      self.answer(200, objects[key], ETag=etag(objects[key]))
    else:
      self.refuse(404, 'NoSuchKey')

  do_HEAD = do_GET

  def do_PUT(self):
    if (key := self.key()) is not None:
      self.server.objects[key] = self.body
      self.answer(200, ETag=etag(self.body))

  def do_DELETE(self):
    if (key := self.key()) is not None:
      self.server.objects.pop(key, None)
      self.answer(204)


def etag(value):
  return f'"{hashlib.md5(value).hexdigest()}"'


class Server(http.server.ThreadingHTTPServer):
  """Attributes: `objects`; `takes(method, key)`, whether one is changed."""

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), Handler)
    self.objects = {}
    self.takes = lambda method, key: True
    self.environment = {
      'AWS_ENDPOINT_URL': f'http://127.0.0.1:{self.server_port}',
      'AWS_ACCESS_KEY_ID': ACCESS_KEY,
      'AWS_SECRET_ACCESS_KEY': 'secret',
    }

  def under(self, prefix):
    """The objects under a prefix, without it."""
    return {
      key.removeprefix(prefix): value
      for key, value in dict(self.objects).items()
      if key.startswith(prefix)
    }


@contextlib.contextmanager
def serving():
  with Server() as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


@pytest.fixture
def s3(monkeypatch):
  """A server that the environment names; its failure is noticed at once."""
  with serving() as server:
    for name, value in server.environment.items():
      monkeypatch.setenv(name, value)
    monkeypatch.setattr(place, '_RETRIES', 0)
    place.context.cache_clear()
    yield server
  place.context.cache_clear()
