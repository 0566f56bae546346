"""Within a command: counts changes of files, and kills it before one."""

import atexit
import itertools
import os
import signal
import sys

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = ('os.mkdir', 'os.remove', 'os.rmdir', 'os.truncate')


def watch(environment):
  """Watches this process.

  Args:
    environment: `FAULTS_FOLDER` is where changes count; `FAULTS_KILL_AT=n`
      kills before the n-th, and `FAULTS_COUNT` names a file that is told at the
      end how many there were.
  """
  if 'FAULTS_FOLDER' not in environment:
    return
  folder = environment['FAULTS_FOLDER']
  kill_at = int(environment.get('FAULTS_KILL_AT', 0))
  numbers = itertools.count(1)
  pid, last = os.getpid(), [0]

  def hook(event, arguments):
    path = _changed(event, arguments)
    if path is None or isinstance(path, int) or os.getpid() != pid:
      return
    if not os.path.abspath(os.fsdecode(path)).startswith(folder):
      return
    last[0] = next(numbers)
    if last[0] == kill_at:
      os.kill(pid, signal.SIGKILL)

  def tell():
    with open(environment['FAULTS_COUNT'], 'w') as file:
      file.write(str(last[0]))

  if 'FAULTS_COUNT' in environment:
    atexit.register(tell)
  sys.addaudithook(hook)


def _changed(event, arguments):
  """The path that an event is to change, None if it changes none."""
  if event == 'open':
    path, _, flags = arguments
    return path if flags & _WRITES else None
  if event == 'os.rename':
    return arguments[1]
  if event in _CHANGES:
    path, folder = arguments[0], arguments[-1]
    # Of `shutil.rmtree`: a name within a folder that is open.
    if event in ('os.remove', 'os.rmdir') and folder >= 0:
      return os.path.join(os.readlink(f'/proc/self/fd/{folder}'), path)
    return path
  return None
