"""A finished store may be anywhere that TensorStore reads."""

import functools
import http.server
import pathlib
import shutil
import threading

from conftest import make_config, make_tiny_cohort
import numpy as np
import pytest
from s3_server import s3  # noqa: F401

from dvhflax import errors
from dvhflax.cohort import identity, place
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.validate import validate_cohort
from dvhflax.sources import build


class Handler(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *_):
    pass


@pytest.fixture
def server(tmp_path, monkeypatch):
  """A web server of a folder; whose failure is noticed at once."""
  monkeypatch.setattr(place, '_RETRIES', 0)
  place.context.cache_clear()
  handler = functools.partial(Handler, directory=str(tmp_path))
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as made:
    made.url = f'http://127.0.0.1:{made.server_port}'
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
  place.context.cache_clear()


@pytest.mark.parametrize('kind', ['http', 'file', 's3'])
def test_a_store_at_a_url_is_the_same(server, s3, tmp_path, kind):  # noqa: F811
  path = make_tiny_cohort(tmp_path / 'c')
  for file in pathlib.Path(path).rglob('*'):
    if file.is_file():
      s3.objects[str(file.relative_to(tmp_path))] = file.read_bytes()
  url = {
    'http': f'{server.url}/c',
    'file': f'file://{path}/',
    's3': 's3://bucket/c',
  }[kind]
  here, there = Cohort.open(path), Cohort.open(url)
  assert there.metadata == here.metadata and there.identity == here.identity
  np.testing.assert_array_equal(there.dvh, here.dvh)
  for of_here, of_there in zip(here.read([0, 3], [1, 2]),
                               there.read([0, 3], [1, 2])):  # fmt: skip
    np.testing.assert_array_equal(of_there, of_here)
  assert validate_cohort(url) == []
  # As a training opens it, and as what was trained finds it again.
  assert build.open_or_build_cohort(make_config(url)).path == url
  data = identity.item(there)
  assert identity.find('gone', data, '--cohort') == url
  identity.require(there, data, 'run', '--cohort')


def test_what_is_wrong_with_a_url_is_said(server, tmp_path):
  path = pathlib.Path(make_tiny_cohort(tmp_path / 'c'))
  url = f'{server.url}/c'
  with pytest.raises(errors.CohortError, match=r'x has no metadata\.json'):
    Cohort.open(f'{server.url}/x')
  with pytest.raises(
    errors.CohortError, match=r'ftp://x is not read: .*scheme'
  ):
    Cohort.open('ftp://x')
  with pytest.raises(errors.ConfigError, match='built in a folder'):
    build.build_cohort(make_config('gs://bucket/c'))
  opened = Cohort.open(url)
  chunk = next(p for p in path.glob('masks/c/2/**/*') if p.is_file())
  chunk.write_bytes(chunk.read_bytes()[:-1])
  with pytest.raises(errors.CohortError, match=r'masks of patient p2 is not'):
    opened.masks(2)
  shutil.rmtree(path / 'dose')
  with pytest.raises(errors.CohortError, match='/dose is not read'):
    Cohort.open(url)
  server.shutdown()
  server.server_close()
  with pytest.raises(errors.CohortError, match=r'c is not read: .*connect'):
    Cohort.open(url)
