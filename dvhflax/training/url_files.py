"""The files of a workdir at a URL, by TensorStore's key-value stores."""

from collections.abc import Iterable, Iterator
import contextlib
import pathlib
import re
from typing import Any

import tensorstore as ts

from dvhflax import errors
from dvhflax.cohort import place
from dvhflax.training import checkpoint_files

# The names of all files, which `http` does not tell.
INDEX = 'files.txt'
# Files under way at once.
_AT_ONCE = 16
# These take a minute and a half.
_SENDING_RETRIES = 8
_STEP = re.compile(rf'((?:.*/)?{checkpoint_files.FOLDER}/\d+)/.+')


def step_of(name: str) -> str | None:
  """The checkpoint that a file belongs to, `checkpoints/12`; None: to none."""
  found = _STEP.fullmatch(name)
  return found[1] if found else None


class UrlFiles:
  """The files at a URL.

  Attributes:
    url: of the folder.
  """

  def __init__(self, url: str, retries: int | None = None):
    """Nothing is asked for yet.

    Args:
      url: of the folder.
      retries: see `place.context`.

    Raises:
      CheckpointError: for a URL that TensorStore does not know.
    """
    self.url = url.rstrip('/')
    self._store: Any = self._result(
      ts.KvStore.open(place.at_url(self.url), context=place.context(retries))
    )

  def patient(self) -> 'UrlFiles':
    """The same, for what would be lost if a server is away for a minute."""
    return UrlFiles(self.url, _SENDING_RETRIES)

  @property
  def _lists(self) -> bool:
    """Whether the server tells its files, and takes others."""
    return not self.url.startswith(('http://', 'https://'))

  def require_writable(self, instead: str) -> None:
    """Raises a ConfigError for a server that can only be read."""
    if not self._lists:
      raise errors.ConfigError(
        f'{self.url} can only be read: {instead} a folder, s3://BUCKET/PATH or '
        'gs://BUCKET/PATH'
      )

  def listed(self) -> list[str]:
    """The names of all files.

    Raises:
      CheckpointError: if the server does not tell.
    """
    if self._lists:
      return sorted(n.decode() for n in self._result(self._store.list()))
    index = self.read(INDEX)
    if index is None:
      raise errors.CheckpointError(
        f'{self.url} has no {INDEX}, and over http only that tells which files '
        f'there are: make it in the workdir, find . -type f > {INDEX}'
      )
    names = [n.strip().removeprefix('./') for n in index.decode().splitlines()]
    # Others would be written beside the folder.
    return [n for n in names if n and '..' not in n and not n.startswith('/')]

  def names(self) -> list[str]:
    """As `listed`, without what there is of checkpoints that are not whole."""
    listed = self.listed()
    there = set(listed)
    return [
      name
      for name in listed
      if (step := step_of(name)) is None or marker(step) in there
    ]

  def read(self, name: str) -> bytes | None:
    """A file; None if it is not there.

    Raises:
      CheckpointError: if the server does not give it.
    """
    found = self._result(self._store.read(name))
    return bytes(found.value) if found.state == 'value' else None

  def bring(self, names: Iterable[str], folder: str) -> None:
    """Brings files to a folder.

    Raises:
      CheckpointError: if the server does not give one.
    """
    for some in _batches(names):
      under_way = [(name, self._store.read(name)) for name in some]
      for name, future in under_way:
        found = self._result(future)
        if found.state != 'value':
          raise errors.CheckpointError(
            f'{self.url}/{name} is gone: if its run is still training, run the '
            'same command again'
          )
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found.value)

  def send(self, names: Iterable[str], folder: str) -> None:
    """Sends files of a folder.

    Raises:
      StorageError: if the server does not take one.
    """
    for some in _batches(names):
      values = {name: pathlib.Path(folder, name).read_bytes() for name in some}
      with self._writing():
        futures = [self._store.write(*item) for item in values.items()]
        for future in futures:
          future.result()

  def write(self, name: str, text: str) -> None:
    """Writes a small file.

    Raises:
      StorageError: if the server does not take it.
    """
    with self._writing():
      self._store.write(name, text.encode()).result()

  def remove(self, step: str) -> None:
    """Removes a checkpoint, or what there is of one.

    Args:
      step: of `step_of`.

    Raises:
      StorageError: if the server does not do it.
    """
    # '0' is what comes after '/'.
    all_of_it = ts.KvStore.KeyRange(f'{step}/', f'{step}0')
    with self._writing():
      self._store.write(marker(step), None).result()
      self._store.delete_range(all_of_it).result()

  def _result(self, future: Any) -> Any:
    try:
      return future.result()
    except place.UNREAD as error:
      raise errors.CheckpointError(place.not_read(self.url, error)) from None

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except place.UNREAD as error:
      raise errors.StorageError(
        f'{self.url} is not written: {place.said(error)}; then run the same '
        'command again'
      ) from None


def marker(step: str) -> str:
  """The file that a checkpoint has as long as it is whole."""
  return f'{step}/{checkpoint_files.MARKER}'


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
  ordered = sorted(names)
  for start in range(0, len(ordered), _AT_ONCE):
    yield ordered[start : start + _AT_ONCE]
