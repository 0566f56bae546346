"""Several processes at one work, one of which is stopped or killed."""

import signal
import socket

import pytest

from faults import commands

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('killed', [False, True])
def test_two_builders_of_one_store(raw, built, tmp_path, killed):
  builders = [
    commands.start(commands.build(raw, tmp_path / 'c')) for _ in range(2)
  ]
  if killed:
    commands.wait_until(lambda: commands.records(tmp_path / 'c'), builders[1])
    builders[0].kill()
  ended = [commands.end(builder) for builder in builders]
  for one in ended[killed:]:
    assert one.status == 0 and 'Traceback' not in one.err, one.err
  assert commands.content(tmp_path / 'c') == commands.content(built)
  assert commands.litter(tmp_path) == []


def start_two(arguments) -> list:
  """Two processes of one training, on the loopback."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{probe.getsockname()[1]}'
  return [
    commands.start(
      [*arguments, '--distributed', f'--coordinator={address}',
       '--num_processes=2', f'--process_id={i}']
    )
    for i in range(2)
  ]  # fmt: skip


def finish_two(arguments) -> None:
  """Runs such a training to its end."""
  for one in [commands.end(process) for process in start_two(arguments)]:
    assert one.status == 0 and 'Traceback' not in one.err, one.err


def test_sigterm_to_one_of_two(raw, built, tmp_path):
  """Both save once and leave; again started, they end as if undisturbed."""
  train = commands.train(raw, built, tmp_path / 'run')
  processes = start_two([*train, '--config.epochs=100000'])
  for process in processes:
    commands.wait_until(lambda: commands.steps(tmp_path / 'run'), process)
  processes[1].send_signal(signal.SIGTERM)
  ended = [commands.end(process) for process in processes]
  assert [one.status for one in ended] == [128 + signal.SIGTERM] * 2, ended
  step = max(commands.steps(tmp_path / 'run'))
  assert all(f'saved step {step} in' in one.out for one in ended)
  rest = f'--config.epochs={step // 4 + 2}'
  finish_two([*train, rest])
  finish_two([*commands.train(raw, built, tmp_path / 'whole'), rest])
  assert commands.trained(tmp_path / 'run') == commands.trained(
    tmp_path / 'whole'
  )


def test_a_damaged_checkpoint_of_two(raw, built, tmp_path):
  """Both go on from the one before, and one says so."""
  run, train = tmp_path / 'run', commands.train(raw, built, tmp_path / 'run')
  finish_two(train)
  whole = commands.trained(run)
  step = max(commands.steps(run))
  manifest = run / 'checkpoints' / str(step) / 'model' / 'manifest.ocdbt'
  manifest.write_bytes(manifest.read_bytes()[:-9])
  ended = [commands.end(process) for process in start_two(train)]
  for one in ended:
    assert one.status == 0 and 'Traceback' not in one.err, one.err
  notes = [x for one in ended for x in one.said if 'set aside' in x]
  assert len(notes) == 1 and notes[0].startswith('note: ')
  assert commands.trained(run) == whole
