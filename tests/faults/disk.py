"""A disk of its own, which may be small, full or read-only.

It is a tmpfs in a mount namespace, which an ordinary user may have where the
system allows user namespaces, and which goes with the process that holds it.
"""

from collections.abc import Sequence
import pathlib
import shutil
import subprocess

import pytest

from faults import commands


class Disk:
  """A disk at a folder; only commands that `enter` it see it there.

  Attributes:
    path: of the folder, for these commands.
    seen: the same, as others see it.
  """

  def __init__(self, folder: pathlib.Path, size: str):
    """Args: folder: an empty one; size: as tmpfs takes it."""
    if not shutil.which('unshare') or not shutil.which('nsenter'):
      pytest.skip('no unshare or no nsenter')
    self.path = folder
    self._holder = subprocess.Popen(
      ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c',
       f'mount -t tmpfs -o size={size} faults "$0" && echo mounted && read x',
       str(folder)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )  # fmt: skip
    if self._holder.stdout.readline() != 'mounted\n':
      pytest.skip(f'no mount here: {self._holder.communicate()[1]}')
    self.seen = pathlib.Path(f'/proc/{self._holder.pid}/root{folder}')
    self.enter: Sequence[str] = (
      'nsenter', f'--target={self._holder.pid}', '--user', '--mount',
      '--preserve-credentials', f'--wd={commands.ROOT}',
    )  # fmt: skip

  def remount(self, options: str) -> None:
    """Changes it: `size=64m`, `ro`, `rw`."""
    subprocess.run(
      [*self.enter, 'mount', '-o', f'remount,{options}', str(self.path)],
      check=True,
    )

  def __enter__(self) -> 'Disk':
    return self

  def __exit__(self, *_: object) -> None:
    self._holder.communicate('\n')
