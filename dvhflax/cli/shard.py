"""Which share of the patients is this process's: --shard, or the cluster.

Slurm's job arrays and Kubernetes' Indexed Jobs number their processes in the
environment. Kubernetes does not say how many there are: the job's manifest sets
`JOB_COMPLETIONS` to its `completions`.
"""

from collections.abc import Mapping
import dataclasses

from dvhflax import errors

_SLURM = 'SLURM_ARRAY_TASK_'
_INDEX, _COUNT = 'JOB_COMPLETION_INDEX', 'JOB_COMPLETIONS'
_SAY = 'or say it with --shard=i/n'


@dataclasses.dataclass(frozen=True)
class Shard:
  """Patients i, i + n, i + 2n, ...

  Attributes:
    index: i, from 0.
    count: n.
    told_by: what says so; empty where nothing does, and all are meant.
  """

  index: int = 0
  count: int = 1
  told_by: str = ''

  @property
  def words(self) -> str:
    """One line for the user."""
    return f'shard {self.index}/{self.count}, from {self.told_by}'


def find(flag: str | None, environment: Mapping[str, str]) -> Shard:
  """This process's share.

  Args:
    flag: `i/n`, which is all that counts; None, or empty: ask the environment.
    environment: such as `os.environ`.

  Raises:
    ConfigError: for what is no share, variables of which some are missing, or
      two clusters that say different things.
  """
  if flag:
    return Shard(*_parse(flag), '--shard')
  found = [
    shard
    for shard in (_slurm(environment), _kubernetes(environment))
    if shard is not None
  ]
  if not found:
    return Shard()
  if len({(s.index, s.count) for s in found}) > 1:
    told = ' but '.join(f'{s.index}/{s.count} by {s.told_by}' for s in found)
    raise errors.ConfigError(
      f'the share of the patients is {told}: unset one, {_SAY}'
    )
  return found[0]


def _parse(text: str) -> tuple[int, int]:
  try:
    i, n = map(int, text.split('/'))
  except ValueError:
    i, n = -1, 0
  if not 0 <= i < n:
    raise errors.ConfigError(
      f'--shard={errors.plain(text)}: use i/n with 0 <= i < n'
    )
  return i, n


def _slurm(environment: Mapping[str, str]) -> Shard | None:
  """Of a job array, whose numbers need not begin at 0 nor follow at once."""
  task, count = f'{_SLURM}ID', f'{_SLURM}COUNT'
  if task not in environment and count not in environment:
    return None
  number = _whole(environment, task, 0)
  n = _whole(environment, count, 1)
  # Both are always set by Slurm; by hand, an array from 0.
  least = _whole(environment, f'{_SLURM}MIN', 0, 0)
  step = _whole(environment, f'{_SLURM}STEP', 1, 1)
  most = _whole(environment, f'{_SLURM}MAX', 0, least + (n - 1) * step)
  i, rest = divmod(number - least, step)
  if rest or not 0 <= i < n or (most - least) // step + 1 != n:
    raise errors.ConfigError(
      f'{task}={number} of {n} tasks from {least} to {most} in steps of {step} '
      f'is no share: submit a whole range, such as --array=0-{max(n - 1, 1)}, '
      f'{_SAY} (0/1: whatever is not done yet)'
    )
  return Shard(i, n, f'{task}={number}, {count}={n}')


def _kubernetes(environment: Mapping[str, str]) -> Shard | None:
  if _INDEX not in environment:
    return None
  i, n = _whole(environment, _INDEX, 0), _whole(environment, _COUNT, 1)
  if i >= n:
    raise errors.ConfigError(
      f'{_INDEX}={i} is beyond {_COUNT}={n}: set that to the completions of '
      f'the Job, {_SAY}'
    )
  return Shard(i, n, f'{_INDEX}={i}, {_COUNT}={n}')


def _whole(
  environment: Mapping[str, str],
  name: str,
  least: int,
  default: int | None = None,
) -> int:
  text = environment.get(name)
  if text is None:
    if default is not None:
      return default
    there = ', '.join(
      key for key in sorted(environment) if key.startswith((_SLURM, _INDEX))
    )
    raise errors.ConfigError(
      f'{name} is not set, though {errors.plain(there, 200)} is: set it, {_SAY}'
    )
  try:
    value = int(text)
  except ValueError:
    value = least - 1
  if value < least:
    raise errors.ConfigError(
      f'{name}={errors.shown(text)} is not a whole number from {least}: mend '
      f'it, {_SAY}'
    )
  return value
