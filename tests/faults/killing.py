"""Kills commands, again and again, until they are done nevertheless."""

from collections.abc import Callable, Sequence
import dataclasses
import os
import pathlib
import signal
import time

import numpy as np
import psutil

from faults import commands

PRELOAD = commands.HERE / 'preload'
_LOOK_S = 0.003


def wanted(default: int) -> int:
  """How many kills: `DVHFLAX_KILLS`, or by default."""
  return int(os.environ.get('DVHFLAX_KILLS', default))


def seed() -> int:
  """Of the moments: `DVHFLAX_KILL_SEED`."""
  return int(os.environ.get('DVHFLAX_KILL_SEED', 0))


@dataclasses.dataclass(frozen=True)
class Life:
  """A command from its start to its end, undisturbed.

  Attributes:
    cpu_s: processor time, which other work on the machine does not stretch.
    changes: of files below its folder.
  """

  cpu_s: float
  changes: int


@dataclasses.dataclass
class Tally:
  """What was done, and how far the killed processes had come.

  Attributes:
    by_time: kills after some processor time.
    by_change: kills before some change of a file.
    runs: commands that were killed until they were done.
    starts: of processes.
    where: for each kill, what there was by then.
    since: when it began.
  """

  by_time: int = 0
  by_change: int = 0
  runs: int = 0
  starts: int = 0
  where: list[int] = dataclasses.field(default_factory=list)
  since: float = dataclasses.field(default_factory=time.monotonic)

  @property
  def kills(self) -> int:
    """All of them."""
    return self.by_time + self.by_change

  def words(self, what: str) -> str:
    """One line for whoever counts."""
    reached = {n: self.where.count(n) for n in sorted(set(self.where))}
    return (
      f'{what}: {self.kills} kills ({self.by_time} by time, {self.by_change} '
      f'by change of a file), {self.runs} runs, {self.starts} processes, '
      f'{time.monotonic() - self.since:.0f} s; kills by what was kept: '
      f'{reached}'
    )


def measure(arguments: Sequence[str], folder: pathlib.Path) -> Life:
  """Runs a command undisturbed; `folder` is where its changes count."""
  told = folder.parent / 'changes'
  process = _start(arguments, folder, FAULTS_COUNT=str(told))
  cpu_s = 0.0
  watched = psutil.Process(process.pid)
  while process.poll() is None:
    cpu_s = max(cpu_s, _cpu_s(watched))
    time.sleep(_LOOK_S)
  ended = commands.end(process)
  assert ended.status == 0, ended.err
  return Life(cpu_s, int(told.read_text()))


def until_done(
  arguments: Sequence[str],
  folder: pathlib.Path,
  life: Life,
  kept: Callable[[], set],
  rng: np.random.Generator,
  tally: Tally,
  most: int,
) -> None:
  """Runs a command and kills it, until it comes to an end.

  Args:
    arguments: of the command.
    folder: where its changes count.
    life: of the same command, undisturbed.
    kept: what there is that must not be lost.
    rng: draws the moments, half of them times and half changes.
    tally: is added to.
    most: kills, after which it is left alone.
  """
  before: set = set()
  killed = 0
  while True:
    tally.starts += 1
    by_change = bool(rng.integers(2))
    moment = rng.uniform(0, 1)
    if killed >= most:
      ended = commands.run(arguments)
    elif by_change:
      # Those that are left become fewer from run to run.
      at = 1 + int(moment * life.changes)
      ended = commands.end(_start(arguments, folder, FAULTS_KILL_AT=str(at)))
    else:
      ended = _kill_after(arguments, folder, moment * life.cpu_s)
    assert 'Traceback' not in ended.err, ended.err
    now = kept()
    # Of checkpoints not all are kept.
    assert not before or (now and max(now) >= max(before)), (before, now)
    before = now
    if ended.status == 0:
      tally.runs += 1
      return
    assert ended.status == -signal.SIGKILL, ended.err
    assert [x for x in ended.said if x.startswith('error')] == []
    killed += 1
    tally.where.append(len(now))
    if by_change:
      tally.by_change += 1
    else:
      tally.by_time += 1


def _start(arguments, folder, **faults):
  path = f'{PRELOAD}{os.pathsep}{commands.ROOT}'
  return commands.start(
    arguments, PYTHONPATH=path, FAULTS_FOLDER=str(folder), **faults
  )


def _kill_after(arguments, folder, cpu_s) -> commands.Ended:
  process = _start(arguments, folder)
  watched = psutil.Process(process.pid)
  while process.poll() is None and _cpu_s(watched) < cpu_s:
    time.sleep(_LOOK_S)
  process.kill()
  return commands.end(process)


def _cpu_s(process: psutil.Process) -> float:
  try:
    times = process.cpu_times()
  except psutil.NoSuchProcess:
    return 0.0
  return times.user + times.system
