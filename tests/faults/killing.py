"""Kills commands, again and again, until they are done nevertheless."""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
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


class Nursery:
  """Starts the commands that are to be killed.

  They are forked from a process that has imported their modules, which takes
  longer than all that they do here; while it is imported nothing is written.
  """

  def __init__(self, folder: pathlib.Path):
    """Args: folder: for what commands print."""
    self._out, self._err = folder / 'out', folder / 'err'
    self._process = subprocess.Popen(
      [sys.executable, str(PRELOAD / 'nursery.py')],
      cwd=commands.ROOT,
      env=commands.environment({}),
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def __enter__(self) -> 'Nursery':
    return self

  def __exit__(self, *_: object) -> None:
    self._process.stdin.close()
    self._process.wait()
    self._process.stdout.close()

  def run(
    self,
    arguments: Sequence[str],
    look: Callable[[psutil.Process], bool] = lambda _: False,
    **environment: str,
  ) -> commands.Ended:
    """Runs a command to its end.

    Args:
      arguments: of the command.
      look: is given its process, again and again; kills it by True.
      environment: that it has beside the usual.
    """
    wanted = {
      'arguments': arguments,
      'environment': environment,
      'out': str(self._out),
      'err': str(self._err),
    }
    self._process.stdin.write(json.dumps(wanted) + '\n')
    self._process.stdin.flush()
    child = psutil.Process(int(self._process.stdout.readline()))
    with contextlib.suppress(psutil.NoSuchProcess):
      while child.status() != psutil.STATUS_ZOMBIE:
        if look(child):
          child.kill()
          break
        time.sleep(_LOOK_S)
    status = int(self._process.stdout.readline())
    return commands.Ended(status, self._out.read_text(), self._err.read_text())


def measure(
  nursery: Nursery, arguments: Sequence[str], folder: pathlib.Path
) -> Life:
  """Runs a command undisturbed; `folder` is where its changes count."""
  told, cpu_s = folder.parent / 'changes', [0.0]

  def look(process: psutil.Process) -> bool:
    cpu_s.append(_cpu_s(process))
    return False

  ended = nursery.run(
    arguments, look, FAULTS_FOLDER=str(folder), FAULTS_COUNT=str(told)
  )
  assert ended.status == 0, ended.err
  return Life(max(cpu_s), int(told.read_text()))


def until_done(
  nursery: Nursery,
  arguments: Sequence[str],
  folder: pathlib.Path,
  life: Life,
  kept: Callable[[], set],
  complete: Callable[[], bool],
  rng: np.random.Generator,
  tally: Tally,
  most: int,
) -> None:
  """Runs a command and kills it, until it comes to an end.

  Args:
    nursery: that starts it.
    arguments: of the command.
    folder: where its changes count.
    life: of the same command, undisturbed.
    kept: what there is that must not be lost.
    complete: whether all is done, after which there is nothing to disturb.
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
      # As users start it.
      ended = commands.run(arguments)
    elif complete():
      ended = nursery.run(arguments)
    elif by_change:
      # Those that are left become fewer from start to start.
      at = 1 + int(moment * life.changes)
      ended = nursery.run(
        arguments, FAULTS_FOLDER=str(folder), FAULTS_KILL_AT=str(at)
      )
    else:
      ended = nursery.run(
        arguments, lambda child, at=moment * life.cpu_s: _cpu_s(child) >= at
      )
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
    (folder.parent / 'tally').write_text(f'{tally.words("so far")}\n')


def _cpu_s(process: psutil.Process) -> float:
  times = process.cpu_times()
  return times.user + times.system
