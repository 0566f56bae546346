"""Processes of one training: they stop together, and miss one that is gone."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from dvhflax import errors
from dvhflax.training import checkpoint, history, partners, stopping

ROOT = pathlib.Path(__file__).parents[2]


class Vote:
  """Two processes' signals, as an update brings the greatest to both."""

  def __init__(self, monkeypatch):
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    self.processes = [stopping.Stopping(2) for _ in range(2)]

  def update(self):
    votes = max(int(p.vote().max()) for p in self.processes)
    for process in self.processes:
      process.count(np.int32(votes))
    return [process.now() for process in self.processes]


def test_all_stop_after_the_same_update(monkeypatch):
  vote = Vote(monkeypatch)
  with vote.processes[1]:
    assert vote.update() == [False, False]
    os.kill(os.getpid(), signal.SIGTERM)
    # Seen once the update that carried it is computed.
    assert vote.update() == [False, False]
    assert vote.update() == [False, False]
    assert vote.update() == [True, True]
  assert [p.signal for p in vote.processes] == [signal.SIGTERM] * 2


def test_a_process_alone_stops_at_once():
  before = signal.getsignal(signal.SIGINT)
  with stopping.Stopping(2) as alone:
    assert not alone.now()
    os.kill(os.getpid(), signal.SIGINT)
    assert alone.now() and alone.signal == signal.SIGINT
  assert signal.getsignal(signal.SIGINT) is before


def test_no_handler_in_a_thread():
  failed = []

  def enter():
    try:
      with stopping.Stopping(2) as inner:
        assert not inner.now()
    except BaseException as error:
      failed.append(error)

  thread = threading.Thread(target=enter)
  thread.start()
  thread.join()
  assert failed == []


@pytest.mark.parametrize(
  'text, gone',
  [
    ('UNKNOWN: Gloo AllReduce failed: Connection closed by peer [::1]', True),
    ('UNAVAILABLE: Failed to send RPC to coordination service', True),
    ('RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes', False),
    ('INTERNAL: no such kernel', False),
  ],
)
def test_an_error_of_a_partner_is_told_from_others(monkeypatch, text, gone):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  kind = errors.PartnerError if gone else ValueError
  with pytest.raises(kind), partners.noticed():
    raise ValueError(text)
  monkeypatch.setattr(jax, 'process_count', lambda: 1)
  with pytest.raises(ValueError), partners.noticed():
    raise ValueError(text)


FATAL = b"""\
E1126 14:52:11.947896   10465 coordination_service_agent.cc:289] Polled an error
The tasks have crashed. Check the task logs for an earlier error
F1126 14:52:11.948800   10465 client.h:80] Terminating process because the JAX \
distributed service detected fatal errors. This most likely indicates
*** Check failure stack trace: ***
    @     0x7ff608240634  absl::lts_20260107::log_internal::LogMessage::Flush()
"""


@pytest.mark.parametrize(
  'written, passed',
  [
    (b'W0000 cuda.cc] some warning\n', b'W0000 cuda.cc] some warning\n'),
    (b'before\n' + FATAL, b'before\n\nerror: gone\n'),
    # It came to nothing.
    (FATAL.split(b'F1126')[0], FATAL.split(b'F1126')[0]),
    # The process has said itself what is wrong.
    (b'before\n\0' + FATAL, b'before\n'),
  ],
)
def test_what_is_passed_on_of_messages(written, passed):
  script = ROOT / 'dvhflax' / 'training' / 'messages.py'
  done = subprocess.run(
    [sys.executable, '-I', '-S', script, 'gone'],
    input=written,
    stderr=subprocess.PIPE,
    timeout=20,
  )
  assert done.stderr == passed


def test_the_process_says_itself_what_is_wrong_after_the_service():
  script = ROOT / 'dvhflax' / 'training' / 'messages.py'
  process = subprocess.Popen(
    [sys.executable, '-I', '-S', script, 'gone'],
    stdin=subprocess.PIPE,
    stderr=subprocess.PIPE,
    bufsize=0,
  )
  process.stdin.write(b'before\n' + FATAL)
  # It has read that far, so that what follows comes in a read of its own.
  assert process.stderr.readline() == b'before\n'
  process.stdin.write(b'\0')
  _, rest = process.communicate(timeout=20)
  assert rest == b''


COMMAND = """
import sys
sys.path.insert(0, 'tests')
import conftest
from dvhflax import errors
from dvhflax.training import parallel, partners
parallel.initialize(sys.argv[3], 2, int(sys.argv[4]))
from dvhflax.cohort.store import Cohort
from dvhflax.training.train import train
config = conftest.make_config(sys.argv[1])
config.epochs = 4000
with partners.parting():
  try:
    train(config, Cohort.open(sys.argv[1]), sys.argv[2])
  except errors.Interrupted as stopped:
    print(stopped, flush=True)
    sys.exit(128 + stopped.signal)
"""


class Training:
  """Two processes, past their second epoch."""

  def __init__(self, cohort_path, workdir):
    with socket.socket() as probe:
      probe.bind(('127.0.0.1', 0))
      address = f'127.0.0.1:{probe.getsockname()[1]}'
    self.workdir = str(workdir)
    self.processes = [
      subprocess.Popen(
        [sys.executable, '-c', COMMAND, cohort_path, workdir, address, str(i)],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
      for i in range(2)
    ]
    deadline = time.monotonic() + 240
    while len(history.read(self.workdir)) < 2:
      assert time.monotonic() < deadline
      assert all(p.poll() is None for p in self.processes)
      time.sleep(0.02)

  def end(self, timeout=30):
    """Statuses, what was printed, and the errors but for the progress."""
    try:
      said = [p.communicate(timeout=timeout) for p in self.processes]
    finally:
      for process in self.processes:
        process.kill()
        process.wait()
    lines = [
      [
        line
        for line in err.replace('\r', '\n').splitlines()
        if line.strip()
        and not line.startswith(('training:', 'epoch '))
        and ' updates on ' not in line
      ]
      for _, err in said
    ]
    return [p.returncode for p in self.processes], [o for o, _ in said], lines


@pytest.mark.slow
@pytest.mark.parametrize('signalled', [(0,), (1,), (0, 1), (1, 0)])
def test_sigterm_to_any_stops_all(cohort_path, tmp_path, signalled):
  training = Training(cohort_path, tmp_path)
  for i in signalled:
    training.processes[i].send_signal(signal.SIGTERM)
    # Some steps apart.
    time.sleep(0.1)
  statuses, outputs, lines = training.end()
  assert statuses == [128 + signal.SIGTERM] * 2
  assert lines == [[], []]
  latest = checkpoint.Checkpoints(str(tmp_path)).latest
  assert all(f'saved step {latest} in' in out for out in outputs)


@pytest.mark.slow
def test_of_the_processes_one_builds_the_cohort(tmp_path):
  """The collective operations, which wait for half a minute, come later."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{probe.getsockname()[1]}'
  options = {
    'config.cohort.path': tmp_path / 'cohorts' / 'c',
    'config.cohort.patients': 4,
    'config.cohort.plans': 2,
    'config.cohort.validation_patients': 1,
    'config.cohort.test_patients': 1,
    'config.cohort.grid': '(32,32,16)',
    'config.cohort.spacing_mm': '(15.0,10.0,12.0)',
    'config.model.base_channels': 4,
    'config.model.max_channels': 8,
    'config.max_steps': 1,
    'config.batch_size': 2,
    'workdir': tmp_path / 'run',
    'coordinator': address,
    'num_processes': 2,
  }
  processes = [
    subprocess.Popen(
      [
        sys.executable,
        'run_train.py',
        '--config=configs/prostate.py:small',
        '--distributed',
        f'--process_id={i}',
        *(f'--{key}={value}' for key, value in options.items()),
      ],
      cwd=ROOT,
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  said = [p.communicate(timeout=300)[1] for p in processes]
  assert [p.returncode for p in processes] == [0, 0]
  assert sum('building ' in err for err in said) == 1
  assert os.listdir(tmp_path / 'cohorts') == ['c']
  assert checkpoint.Checkpoints(str(tmp_path / 'run')).latest == 1


@pytest.mark.slow
@pytest.mark.parametrize('killed', [0, 1])
def test_a_partner_that_is_gone_is_said_in_one_line(
  cohort_path, tmp_path, killed
):
  training = Training(cohort_path, tmp_path)
  training.processes[killed].kill()
  statuses, _, lines = training.end()
  assert statuses[1 - killed] != 0
  assert lines[1 - killed] == [f'error: {partners.GONE}']
