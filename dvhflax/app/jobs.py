"""Deliverable doses, computed in the background."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
import dataclasses
import math
import os
import pathlib
import secrets
import sys
import time
from typing import Any, Literal

import jax
import numpy as np

from dvhflax import errors
from dvhflax.app import faults, mimic_process
from dvhflax.app.opened import Opened
from dvhflax.cohort.store import Cohort

Keep = Callable[[np.ndarray], Awaitable[None]]

# At once, and that are remembered when they are done.
_MOST, _MOST_DONE = 2, 50
# What is done, for people, and the share of the way that lies behind it; the
# rest is told by the gap. Shares are of two busy cores, 128x128x64.
_STARTING = 'starting the planner', 0.02
_STAGES = {
  'beams': ('computing the dose of the beams', 0.15),
  'fluences': ('finding first fluences', 0.4),
}
_CLOSER, _GAP_BEGINS = 'coming closer', 0.6


@dataclasses.dataclass
class Job:
  """One of them.

  Attributes:
    key: random, in addresses.
    progress: 0 to 1, as far as it can be told.
    stage: what is done, for people.
    dose: what it gave, one of the state's `doses`.
    error: why it failed.
  """

  key: str
  state: Literal['running', 'done', 'failed', 'stopped'] = 'running'
  progress: float = 0.0
  stage: str = ''
  dose: str | None = None
  error: str | None = None
  began: float = dataclasses.field(default_factory=time.monotonic)
  closer_since: float | None = None
  widest: float = 0.0
  task: asyncio.Task[None] | None = None

  def to_json(self) -> dict[str, Any]:
    """What `GET /api/v1/jobs/J` answers."""
    now, left = time.monotonic(), None
    done = self.progress - _GAP_BEGINS
    if self.state == 'running' and self.closer_since and done > 0:
      left = (now - self.closer_since) * (1 - self.progress) / done
    return {
      'state': self.state,
      'progress': round(self.progress, 3),
      'stage': self.stage,
      'spent_s': round(now - self.began, 1),
      'remaining_s': left,
      'dose': self.dose,
      'error': self.error,
    }

  def at(self, line: str) -> None:
    """Takes a line of the process, see `mimic_process`."""
    if line in _STAGES:
      self.stage, self.progress = _STAGES[line]
      return
    wider = float(line)
    self.widest = max(self.widest, wider)
    if self.closer_since is None:
      self.closer_since = time.monotonic()
    self.stage = _CLOSER
    way = 0.0
    if self.widest > 1:
      way = 1 - math.log(max(wider, 1)) / math.log(self.widest)
    share = _GAP_BEGINS + (0.99 - _GAP_BEGINS) * way
    self.progress = max(self.progress, share)


class Jobs:
  """All of them."""

  def __init__(self, folder: pathlib.Path):
    """With a folder for what processes exchange, which is emptied."""
    self._folder = folder
    for path in folder.glob('*.npz'):
      path.unlink()
    self._jobs: dict[str, Job] = {}

  def find(self, key: str) -> Job:
    """One by its key.

    Raises:
      NotThere: if there is none.
    """
    if key not in self._jobs:
      raise faults.NotThere('there is no such job: it ended with the server')
    return self._jobs[key]

  def begin(
    self, opened: Opened, number: int, dose_gy: np.ndarray, keep: Keep
  ) -> Job:
    """Starts one for a step's dose.

    Args:
      opened: the session.
      number: of the step.
      dose_gy: `[X, Y, Z]` of it.
      keep: is given what comes out.

    Raises:
      Conflict: if too many run.
      UserError: if there are no beams to deliver it by.
    """
    running = [job for job in self._jobs.values() if job.state == 'running']
    if len(running) >= _MOST:
      raise faults.Conflict(
        f'{_MOST} deliverable doses are being computed: wait for one, or stop '
        'one'
      )
    protocol = protocol_of(opened)
    done = [key for key, job in self._jobs.items() if job.state != 'running']
    for key in done[: max(0, len(done) - _MOST_DONE)]:
      del self._jobs[key]
    job = Job(secrets.token_hex(8))
    self._jobs[job.key] = job
    opened.jobs.append(job.key)
    job.task = asyncio.create_task(
      self._run(job, opened, number, dose_gy, protocol, keep)
    )
    job.task.add_done_callback(lambda _: opened.jobs.remove(job.key))
    return job

  async def stop(self, key: str) -> Job:
    """Stops one, if it runs."""
    job = self.find(key)
    if job.task and not job.task.done():
      job.task.cancel()
      await asyncio.gather(job.task, return_exceptions=True)
    return job

  async def close(self) -> None:
    """Stops all."""
    for key in list(self._jobs):
      await self.stop(key)

  async def _run(
    self,
    job: Job,
    opened: Opened,
    number: int,
    dose_gy: np.ndarray,
    protocol: dict[str, Any],
    keep: Keep,
  ) -> None:
    task = self._folder / f'{job.key}.task.npz'
    result = self._folder / f'{job.key}.result.npz'
    session = opened.session
    job.stage, job.progress = _STARTING
    try:
      await asyncio.to_thread(
        mimic_process.write_task,
        task,
        dose_gy,
        session.masks,
        session.present,
        session.cohort.structures,
        session.record.spacing_mm,
        session.record.prescription_gy,
        protocol,
        opened.ct,
      )
      await _process(job, task, result)
      await keep(await asyncio.to_thread(_dose_in, result))
      job.stage = ''
      job.progress, job.dose = 1.0, f'deliverable-{number}'
      job.state = 'done'
    except asyncio.CancelledError:
      job.state = 'stopped'
      raise
    except errors.UserError as error:
      job.state, job.error = 'failed', errors.plain(str(error), 500)
    except Exception as error:
      # Its kind alone: a text may hold what is a patient's.
      kind = type(error).__name__
      job.state = 'failed'
      job.error = f'an internal error, {kind}: the dose could not be computed'
    finally:
      task.unlink(missing_ok=True)
      result.unlink(missing_ok=True)


def protocol_of(opened: Opened) -> dict[str, Any]:
  """The beams that the patient's plans have, or else those of the cohort's.

  Raises:
    UserError: if neither has any.
  """
  cohort: Cohort = opened.session.cohort
  owners: list[Mapping[str, Any]] = [opened.session.record.provenance]
  owners += [cohort.patients[i].provenance for i in cohort.split('train')]
  owners.append(cohort.metadata.provenance)
  for owner in owners:
    if isinstance(owner.get('protocol'), dict):
      return dict(owner['protocol'])
  raise errors.UserError(
    'the plans of this cohort were not computed here, so that no beams are '
    'known to deliver a dose by: use `dvhflax mimic --config=...`'
  )


async def _process(job: Job, task: pathlib.Path, result: pathlib.Path) -> None:
  """Runs the process to its end, or ends it."""
  cache = jax.config.values['jax_compilation_cache_dir']
  process = await asyncio.create_subprocess_exec(
    sys.executable,
    '-m',
    'dvhflax.app.mimic_process',
    str(task),
    str(result),
    stdin=asyncio.subprocess.DEVNULL,
    stdout=asyncio.subprocess.PIPE,
    stderr=asyncio.subprocess.PIPE,
    env={
      **os.environ,
      **({'JAX_COMPILATION_CACHE_DIR': cache} if cache else {}),
    },
    start_new_session=True,  # Ctrl-C is for the server
  )
  assert process.stdout and process.stderr
  errors_read = asyncio.create_task(process.stderr.read())
  try:
    async for line in process.stdout:
      job.at(line.decode().strip())
    status = await process.wait()
  finally:
    if process.returncode is None:
      process.kill()
      await process.wait()
    text = (await errors_read).decode(errors='replace').strip()
  if status == 2 and text:
    raise errors.PlanningError(text.splitlines()[-1])
  if status:
    raise errors.PlanningError(
      'the process that computes the deliverable dose failed: is there enough '
      'memory?'
    )


def _dose_in(result: pathlib.Path) -> np.ndarray:
  with np.load(result, allow_pickle=False) as file:
    return np.asarray(file['dose_gy'])
