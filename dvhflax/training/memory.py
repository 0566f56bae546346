"""Memory that this process may still take: the machine's, the container's.

psutil knows the machine's only; the limit of a container is its control
group's, which it does not read.
"""

from collections.abc import Iterator
import os
import pathlib

import psutil

# Groups without a limit show one of this many bytes or more.
_NONE = 1 << 60


def free(
  groups: str = '/proc/self/cgroup', mounted: str = '/sys/fs/cgroup'
) -> int:
  """Bytes of memory, what caches hold counted as free.

  Args:
    groups: where Linux lists the control groups of this process.
    mounted: where it shows them, of version 1 or 2, or both.
  """
  left = [psutil.virtual_memory().available]
  for folder, limit, used, reclaimable in _groups(groups, mounted):
    try:
      most = int(_text(folder / limit))
      taken = int(_text(folder / used))
    except (OSError, ValueError):  # `max` is no limit.
      continue
    if most < _NONE:
      left.append(max(most - taken + _reclaimable(folder, reclaimable), 0))
  return min(left)


def _groups(
  groups: str, mounted: str
) -> Iterator[tuple[pathlib.Path, str, str, str]]:
  """Folder and names of the files of every group this process is in."""
  try:
    lines = _text(pathlib.Path(groups)).splitlines()
  except OSError:
    return
  for line in lines:
    parts = line.split(':', 2)
    if len(parts) != 3:
      continue
    _, controllers, path = parts
    if not controllers:
      root = pathlib.Path(mounted)
      if (root / 'unified').is_dir():
        root = root / 'unified'
      names = ('memory.max', 'memory.current', 'inactive_file')
    elif 'memory' in controllers.split(','):
      root = pathlib.Path(mounted, 'memory')
      names = (
        'memory.limit_in_bytes',
        'memory.usage_in_bytes',
        'total_inactive_file',
      )
    else:
      continue
    # A parent's limit holds too. Within a container the path may be the
    # host's, of which only the root is seen.
    folder = root / path.lstrip('/')
    limit, used, reclaimable = names
    while True:
      yield folder, limit, used, reclaimable
      if folder == root or root not in folder.parents:
        break
      folder = folder.parent


def _reclaimable(folder: pathlib.Path, name: str) -> int:
  """Bytes of a group that its file cache would give up."""
  try:
    for line in _text(folder / 'memory.stat').splitlines():
      key, _, value = line.partition(' ')
      if key == name:
        return int(value)
  except (OSError, ValueError):
    pass
  return 0


def _text(path: pathlib.Path) -> str:
  with open(os.fspath(path), encoding='utf-8') as file:
    return file.read().strip()
