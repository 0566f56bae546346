"""Fonts of this machine for letters that matplotlib's own lack.

matplotlib brings DejaVu, which has no Chinese, Japanese or Korean letters. A
font that has them is often installed.
"""

from collections.abc import Iterable
import functools
import unicodedata

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

# It has a box for every letter.
_LAST_RESORT = 'Last Resort'


def families(text: str, first: str) -> tuple[list[str], str]:
  """Fonts that draw a text, as a `family` of matplotlib.

  Args:
    text: of any length.
    first: the font that is to draw what it can.

  Returns:
    The names of `first` and of others, as few as are needed; and the letters
    that none has.
  """
  own = font_manager.findfont(first)
  lacking = _lacking(own, {c for c in text if _is_drawn(c)})
  found = [first]
  for entry in _upright() if lacking else ():
    rest = _lacking(entry.fname, lacking)
    if rest != lacking:
      found.append(entry.name)
      lacking = rest
    if not lacking:
      break
  return found, ''.join(sorted(lacking))


def _is_drawn(character: str) -> bool:
  return not character.isspace() and unicodedata.category(character)[0] != 'C'


def _upright() -> list[font_manager.FontEntry]:
  """The plain face of each font, sans serif first."""
  faces = [
    entry
    for entry in font_manager.fontManager.ttflist
    if entry.style == 'normal' and not entry.name.startswith(_LAST_RESORT)
  ]
  return sorted(
    faces,
    key=lambda one: (
      'sans' not in one.name.lower(),
      one.weight not in (400, 'normal', 'regular', 'book'),
      one.name,
    ),
  )


def _lacking(path: str, letters: Iterable[str]) -> frozenset[str]:
  font = _font(path)
  if font is None:
    return frozenset(letters)
  return frozenset(c for c in letters if not font.get_char_index(ord(c)))


@functools.lru_cache(maxsize=64)
def _font(path: str) -> FT2Font | None:
  """A font whose letters have outlines; None for others."""
  try:
    font = font_manager.get_font(path)
    return font if font.scalable else None
  except (OSError, RuntimeError, ValueError):
    return None
