"""The real commands, as processes of their own, and what they leave."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp

ROOT = pathlib.Path(__file__).parents[2]
HERE = pathlib.Path(__file__).parent
TINY = f'--config={HERE / "tiny.py"}'
# A machine that has much else to do is no fault.
LONG_S = 600
_PROGRESS = ('building ', 'checking ', 'waiting for ', 'training:', 'epoch ')


@dataclasses.dataclass(frozen=True)
class Ended:
  """A command that has ended.

  Attributes:
    status: its exit status.
    out: what it printed.
    err: what it wrote to standard error.
  """

  status: int
  out: str
  err: str

  @property
  def said(self) -> list[str]:
    """Lines of standard error, but for the progress."""
    lines = self.err.replace('\r', '\n').splitlines()
    return [
      line.strip()
      for line in lines
      if line.strip()
      and not line.strip().startswith(_PROGRESS)
      and ' updates on ' not in line
    ]


def plan(path, *flags) -> list[str]:
  """The command that simulates and plans a cohort at a path."""
  return ['build', TINY, f'--config.cohort.path={path}', *flags]


def build(raw, path, *flags) -> list[str]:
  """The command that imports a cohort of NIfTI files below `raw`."""
  return plan(
    path,
    '--config.cohort.source=nifti',
    f'--config.cohort.raw={raw}',
    '--config.cohort.plans=0',
    '--config.cohort.normalisation=target_mean',
    '--config.cohort.grid=(8,8,4)',
    '--config.cohort.spacing_mm=(8.0,8.0,12.0)',
    *flags,
  )


def train(raw, path, workdir, *flags) -> list[str]:
  """The command that does so and trains on it."""
  return ['train', *build(raw, path, f'--workdir={workdir}', *flags)[1:]]


def environment(changes: dict[str, str | None]) -> dict[str, str]:
  """Of this process, with changes; None removes a variable."""
  found = {
    **os.environ,
    'PYTHONPATH': str(ROOT),
    # Whatever is compiled is compiled once.
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    **changes,
  }
  return {key: value for key, value in found.items() if value is not None}


def start(
  arguments: Sequence[str],
  within: Sequence[str] = (),
  cwd=ROOT,
  **changes: str | None,
) -> subprocess.Popen:
  """Starts a command of dvhflax.

  Args:
    arguments: that follow `dvhflax`.
    within: a command that runs it.
    cwd: working directory.
    changes: of the environment.
  """
  return subprocess.Popen(
    [*within, sys.executable, '-m', 'dvhflax', *arguments],
    cwd=cwd,
    env=environment(changes),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def end(process: subprocess.Popen) -> Ended:
  """Waits for a command."""
  try:
    out, err = process.communicate(timeout=LONG_S)
  finally:
    process.kill()
  return Ended(process.returncode, out, err)


def run(arguments: Sequence[str], **options) -> Ended:
  """Runs a command of dvhflax to its end; see `start`."""
  return end(start(arguments, **options))


def done(arguments: Sequence[str], **options) -> Ended:
  """Runs a command that must come to a good end, without a trace."""
  ended = run(arguments, **options)
  assert ended.status == 0, ended.err
  assert 'Traceback' not in ended.err
  return ended


def wait_until(true, process: subprocess.Popen) -> None:
  """Waits until a function says yes, while a command is at work."""
  deadline = time.monotonic() + LONG_S
  while not true():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.01)


def assert_one_line(ended: Ended, *words: str) -> None:
  """That a command has ended with one line that holds some words."""
  assert ended.status == 2, ended
  assert 'Traceback' not in ended.err, ended.err
  faults = [line for line in ended.said if line.startswith('error: ')]
  assert len(faults) == 1 and ended.said[-1] == faults[0], ended.said
  for word in words:
    assert word in faults[0], faults[0]


def content(folder) -> dict[str, bytes]:
  """Every file below a folder."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(pathlib.Path(folder).rglob('*'))
    if path.is_file()
  }


def records(path) -> set[str]:
  """Names of the patients' records of a cohort, half-built or whole."""
  for folder in (f'{path}.building', path):
    found = pathlib.Path(folder, 'patients').glob('[0-9]*.json')
    if names := {record.name for record in found}:
      return names
  return set()


def litter(folder) -> list[str]:
  """What killed commands may leave and a later one removes."""
  return [
    str(path.relative_to(folder))
    for path in sorted(pathlib.Path(folder).rglob('*'))
    if path.name.endswith(('lock', '.building', '.discarded'))
    or '.part' in path.name
    or 'tmp' in path.name
  ]


def steps(workdir) -> set[int]:
  """The steps whose checkpoints are whole."""
  return {
    int(folder.name)
    for folder in pathlib.Path(workdir, 'checkpoints').glob('[0-9]*')
    # Not what is written or renamed aside.
    if folder.name.isdigit() and (folder / '_CHECKPOINT_METADATA').exists()
  }


def trained(workdir) -> dict[str, object]:
  """What a training has left that follows from its configuration alone."""
  workdir = pathlib.Path(workdir)
  last = workdir / 'checkpoints' / str(max(steps(workdir)))
  left: dict[str, object] = {'step': last.name}
  for name in ('history.csv', 'terms.csv'):
    left[name] = (workdir / name).read_bytes()
  left['loss'] = (last / 'metrics' / 'metrics').read_bytes()
  for item in ('model', 'train'):
    with ocp.StandardCheckpointer() as reader:
      tree = ocp.tree.to_flat_dict(reader.restore(last / item))
    for key, value in tree.items():
      array = np.asarray(value)
      left[f'{item}/{key}'] = (array.dtype, array.shape, array.tobytes())
  return left
