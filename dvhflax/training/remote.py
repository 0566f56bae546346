"""A workdir at a URL, brought to a folder of this machine and sent back.

What trains and restores knows folders only. At the URL are the same files under
the same names: a run that was copied there is read, and one that was trained
there can be copied to a folder.

Of a checkpoint the marker is sent last and removed first, so that whenever a
run is killed, what has a marker at the URL is whole.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import os
import pathlib
import tempfile

import jax

from dvhflax import errors
from dvhflax.cohort import place
from dvhflax.training import bundle, checkpoint_files
from dvhflax.training.url_files import UrlFiles, step_of
from dvhflax.training.url_sender import Sender

# Of a checkpoint, what is not needed to choose one.
_LARGE = ('model', 'train')


@dataclasses.dataclass(frozen=True)
class Workdir:
  """A workdir as a folder of this machine.

  Attributes:
    name: how the user calls it: the folder, or the URL.
    path: of the folder; where the workdir is at a URL, it is a scratch one.
    bring: brings what lies at the URL under names, `bring('checkpoints/12/')`;
      of a folder all is there.
    send: sends what has changed to the URL; None for a folder.
  """

  name: str
  path: str
  bring: Callable[..., None] = lambda *_: None
  send: Callable[[], None] | None = None

  def shown(self, text: str) -> str:
    """A text for the user, who does not know the scratch folder."""
    return text.replace(self.path, self.name)


def absolute(workdir: str | os.PathLike[str]) -> str:
  """The same workdir from another working directory: a URL or a path."""
  workdir = os.fspath(workdir)
  if place.is_url(workdir):
    return workdir.rstrip('/')
  return os.path.abspath(workdir)


def require_folder(path: str | os.PathLike[str] | None, flag: str) -> None:
  """Raises a ConfigError for a URL where only a folder is written to."""
  if path and place.is_url(os.fspath(path)):
    raise errors.ConfigError(
      f'{flag}={path} is a URL: name a folder, and copy it afterwards'
    )


def require_writable(path: str, flag: str) -> None:
  """Raises a ConfigError for a URL that can only be read."""
  if place.is_url(path):
    UrlFiles(path).require_writable(f'give as {flag}')


@contextlib.contextmanager
def opened(workdir: str) -> Iterator[Workdir]:
  """A workdir to restore from: enough of it to choose a checkpoint.

  Args:
    workdir: of `absolute`.

  Raises:
    CheckpointError: if a URL cannot be read, or has a bundle.
  """
  if not place.is_url(workdir):
    yield Workdir(workdir, workdir)
    return
  files = UrlFiles(workdir)
  with _scratch(workdir) as folder:
    names = files.names()
    if bundle.INFO in names:
      raise errors.CheckpointError(
        f'{workdir} is a bundle: copy it to a folder, and name that'
      )

    def bring(*under: str) -> None:
      files.bring([name for name in names if name.startswith(under)], folder)

    files.bring([name for name in names if _is_small(name)], folder)
    yield Workdir(workdir, folder, bring)


@contextlib.contextmanager
def training(workdir: str) -> Iterator[Workdir]:
  """A workdir to train in, with what is needed to resume.

  Args:
    workdir: of `absolute`; a folder is made if it is missing.

  Raises:
    ConfigError: for a URL that can only be read, or that several processes
      train in.
    CheckpointError: for one that cannot be read.
  """
  if not place.is_url(workdir):
    os.makedirs(workdir, exist_ok=True)
    yield Workdir(workdir, workdir)
    return
  if jax.process_count() > 1:
    raise errors.ConfigError(
      f'--workdir={workdir}: several processes train in a folder that all of '
      'them see, not at a URL'
    )
  files = UrlFiles(workdir)
  files.require_writable('train in')
  with _scratch(workdir) as folder:
    sender = Sender(files, folder)
    sender.bring(_is_resumed)
    yield Workdir(workdir, folder, send=sender.send)


@contextlib.contextmanager
def written(path: str) -> Iterator[str]:
  """A folder to write results to, which are sent if `path` is a URL.

  Raises:
    StorageError: if the server does not take them.
  """
  if not place.is_url(path):
    os.makedirs(path, exist_ok=True)
    yield path
    return
  files = UrlFiles(path)
  with _scratch(path) as folder:
    yield folder
    files.patient().send(_files_of(folder), folder)


def read_text(folder: str, name: str) -> str:
  """A file of a folder, or at a URL.

  Raises:
    FileNotFoundError: if it is not there.
    CheckpointError: if the server does not give it.
  """
  if not place.is_url(folder):
    with open(
      os.path.join(folder, name), encoding='utf-8', errors='replace'
    ) as file:
      return file.read()
  found = UrlFiles(folder).read(name)
  if found is None:
    raise FileNotFoundError(f'{folder}/{name}')
  return found.decode(errors='replace')


def _is_small(name: str) -> bool:
  """Whether it belongs to what a checkpoint is chosen by."""
  parts = name.split('/')
  return (
    step_of(name) is not None
    and parts[0] == checkpoint_files.FOLDER
    and parts[2] not in _LARGE
  )


def _is_resumed(name: str) -> bool:
  """Whether a run that goes on needs it."""
  first, _, rest = name.partition('/')
  return step_of(name) is not None or (not rest and first.endswith('.csv'))


def _files_of(folder: str) -> Iterable[str]:
  for path in pathlib.Path(folder).rglob('*'):
    if path.is_file():
      yield path.relative_to(folder).as_posix()


@contextlib.contextmanager
def _scratch(url: str) -> Iterator[str]:
  """A folder of the same name; errors name the URL in its place."""
  with tempfile.TemporaryDirectory(prefix='dvhflax-') as outer:
    folder = os.path.join(outer, url.rpartition('/')[2])
    os.makedirs(folder, exist_ok=True)
    try:
      yield folder
    except (errors.UserError, errors.Interrupted) as error:
      error.args = (str(error).replace(folder, url), *error.args[1:])
      raise
