"""Sessions on disk: the audit trail, and what it does not hold, beside it."""

from collections.abc import Sequence
import contextlib
import datetime
import os
import pathlib
import re

import msgspec
import numpy as np

from dvhflax import errors, files
from dvhflax.app import faults, messages
from dvhflax.tuning.session import Session

# Of another version of jax, whose rounding is another: a fraction of the
# prescription.
ATOL = 1e-3
_KEY = re.compile('[0-9a-f]{16}')


class Kept(msgspec.Struct, frozen=True):
  """What is kept of a session beside its trail.

  Attributes:
    patient: its key, see `patients.Entry`.
    label: its id.
    steps: how many there are.
    saved: when, ISO 8601 in UTC.
    goals: texts.
    made: numbers of the steps whose deliverable dose is kept.
    read_as: names and prescription that the patient's files were read with;
      None of one of the cohort.
  """

  patient: str
  label: str
  steps: int = 0
  saved: str = ''
  goals: list[str] = []
  made: list[int] = []
  read_as: messages.Import | None = None


class SessionFiles:
  """The sessions of a folder, by their random keys."""

  def __init__(self, folder: pathlib.Path):
    """Lists what is there; what cannot be read is left alone."""
    self._folder = folder
    files.remove_leftovers(folder)
    self.kept: dict[str, Kept] = {}
    for path in sorted(folder.glob('*.session.json'), key=os.path.getmtime):
      key = path.name.partition('.')[0]
      with contextlib.suppress(OSError, msgspec.MsgspecError):
        if _KEY.fullmatch(key) and self.trail(key).is_file():
          self.kept[key] = msgspec.json.decode(path.read_bytes(), type=Kept)

  def trail(self, key: str) -> pathlib.Path:
    """Of a session's trail."""
    return self._folder / f'{key}.trail.json'

  def find(self, key: str) -> pathlib.Path:
    """The trail of a session that there is.

    Raises:
      NotThere: if there is none.
    """
    if key not in self.kept:
      raise faults.NotThere('there is no such session: it was deleted')
    return self.trail(key)

  def save(
    self,
    key: str,
    session: Session,
    patient: str,
    goals: Sequence[str],
    made: Sequence[int],
    read_as: messages.Import | None,
  ) -> None:
    """Writes both files, each whole or not at all."""
    # Sessions are listed by it: two may be saved within a second.
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='microseconds')
    kept = Kept(
      patient,
      session.record.id,
      len(session.steps),
      now,
      list(goals),
      list(made),
      read_as,
    )
    session.save(self.trail(key))
    text = msgspec.json.encode(kept).decode()
    files.write_text(self._folder / f'{key}.session.json', text)
    self.kept[key] = kept

  def keep_made(self, key: str, number: int, dose_gy: np.ndarray) -> None:
    """Writes a deliverable dose."""
    with files.replacing(self._made(key, number)) as aside:
      np.savez_compressed(aside, dose_gy=dose_gy.astype(np.float32))

  def made(self, key: str, number: int) -> np.ndarray | None:
    """`[X, Y, Z]` Gy; None if it is there no more."""
    try:
      with np.load(self._made(key, number), allow_pickle=False) as file:
        return np.asarray(file['dose_gy'])
    except (OSError, ValueError, KeyError):
      return None

  def delete(self, key: str) -> None:
    """Removes all files of a session."""
    self.kept.pop(key, None)
    for path in self._folder.glob(f'{key}.*'):
      path.unlink(missing_ok=True)

  def _made(self, key: str, number: int) -> pathlib.Path:
    return self._folder / f'{key}.deliverable-{number}.npz'


def replay(session: Session, path: pathlib.Path) -> None:
  """Repeats the steps of a trail, whoever wrote it.

  Raises:
    SessionError: if that cannot be.
  """
  try:
    session.replay(path, atol=ATOL)
  except errors.UserError as error:
    text = str(error).replace(str(path), 'the trail')
    raise errors.SessionError(text) from None
  except (
    KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError,
  ):  # fmt: skip
    raise errors.SessionError(
      'the trail is damaged, or of another program: begin a new session'
    ) from None
