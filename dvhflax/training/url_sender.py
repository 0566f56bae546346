"""Sends what a training has written to its workdir at a URL."""

from collections.abc import Callable, Iterable
import os
import pathlib
import socket
import uuid

from dvhflax import errors
from dvhflax.training import checkpoint_files
from dvhflax.training.url_files import INDEX, UrlFiles, step_of

# Which training writes there: the one that began last.
_OWNER = 'training.txt'

# Name -> size and time of change.
_Stamps = dict[str, tuple[int, int]]


class Sender:
  """A folder and a URL, which has the folder's files after each `send`.

  Only checkpoints are ever removed there.
  """

  def __init__(self, files: UrlFiles, folder: str):
    """Nothing is done yet.

    Args:
      files: at the URL.
      folder: of this machine; no other process writes to it.
    """
    self._files, self._folder = files, folder
    self._sending = files.patient()
    self._sent: _Stamps = {}
    self._steps: set[str] = set()
    self._me = f'{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}'
    self._begun = False

  def bring(self, wanted: Callable[[str], bool]) -> None:
    """Brings whole checkpoints and other files that are wanted.

    Raises:
      CheckpointError: if the server does not give one.
    """
    names = [name for name in self._files.names() if wanted(name)]
    self._files.bring(names, self._folder)
    stamps = self._stamps()
    self._sent |= {name: stamps[name] for name in names}
    self._steps |= _steps(names)

  def send(self) -> None:
    """Sends what is new, a checkpoint's marker last; removes what is gone.

    Raises:
      StorageError: if the server does not take it.
      UserError: if another training has begun there.
    """
    if not self._begun:
      self._begin()
    now = self._stamps()
    new = [name for name, stamp in now.items() if self._sent.get(name) != stamp]
    markers = [n for n in new if n.endswith(f'/{checkpoint_files.MARKER}')]
    self._sending.send(set(new) - set(markers), self._folder)
    self._require_mine()
    self._sending.send(markers, self._folder)
    gone = self._steps - _steps(now)
    for step in sorted(gone):
      self._sending.remove(step)
    self._sent, self._steps = now, _steps(now)
    if new or gone:
      self._sending.write(INDEX, '\n'.join([*self._sending.names(), '']))

  def _begin(self) -> None:
    """Makes this the training that writes there."""
    before = self._sending.read(_OWNER)
    self._sending.write(_OWNER, self._me)
    if _steps(self._sending.names()) != self._steps:
      if before is not None:
        self._sending.write(_OWNER, before.decode())
      raise self._other('has saved there meanwhile')
    # What there is of those that were under way when a run was killed.
    self._steps = _steps(self._sending.listed())
    self._begun = True

  def _require_mine(self) -> None:
    found = self._sending.read(_OWNER)
    if found is None or found.decode(errors='replace') != self._me:
      raise self._other('has begun there')

  def _other(self, did: str) -> errors.UserError:
    return errors.UserError(
      f'another training {did}, {self._files.url}: this one stops; wait for '
      'that one, or use another --workdir'
    )

  def _stamps(self) -> _Stamps:
    """Of all files but hidden ones, such as locks."""
    found = {}
    for path in pathlib.Path(self._folder).rglob('*'):
      name = path.relative_to(self._folder)
      if path.is_file() and not any(p.startswith('.') for p in name.parts):
        status = path.stat()
        found[name.as_posix()] = (status.st_size, status.st_mtime_ns)
    return found


def _steps(names: Iterable[str]) -> set[str]:
  return {step for name in names if (step := step_of(name)) is not None}
