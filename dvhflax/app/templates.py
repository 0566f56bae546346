"""Goals under a name, to be used for the next patient too."""

import pathlib
from typing import Any

import msgspec

from dvhflax import errors, files
from dvhflax.app import faults, messages

_MOST = 200


class Templates:
  """Those of the site, and those that the user saved."""

  def __init__(
    self, path: pathlib.Path, built_in: dict[str, messages.Template]
  ):
    """Reads what was saved.

    Args:
      path: of the file that keeps them.
      built_in: by key; they cannot be changed.

    Raises:
      UserError: for a file that is damaged.
    """
    self._path, self._built_in = path, built_in
    self._saved: dict[str, messages.Template] = {}
    if path.exists():
      try:
        kind = dict[messages.Name, messages.Template]
        self._saved = msgspec.json.decode(path.read_bytes(), type=kind)
      except msgspec.MsgspecError as error:
        raise errors.UserError(
          f'{path} is damaged, {error}: mend it or move it away'
        ) from None

  def listed(self, site: str | None) -> list[dict[str, Any]]:
    """What `GET /api/v1/templates` answers."""
    return [
      {
        'key': key,
        'name': one.name,
        'site': site if built_in else None,
        'goals': one.goals,
        'built_in': built_in,
      }
      for group, built_in in ((self._built_in, True), (self._saved, False))
      for key, one in group.items()
    ]

  def put(self, key: str, template: messages.Template) -> None:
    """Saves one, or changes it.

    Raises:
      Conflict: for one that comes along, or too many.
    """
    if key in self._built_in:
      raise faults.Conflict(f'{key} comes along: save it under another name')
    if key not in self._saved and len(self._saved) >= _MOST:
      raise faults.Conflict(f'there are {_MOST} templates: delete one first')
    self._saved[key] = template
    self._write()

  def delete(self, key: str) -> None:
    """Removes one.

    Raises:
      Conflict: for one that comes along.
      NotThere: if there is none.
    """
    if key in self._built_in:
      raise faults.Conflict(f'{key} comes along: it cannot be deleted')
    if self._saved.pop(key, None) is None:
      raise faults.NotThere(f'there is no template {key}')
    self._write()

  def _write(self) -> None:
    files.write_text(self._path, msgspec.json.encode(self._saved).decode())
