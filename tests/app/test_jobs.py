"""Deliverable doses in the background."""

import asyncio

from conftest import GRID
import numpy as np
import pytest

from app.serving import wait_for
from dvhflax.app import desk, jobs
from dvhflax.sites import PROSTATE


@pytest.fixture
def one(client, begin):
  return f'/api/v1/sessions/{begin()["session"]}'


@pytest.fixture
def protocol(monkeypatch):
  """Beams for patients whose plans were made up."""
  found = PROSTATE.protocol.to_dict()
  found['oars'] = {'rectum': found['oars']['rectum']}
  monkeypatch.setattr(jobs, 'protocol_of', lambda _: found)


def job_of(client, key):
  return client.get(f'/api/v1/jobs/{key}').json()


@pytest.mark.slow
def test_a_dose_is_made_deliverable(client, one, protocol):
  answer = client.post(f'{one}/deliverable', json={'dose': 'step-0'})
  assert answer.status_code == 200, answer.text
  key = answer.json()['job']
  assert job_of(client, key)['state'] == 'running'
  done = wait_for(
    lambda: (j := job_of(client, key))['state'] != 'running' and j, 120
  )
  assert done['state'] == 'done' and done['progress'] == 1, done
  assert done['dose'] == 'deliverable-0'
  state = client.get(one).json()
  assert 'deliverable-0' in [dose['id'] for dose in state['doses']]
  answer = client.get(f'{one}/doses/deliverable-0')
  unit = float(answer.headers['x-gy-per-unit'])
  dose = unit * np.frombuffer(answer.content, '<u2')
  assert 20 < dose.max() < 200
  report = client.get(f'{one}/export?what=html&dose=deliverable-0')
  assert b'deliverable' in report.content
  assert client.get(f'{one}/export?what=rtdose&dose=deliverable-0').is_success


@pytest.mark.slow
def test_a_job_is_stopped(client, one, served, protocol):
  answer = client.post(f'{one}/deliverable', json={'dose': 'step-0'})
  key = answer.json()['job']
  stopped = client.delete(f'/api/v1/jobs/{key}').json()
  assert stopped['state'] == 'stopped' and stopped['dose'] is None
  assert not list((served.folder.path / 'jobs').iterdir())
  state = client.get(one).json()
  assert 'deliverable-0' not in [dose['id'] for dose in state['doses']]


def test_what_is_done_while_a_job_runs_is_not_lost(
  client, begin, served, monkeypatch, tmp_path
):
  """It holds its session, however many others are opened meanwhile."""
  go_on = tmp_path / 'go on'

  async def process(_, task, result):
    while not go_on.exists():
      await asyncio.sleep(0.02)
    np.savez(result, dose_gy=np.ones(GRID, np.float32))

  monkeypatch.setattr(jobs, 'protocol_of', lambda _: {})
  monkeypatch.setattr(jobs.mimic_process, 'write_task', lambda *_: None)
  monkeypatch.setattr(jobs, '_process', process)
  monkeypatch.setattr(desk, '_MOST_OPEN', 1)
  key = begin()['session']
  one = f'/api/v1/sessions/{key}'
  job = client.post(f'{one}/deliverable', json={'dose': 'step-0'}).json()['job']
  begin()
  state = client.get(one).json()
  assert state['jobs'] == [job]
  client.post(f'{one}/steps', json={'points': ['rectum mean <= 20 Gy']})
  go_on.touch()
  wait_for(lambda: job_of(client, job)['state'] != 'running')
  assert job_of(client, job)['state'] == 'done'
  assert client.get(one).json()['jobs'] == []
  begin()  # it is in memory no more
  assert key not in served.desk._open
  state = client.get(one).json()
  assert [step['number'] for step in state['steps']] == [0, 1]
  assert 'deliverable-0' in [dose['id'] for dose in state['doses']]


def test_jobs_that_cannot_be(client, one):
  answer = client.post(f'{one}/deliverable', json={'dose': 'step-0'})
  assert answer.status_code == 400
  assert 'no beams are known' in answer.json()['error']
  for dose, status in (('plan-0', 404), ('step-9', 404), ('x', 404)):
    answer = client.post(f'{one}/deliverable', json={'dose': dose})
    assert answer.status_code == status
  assert client.delete('/api/v1/jobs/none').status_code == 404


@pytest.mark.slow
def test_a_process_that_fails_says_why(client, one, served, monkeypatch):
  """Here of a protocol that is none."""
  monkeypatch.setattr(jobs, 'protocol_of', lambda _: {'name': 'none'})
  answer = client.post(f'{one}/deliverable', json={'dose': 'step-0'})
  key = answer.json()['job']
  failed = wait_for(
    lambda: (j := job_of(client, key))['state'] != 'running' and j, 120
  )
  assert failed['state'] == 'failed' and failed['error']
  assert not list((served.folder.path / 'jobs').iterdir())
