"""Files that operating systems and archivers leave beside patients' files.

macOS keeps a file's metadata in an AppleDouble file, `._NAME` beside NAME
(Apple, "AppleSingle/AppleDouble Formats", RFC 1740); its archives put them into
a folder `__MACOSX`. They are named like patients' files but hold no patient
data.
"""

import pathlib

# In lower case.
_BEGINNINGS = ('._', '.trash')
_NAMES = frozenset(
  (
    '__macosx',
    '.appledouble',
    '.ds_store',
    '.fseventsd',
    '.spotlight-v100',
    '.temporaryitems',
    'thumbs.db',
    'ehthumbs.db',
    'desktop.ini',
    '@eadir',
    '#recycle',
    '$recycle.bin',
    'system volume information',
    'lost+found',
  )
)


def is_clutter(path: pathlib.Path, root: pathlib.Path) -> bool:
  """Whether a path, or a folder above it, was made by the system.

  Other hidden names do not count: no patient may be skipped silently.

  Args:
    path: below `root`.
    root: what the user named; its own name does not matter.

  Returns:
    True for files made by Windows, macOS or network drives.
  """
  names = [part.lower() for part in path.relative_to(root).parts]
  return any(name in _NAMES or name.startswith(_BEGINNINGS) for name in names)
