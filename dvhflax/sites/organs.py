"""Organs by the names that they have in patients' files.

A name is matched against regular expressions: the names of TG-263 (Mayo et al.
2018, IJROBP 100:1057) come first, then usual aliases. `io/names.py` says how.
"""

import dataclasses

_LEFT = '(l|lt|left|li|lks|links|gauche|sx|sin|sinistra|izq|izda|izquierd[oa])'
_RIGHT = '(r|rt|right|re|rechts|droite?|dx|dex|destra|dcha|der|derech[oa])'


@dataclasses.dataclass(frozen=True)
class Organ:
  """A structure and the names it is imported under.

  Attributes:
    name: of the structure in a cohort.
    patterns: of names in patients' files, best first.
    tg263: its name in TG-263 where that differs from `name`, in small letters:
      a cohort may use either.
  """

  name: str
  patterns: tuple[str, ...]
  tg263: str = ''


def paired(
  left: str, right: str, *patterns: str, french: str = '', tg263: str = ''
) -> tuple[Organ, Organ]:
  """An organ that there is on either side.

  Args:
    left, right: names of the structures.
    *patterns: of the organ without its side, best first.
    french: pattern of names that `G` or `D` may follow.
    tg263: its name in TG-263 without `_l` or `_r`.
  """

  def one(name: str, side: str, letter: str, french_letter: str) -> Organ:
    rows = [
      row
      for organ in patterns
      for row in (f'({organ})_?{side}', f'{side}_?({organ})')
    ]
    if french:
      rows.append(f'({french})_?{french_letter}')
    return Organ(name, tuple(rows), tg263 and f'{tg263}_{letter}')

  return one(left, _LEFT, 'l', 'g'), one(right, _RIGHT, 'r', 'd')


BODY = Organ(
  'body',
  (
    'body|external',
    '(body|external|patient)_?(contour|outline)|outline|patient',
    'ext|au(ss|ß)enkontur|k(oe|ö)rper(kontur)?|contour_?externe|'
    'contorno_?(externo|esterno)',
  ),
)

# Targets by their prescription in Gy.
PTVS = tuple(
  Organ(f'PTV{gy}', (f'ptv_?{gy}', f'ptv_?({gy}_?gy|{gy}00(_?cgy)?)'))
  for gy in (50, 54, 56, 60, 63, 66, 70, 78)
)
