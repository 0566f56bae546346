"""Locks between processes, also of several hosts with one file system.

They are the operating system's (`flock`): one that is killed, or whose host
fails, leaves none behind.
"""

from collections.abc import Iterator
import contextlib
import errno
import os
import sys
import time
from typing import Any

try:
  import fcntl
except ImportError:  # Windows.
  fcntl: Any = None  # type: ignore[no-redef]

_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTTY)
_told: set[str] = set()
_LOOK_S = 0.05


class Lock:
  """A lock that is held, until `release` or the end of the process."""

  def __init__(self, path: str, file: int):
    """Use `try_lock`."""
    self._path, self._file = path, file

  def release(self) -> None:
    """Gives it back; its file goes."""
    if self._file < 0:
      return
    # Before it is unlocked: who waits then finds it is no longer the file.
    # A folder may have been renamed, or be read-only now.
    with contextlib.suppress(OSError):
      os.unlink(self._path)
    os.close(self._file)
    self._file = -1

  def __enter__(self) -> 'Lock':
    return self

  def __exit__(self, *_: object) -> None:
    self.release()


def try_lock(path: str) -> Lock | None:
  """Takes the lock of a file name, or None if it is taken.

  On a file system without locks it excludes nobody, and says so.

  Args:
    path: of a file that means nothing else; its folder must exist.
  """
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if _is(file, path):
        return Lock(path, file)
    except BlockingIOError:
      os.close(file)
      return None
    except (AttributeError, OSError) as error:
      if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
        os.close(file)
        raise
      folder = os.path.dirname(path)
      if folder not in _told:
        _told.add(folder)
        print(
          f'note: {folder} has no file locks: do not let two processes write '
          'to it at once',
          file=sys.stderr,
        )
      return Lock(path, file)
    # Its former holder removed it meanwhile.
    os.close(file)


@contextlib.contextmanager
def held(path: str) -> Iterator[None]:
  """Holds the lock of a file name; waits for it, which is for a moment only.

  Args:
    path: see `try_lock`.
  """
  while (lock := try_lock(path)) is None:
    time.sleep(_LOOK_S)
  with lock:
    yield


def _is(file: int, path: str) -> bool:
  try:
    return os.path.samestat(os.fstat(file), os.stat(path))
  except FileNotFoundError:
    return False
