"""Runs damaged inputs in a process that is watched, and started again."""

from collections import Counter
import dataclasses
import json
import os
import pathlib
import selectors
import subprocess
import sys
import tempfile
import time

from inputs.kinds import kind as kind_of

# Of the processor, and on the wall, where others may have the processor.
SECONDS, WAIT = 20.0, 60.0
MOST_BYTES = 2 * 2**30
# Until all is imported and compiled.
_START = 300.0
_TESTS = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass
class Outcome:
  """What became of the inputs of a kind.

  Attributes:
    kind: its name.
    counts: by verdict.
    faults: what was no clear refusal and no sound result.
    cases: all answers, if they are to be kept.
    slowest: seconds of the processor of the slowest one.
    peak: bytes, of the process that read them.
    seconds: for all on the wall, without the start.
  """

  kind: str
  counts: Counter = dataclasses.field(default_factory=Counter)
  faults: list[dict] = dataclasses.field(default_factory=list)
  cases: list[dict] = dataclasses.field(default_factory=list)
  slowest: float = 0.0
  peak: int = 0
  seconds: float = 0.0


class _Worker:
  def __init__(self, name, seeds, scratch, seed):
    environment = {
      **os.environ,
      'PYTHONPATH': os.pathsep.join(
        map(str, (_TESTS, _TESTS / 'io', _TESTS / 'tuning', _TESTS.parent))
      ),
      'PYTHONDONTWRITEBYTECODE': '1',
      'JAX_PLATFORMS': 'cpu',
      'HOME': str(scratch),
    }
    self._log = open(f'{scratch}.log', 'w')  # noqa: SIM115
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'inputs.worker', name, seeds, scratch, str(seed)],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
      env=environment, cwd=_TESTS,
    )  # fmt: skip
    self._ended = False
    self._selector = selectors.DefaultSelector()
    self._selector.register(self._process.stdout, selectors.EVENT_READ)

  def answer(self, seconds):
    """Its next line; None if there is none in time, or it has ended."""
    if not self._selector.select(seconds):
      return None
    line = self._process.stdout.readline()
    self._ended = not line
    return json.loads(line) if line else None

  def ask(self, number):
    self._process.stdin.write(f'{number}\n'.encode())
    self._process.stdin.flush()

  def end(self):
    """Ends it; its exit status if it had ended by itself, else None."""
    status = None
    if self._ended:
      status = self._process.wait()
    self._process.kill()
    self._process.wait()
    for file in (self._process.stdin, self._process.stdout):
      file.close()
    self._selector.close()
    self._log.close()
    return status

  @property
  def log(self):
    with open(self._log.name, errors='replace') as file:
      return file.read()[-2000:]


def run(name: str, numbers, seed: int = 0, keep: bool = False) -> Outcome:
  """Reads damaged inputs of a kind.

  Args:
    name: one of `kinds.KINDS`.
    numbers: of the cases; each is the same whenever it is run.
    seed: of all.
    keep: every answer, and not those of faults alone.
  """
  outcome = Outcome(name)
  with tempfile.TemporaryDirectory() as root:
    seeds = pathlib.Path(root, 'seed')
    seeds.mkdir()
    kind_of(name).make(seeds)
    worker, starts = None, 0
    for number in numbers:
      if worker is None:
        starts += 1
        worker = _Worker(name, str(seeds), f'{root}/{starts}', seed)
        if worker.answer(_START) is None:
          worker.end()
          raise RuntimeError(f'no worker for {name}: {worker.log}')
      start = time.monotonic()
      worker.ask(number)
      found = worker.answer(WAIT)
      outcome.seconds += time.monotonic() - start
      if found is None:
        status = worker.end()
        text = f'no answer in {WAIT:g} s'
        if status is not None:
          text = f'the process ended with {status}: {worker.log}'
        found = {'number': number, 'verdict': 'fault', 'text': text}
        worker = None
      elif found['seconds'] > SECONDS:
        found |= {'verdict': 'fault', 'text': f'took {found["seconds"]:.1f} s'}
      elif found['peak'] > MOST_BYTES:
        found |= {'verdict': 'fault', 'text': f'peak {found["peak"]} bytes'}
        worker.end()
        worker = None
      outcome.counts[found['verdict']] += 1
      if found['verdict'] == 'fault':
        outcome.faults.append(found)
      if keep:
        outcome.cases.append(found)
      outcome.slowest = max(outcome.slowest, found.get('seconds', 0.0))
      outcome.peak = max(outcome.peak, found.get('peak', 0))
    if worker is not None:
      worker.end()
  return outcome
