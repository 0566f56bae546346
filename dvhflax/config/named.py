"""Configurations by name, such as `prostate:small`, from any folder.

A word is the name of a configuration that comes with the package, whatever
files lie in the current folder; what holds a `/` or ends in `.py` is a path.
"""

import difflib
import os
import pathlib
import runpy

import ml_collections

import dvhflax
from dvhflax import errors


def _folder() -> pathlib.Path:
  """The folder of the configurations: `configs/`, where this is a checkout."""
  package = pathlib.Path(dvhflax.__file__).parent
  installed = package / 'configs'
  return installed if installed.is_dir() else package.parent / 'configs'


def names() -> list[str]:
  """The names of the configurations that come with the package."""
  return sorted(p.stem for p in _folder().glob('[!_]*.py'))


def locate(name: str) -> str:
  """The path of a configuration and its variant, `PATH` or `PATH:VARIANT`.

  Args:
    name: `NAME` or `NAME:VARIANT` of one that comes with the package, or a
      path, which is returned as it is.

  Raises:
    ConfigError: for a name that is unknown.
  """
  stem, colon, variant = name.partition(':')
  if not stem or os.sep in stem or stem.endswith('.py'):
    return name
  known = names()
  if stem not in known:
    close = difflib.get_close_matches(stem, known, 1)
    hint = f'did you mean {close[0]}? ' if close else ''
    raise errors.ConfigError(
      f'--config={name}: there is no configuration {errors.shown(stem)}: {hint}'
      f'use one of {", ".join(known)}, or the path of a file, ./{stem}.py'
    )
  return f'{_folder() / stem}.py{colon}{variant}'


def load(name: str | os.PathLike[str]) -> ml_collections.ConfigDict:
  """A configuration, to be changed at will.

  Args:
    name: `NAME` or `NAME:VARIANT` of one that comes with the package, such as
      `prostate:small`; or the path of a file, which holds a `/` or ends in
      `.py`, and may have a variant too.

  Raises:
    ConfigError: for a name or a variant that is unknown.
    OSError: for a path that cannot be read.
  """
  path, _, variant = locate(os.fspath(name)).partition(':')
  get_config = runpy.run_path(path)['get_config']
  return get_config(variant) if variant else get_config()
