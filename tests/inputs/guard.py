"""Watches what a process writes, and how much memory it takes."""

import os
import pathlib
import resource
import sys

# Beside what the process has once it has imported all and read a sound input.
MEMORY = 2 * 2**30
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# The arguments of an event that are paths which are changed.
_CHANGES = {
  'os.mkdir': (0,), 'os.rename': (0, 1), 'os.remove': (0,), 'os.rmdir': (0,),
  'os.symlink': (1,), 'os.link': (1,), 'os.truncate': (0,), 'os.chmod': (0,),
  'os.utime': (0,), 'shutil.rmtree': (0,),
}  # fmt: skip
_NEVER = ('subprocess.Popen', 'os.system', 'socket.connect', 'os.exec')


class Guard:
  """Once made it watches to the end of the process.

  Attributes:
    allowed: folder in which files may be written; None: nothing is watched.
    seen: what was done that must not be.
  """

  def __init__(self):
    self.allowed: str | None = None
    self.seen: list[str] = []
    sys.addaudithook(self._hook)

  def _hook(self, event, args):
    if self.allowed is None:
      return
    if event in _NEVER:
      self.seen.append(f'{event} {args}')
    elif event == 'open':
      path, mode, flags = args
      writes = flags & _WRITING if isinstance(flags, int) else False
      if isinstance(mode, str):
        writes = writes or set(mode) & set('wax+')
      if writes:
        self._check(event, path)
    elif event in _CHANGES:
      for place in _CHANGES[event]:
        self._check(event, args[place])

  def _check(self, event, path):
    if isinstance(path, int):
      return
    path = os.path.realpath(os.fsdecode(path))
    if path != os.devnull and not f'{path}/'.startswith(f'{self.allowed}/'):
      self.seen.append(f'{event} {path}')


def listing(folder):
  """Names, sizes and times of all files, to compare."""
  return sorted(
    (str(p.relative_to(folder)), s.st_size, s.st_mtime_ns)
    for p in pathlib.Path(folder).rglob('*')
    if p.is_file() and (s := p.stat())
  )


def limit_memory(more=MEMORY):
  """Lets the process have so much more address space than it has now."""
  now = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
  limit = now * resource.getpagesize() + more
  _, most = resource.getrlimit(resource.RLIMIT_AS)
  resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def peak():
  """Bytes: the most that the process has had in memory."""
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith('VmHWM'):
      return int(line.split()[1]) * 1024
  return 0
