"""What systems and archivers leave beside patients' files.

AppleDouble files, `._NAME` beside every NAME, hold what macOS keeps beside a
file's content (Apple, "AppleSingle/AppleDouble Formats", RFC 1740); archives
made there put them into a folder `__MACOSX`. They have the names of patients'
files, and nothing of these in them.
"""

import pathlib

# In small letters.
_NAMES = frozenset(
  (
    '__macosx',
    'thumbs.db',
    'ehthumbs.db',
    'desktop.ini',
    '@eadir',
    '$recycle.bin',
    'system volume information',
    'lost+found',
  )
)


def is_clutter(path: pathlib.Path, root: pathlib.Path) -> bool:
  """Whether a path, or a folder that it lies in, is none of the user's.

  Args:
    path: below `root`.
    root: what the user named; its own name does not matter.

  Returns:
    True for hidden names, those that begin with a point, and for what Windows,
    macOS and network drives make.
  """
  return any(
    part.startswith('.') or part.lower() in _NAMES
    for part in path.relative_to(root).parts
  )
