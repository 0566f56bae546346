"""Fixtures of the page's server."""

import contextlib

import pytest

from app import browsing
from app.serving import Served
from dvhflax.training.runs import load_networks


@pytest.fixture(scope='session')
def load(trained_run):
  """Gives the network of the tiny run, read once."""
  loaded = load_networks(trained_run)
  return lambda: loaded


@pytest.fixture(scope='session')
def make_server(load):
  """Makes servers of a folder: a context."""

  @contextlib.contextmanager
  def make(folder, load=load, **keywords):
    served = Served(load, folder, **keywords)
    try:
      yield served
    finally:
      served.stop()

  return make


@pytest.fixture(scope='module')
def served(make_server, tmp_path_factory):
  with make_server(tmp_path_factory.mktemp('sessions') / 'app') as served:
    yield served


@pytest.fixture
def client(served):
  with served.client() as client:
    yield client


@pytest.fixture
def begin(client):
  """Begins a session of patient p6; gives its state."""

  def new(patient='p6'):
    answer = client.post('/api/v1/sessions', json={'patient': patient})
    assert answer.status_code == 200, answer.text
    return answer.json()

  return new


# Its loop runs in this thread: not while other modules' tests run theirs.
@pytest.fixture(scope='module')
def browser():
  from playwright import sync_api

  with sync_api.sync_playwright() as play:
    browser = browsing.launch(play)
    yield browser
    browser.close()


@pytest.fixture(scope='session')
def server(trained_run, tmp_path_factory):
  """The command itself, on the tiny run."""
  folder = tmp_path_factory.mktemp('page-sessions')
  with browsing.Server(trained_run, folder) as server:
    yield server


@pytest.fixture
def page(browser, server):
  """A page with an open patient, which must not complain."""
  with browsing.watched(browser) as context:
    yield browsing.open_patient(context.new_page(), server)
