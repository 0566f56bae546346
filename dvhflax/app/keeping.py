"""The folder of the sessions: private, of one server at a time.

It also keeps the token and the port, so that a page that is open goes on when
the server was stopped and started again.
"""

import contextlib
import os
import pathlib
import secrets
import stat

import msgspec

from dvhflax import errors, locks

_LOCK, _ACCESS = 'app.lock', 'access.json'


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
  """How the server is reached.

  Attributes:
    token: see `access.Guard`.
    port: that it listened on last.
  """

  token: str
  port: int = 0


class Folder:
  """The folder, while it is this server's.

  Attributes:
    path: of it.
  """

  def __init__(self, path: str):
    """Makes and takes it.

    Raises:
      UserError: if another server has it, or it cannot be written.
    """
    self.path = pathlib.Path(path).absolute()
    self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(self.path, 0o700)
    lock = locks.try_lock(str(self.path / _LOCK))
    if lock is None:
      raise errors.UserError(
        f'another `dvhflax app` has the sessions in {path}: use its page, or '
        'give another folder, --sessions'
      )
    self._lock = lock

  def release(self) -> None:
    """Gives it back."""
    self._lock.release()

  def folder(self, name: str) -> pathlib.Path:
    """A private folder within, made if missing."""
    inner = self.path / name
    inner.mkdir(mode=0o700, exist_ok=True)
    return inner

  def access(self) -> Access:
    """What the last server had, or a new token."""
    path = self.path / _ACCESS
    try:
      if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        raise ValueError('others could read it')
      found = msgspec.json.decode(path.read_bytes(), type=Access)
      if len(found.token) >= 32 and 0 <= found.port < 2**16:
        return found
    except (OSError, ValueError, msgspec.MsgspecError):
      pass
    return Access(secrets.token_urlsafe(32))

  def keep_access(self, access: Access) -> None:
    """Keeps it, for this user alone."""
    path = self.path / _ACCESS
    aside = path.with_name(f'.{_ACCESS}.{secrets.token_hex(8)}')
    try:
      file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
      with os.fdopen(file, 'wb') as opened:
        opened.write(msgspec.json.encode(access))
      os.replace(aside, path)
    finally:
      with contextlib.suppress(FileNotFoundError):
        aside.unlink()
