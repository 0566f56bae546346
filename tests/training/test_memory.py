"""Free memory: the machine's, or what a container leaves of it."""

import types

import psutil
import pytest

from dvhflax.training import memory

GIB = 1 << 30


@pytest.fixture
def groups(tmp_path, monkeypatch):
  """Writes a tree of control groups; the machine has 64 GiB to give."""
  monkeypatch.setattr(
    psutil,
    'virtual_memory',
    lambda: types.SimpleNamespace(available=64 * GIB),
  )

  def write(lines, **files):
    (tmp_path / 'cgroup').write_text(lines)
    for name, content in files.items():
      path = tmp_path / name.replace('__', '/')
      path.parent.mkdir(parents=True, exist_ok=True)
      (path.parent / path.name.replace('_dot_', '.')).write_text(f'{content}\n')
    return memory.free(str(tmp_path / 'cgroup'), str(tmp_path / 'sys'))

  return write


def test_version_2(groups):
  job = 'sys__slurm__job__memory_dot_'
  free = groups(
    '0::/slurm/job\n',
    **{
      f'{job}max': 8 * GIB,
      f'{job}current': 6 * GIB,
      # Files that were read, which the system would drop first.
      f'{job}stat': f'anon 1\ninactive_file {GIB}\nactive_file 5',
      'sys__slurm__memory_dot_max': 'max',
      'sys__slurm__memory_dot_current': 7 * GIB,
    },
  )
  assert free == 3 * GIB


def test_the_limit_of_a_parent_holds(groups):
  free = groups(
    '0::/slurm/job\n',
    sys__slurm__job__memory_dot_max='max',
    sys__slurm__job__memory_dot_current=GIB,
    sys__slurm__memory_dot_max=4 * GIB,
    sys__slurm__memory_dot_current=5 * GIB,
  )
  assert free == 0


def test_version_1_within_a_container(groups):
  """The path is the host's, of which the container sees the end alone."""
  free = groups(
    '5:devices:/docker/0ab\n4:cpu,memory:/docker/0ab\n0::/\n',
    sys__memory__memory_dot_limit_in_bytes=2 * GIB,
    sys__memory__memory_dot_usage_in_bytes=GIB,
    sys__memory__memory_dot_stat=f'total_inactive_file {GIB // 2}',
  )
  assert free == 1.5 * GIB


@pytest.mark.parametrize('limit', ['max', 9223372036854771712, 100 * GIB, 'x'])
def test_without_a_limit_it_is_the_machines(groups, limit):
  free = groups(
    '4:memory:/\n',
    sys__memory__memory_dot_limit_in_bytes=limit,
    sys__memory__memory_dot_usage_in_bytes=GIB,
  )
  assert free == 64 * GIB


def test_without_control_groups(tmp_path, monkeypatch):
  """As on macOS."""
  available = psutil.virtual_memory().available
  free = memory.free(str(tmp_path / 'none'), str(tmp_path / 'none'))
  assert free == pytest.approx(available, rel=0.2)
