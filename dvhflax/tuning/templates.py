"""Templates of goals: those that come with the package, and the user's own.

The user's lie in a folder, a JSON file each.
"""

from collections.abc import Sequence
import json
import os
import pathlib
import re

from dvhflax import errors, files
from dvhflax.sites import SITES, Template
from dvhflax.tuning import goals as goals_lib

# A hundred goals of two hundred characters fit in.
_MOST_BYTES = 2**17
_NAME = re.compile(r'[A-Za-z0-9](-?[A-Za-z0-9]){0,59}')
_SCHEMA = 1


def built_in() -> list[Template]:
  """Those of all sites."""
  return [template for site in SITES for template in site.templates]


class Templates:
  """Built-in templates, and those of a folder.

  Attributes:
    folder: where the user's are; made with the first of them.
  """

  def __init__(self, folder: str | os.PathLike[str]):
    """Nothing is read yet."""
    self.folder = pathlib.Path(folder)

  def all(self) -> list[Template]:
    """Built-in ones, then the user's by name; damaged files are left out."""
    found = built_in()
    for name in self._stored():
      try:
        found.append(self._read(name))
      except errors.WishError:
        continue
    return found

  def get(self, name: str) -> Template:
    """The template of a name.

    Raises:
      WishError: if there is none, or its file is damaged.
    """
    _check(name)
    for template in built_in():
      if template.name == name:
        return template
    if name not in self._stored():
      names = ', '.join(template.name for template in self.all())
      raise errors.WishError(f'there is no template {name}; there are {names}')
    return self._read(name)

  def put(self, name: str, goals: Sequence[str], site: str = '') -> Template:
    """Saves a template, in place of one of the same name.

    Args:
      name: letters, digits and single hyphens between them, at most 60; not
        that of a built-in one, nor one that differs in capitals only.
      goals: of any structures.
      site: for people.

    Raises:
      WishError: for another name, or goals that cannot be read.
    """
    _check(name)
    _refuse_built_in(name)
    for other in self._stored():
      if other != name and other.lower() == name.lower():
        raise errors.WishError(
          f'template {name} differs from {other} in capitals only: name it '
          'otherwise'
        )
    _check_site(site)
    checked = goals_lib.check(goals)
    goals_lib.refuse_untold(checked)
    if not checked:
      raise errors.WishError(f'template {name} has no goal: give one')
    files.write_json(
      self._path(name),
      {'schema_version': _SCHEMA, 'site': site, 'goals': list(checked)},
    )
    return Template(name, checked, site)

  def delete(self, name: str) -> None:
    """Removes one of the user's templates.

    Raises:
      WishError: if there is none, or it is built-in.
    """
    _check(name)
    _refuse_built_in(name)
    if name not in self._stored():
      raise errors.WishError(f'there is no template {name} to delete')
    self._path(name).unlink(missing_ok=True)

  def _stored(self) -> list[str]:
    if not self.folder.is_dir():
      return []
    names = [p.stem for p in self.folder.iterdir() if p.suffix == '.json']
    known = {template.name for template in built_in()}
    return sorted(n for n in names if _NAME.fullmatch(n) and n not in known)

  def _path(self, name: str) -> pathlib.Path:
    return self.folder / f'{name}.json'

  def _read(self, name: str) -> Template:
    path = self._path(name)
    try:
      if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise ValueError('it is no file of goals')
      values = json.loads(path.read_text(encoding='utf-8'))
      if values['schema_version'] != _SCHEMA:
        raise ValueError(f'schema_version {values["schema_version"]!r}')
      goals, site = values['goals'], values.get('site', '')
      if not isinstance(goals, list):
        raise ValueError('its goals are no list')
      _check_site(site)
      return Template(name, goals_lib.check(goals), site)
    except (
      OSError, ValueError, KeyError, TypeError, RecursionError,
      errors.WishError,
    ) as error:  # fmt: skip
      raise errors.WishError(
        f'template {name} cannot be read: {errors.plain(str(error), 200)}; '
        'save it again'
      ) from None


def _check(name: str) -> None:
  if not isinstance(name, str) or not _NAME.fullmatch(name):
    raise errors.WishError(
      f'{errors.shown(name)} is no name of a template: use letters, digits and '
      'hyphens between them, 60 at most'
    )


def _check_site(site: object) -> None:
  if not isinstance(site, str) or len(site) > 60 or not site.isprintable():
    raise errors.WishError('the site of a template is a line of text')


def _refuse_built_in(name: str) -> None:
  if name.lower() in {template.name.lower() for template in built_in()}:
    raise errors.WishError(
      f'template {name} comes with the package: save yours by another name'
    )
