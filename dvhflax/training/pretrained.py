"""Trained networks that come with the package, by name."""

import difflib
import pathlib

import dvhflax
from dvhflax import errors
from dvhflax.training.bundle import is_bundle


def pretrained(name: str) -> str:
  """The path of a trained network that comes with dvhflax.

  It stands where the path of a training run does: `Session.open`,
  `load_network`. A name is never a path and a path never a name, so that no
  folder of that name in the current one is taken for it.

  Args:
    name: such as `prostate`.

  Raises:
    CheckpointError: if there is none of that name.
  """
  known = names()
  if name not in known:
    close = difflib.get_close_matches(name, known, 1)
    hint = f'did you mean {close[0]}? ' if close else ''
    there = f'there are {", ".join(known)}' if known else 'it has none yet'
    raise errors.CheckpointError(
      f'no network {errors.shown(name)} comes with dvhflax '
      f'{dvhflax.__version__}: {hint}{there}; a run or a bundle of your own is '
      'named by its path, --workdir'
    )
  return str(_folder() / name)


def names() -> list[str]:
  """The names that there are."""
  return sorted(p.name for p in _folder().glob('*') if is_bundle(p))


def _folder() -> pathlib.Path:
  return pathlib.Path(dvhflax.__file__).parent / 'pretrained'
