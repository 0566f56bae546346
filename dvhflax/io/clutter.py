"""What systems and archivers leave beside patients' files.

AppleDouble files, `._NAME` beside every NAME, hold what macOS keeps beside a
file's content (Apple, "AppleSingle/AppleDouble Formats", RFC 1740); archives
made there put them into a folder `__MACOSX`. They have the names of patients'
files, and nothing of these in them.
"""

import pathlib

# In small letters.
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
  """Whether a path, or a folder that it lies in, is none of the user's.

  Other hidden names are not: a patient must not be passed over in silence.

  Args:
    path: below `root`.
    root: what the user named; its own name does not matter.

  Returns:
    True for what Windows, macOS and network drives make.
  """
  names = [part.lower() for part in path.relative_to(root).parts]
  return any(name in _NAMES or name.startswith(_BEGINNINGS) for name in names)
