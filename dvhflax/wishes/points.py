"""Points of a desired DVH in clinicians' notation.

`rectum V70 <= 10%`, `bladder mean <= 30 Gy`, `PTV D95 >= 95%`; `bending` has
the curves through them.
"""

from collections.abc import Sequence
import dataclasses
import re
from typing import Literal

import numpy as np

from dvhflax import errors
from dvhflax.dose_volume import Voxels
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Structure

Kind = Literal['V', 'D', 'mean', 'max']

# Far below what a point is written to.
_TOLERANCE = 1e-6
# In fractions of the prescription: more is a dose in another unit.
MOST_DOSE = 3.0
# Of a goal, which may be for any prescription: what is more is in cGy.
_MOST_GOAL_GY = 200.0
# A longer text is not a point, and no wish has more of them.
_MOST_CHARACTERS = 200
MOST_POINTS = 100

_NOTATION = re.compile(
  r'(?P<structure>.+?)\s+'
  r'(?:(?P<kind>[VD])\s*(?P<at>\d+(?:\.\d+)?)\s*(?P<at_unit>Gy|%|cc)?'
  r'|(?P<whole>mean|max))\s*'
  r'(?P<relation><=|>=|[<>=≤≥])\s*'
  r'(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>Gy|%|cc)?',
  re.IGNORECASE,
)
_KINDS: dict[str, Kind] = {'v': 'V', 'd': 'D', 'mean': 'mean', 'max': 'max'}
_RELATIONS = {'<': '<=', '≤': '<=', '>': '>=', '≥': '>='}


@dataclasses.dataclass(frozen=True)
class Point:
  """A demand on one structure's DVH.

  Attributes:
    text: as it was written.
    structure: index of the structure.
    kind: `V`, the volume that receives the dose `at`; `D`, the dose that the
      hottest volume `at` receives; `mean`; `max`.
    at: dose as a DVH vector has it, in fractions of its reference, or volume
      in [0, 1]; 0 for `mean` and `max`.
    relation: `<=`, `>=` or `=`.
    value: volume in [0, 1] for `V`, else dose as a DVH vector has it.
    volume_cc: of the structure, where the point gives a `V` in cc.
  """

  text: str
  structure: int
  kind: Kind
  at: float
  relation: str
  value: float
  volume_cc: float | None = None

  def keeps(self, achieved: float, tolerance: float = _TOLERANCE) -> bool:
    """Whether a value, in the unit of `value`, is what was demanded."""
    over = achieved - self.value
    if self.relation == '<=':
      return over <= tolerance
    if self.relation == '>=':
      return over >= -tolerance
    return abs(over) <= tolerance

  def measure(self, dose: np.ndarray) -> float:
    """What `[V]` doses of the structure's voxels have, in `value`'s unit."""
    return self.read(Voxels(dose))

  def read(self, doses: Voxels) -> float:
    """What the structure's doses have, in `value`'s unit."""
    if self.kind == 'V':
      return float(doses.volume_fraction_at_dose(self.at))
    if self.kind == 'D':
      return float(doses.dose_at_volume_fraction(self.at))
    return doses.mean_dose if self.kind == 'mean' else doses.max_dose


def split(text: str) -> list[str]:
  """Points that semicolons or line ends part.

  Raises:
    WishError: if there are more than a hundred.
  """
  points = [one.strip() for one in re.split(r'[;\n]', text) if one.strip()]
  if len(points) > MOST_POINTS:
    raise errors.WishError(f'{len(points)} points: give {MOST_POINTS} at most')
  return points


def parse(
  text: str,
  structures: Sequence[Structure],
  reference: DoseReference,
  volumes_cc: Sequence[float] | np.ndarray,
  *,
  goal: bool = False,
) -> Point:
  """Reads one point.

  A dose is given in Gy or in % of the prescription, a volume in % or in cc. The
  dose of `V70` is in Gy, that of `V95%` in % of the prescription; the volume of
  `D95` is in %, that of `D2cc` in cc. `<` and `>` are read as `<=` and `>=`.

  Args:
    text: such as `rectum V70 <= 10%`; capitals do not matter.
    structures: those that may be named.
    reference: what 1.0 of the DVH vectors stands for.
    volumes_cc: `[S]` of the patient's structures, 0 for one that is absent.
    goal: read it as one that is only judged by: doses in Gy may be up to 200,
      and the volume of V in cc may be more than there is.

  Raises:
    WishError: a point in another notation, an unknown structure, more than all
      of its volume, more than three times the prescription.
  """
  text = ' '.join(text.split())
  found = _matched(text)
  kind = _KINDS[(found['kind'] or found['whole']).lower()]
  at_unit, unit = (_unit(found[name]) for name in ('at_unit', 'unit'))
  structure = index_of(found['structure'], structures, text)
  whole_cc = float(volumes_cc[structure])
  at, volume_cc = 0.0, None
  if kind == 'V':
    if at_unit == 'cc':
      raise errors.WishError(f'{errors.shown(text)}: V is at a dose, as in V70')
    at = _dose(found['at'], at_unit, reference, text, goal)
    if unit not in ('%', 'cc'):
      raise errors.WishError(
        f'{errors.shown(text)}: give the volume of V in % or in cc'
      )
    beyond = goal and unit == 'cc'
    value = _volume(found['value'], unit, whole_cc, text, beyond)
    volume_cc = whole_cc if unit == 'cc' else None
  else:
    if kind == 'D':
      if at_unit == 'Gy':
        raise errors.WishError(
          f'{errors.shown(text)}: D is at a volume, as in D95'
        )
      at = _volume(found['at'], at_unit, whole_cc, text)
    if unit not in ('Gy', '%'):
      raise errors.WishError(
        f'{errors.shown(text)}: give the dose in Gy or in % of the prescription'
      )
    value = _dose(found['value'], unit, reference, text, goal)
  relation = _RELATIONS.get(found['relation'], found['relation'])
  return Point(text, structure, kind, at, relation, value, volume_cc)


def structure_of(text: str) -> str:
  """The name of the structure that a point is of, as it is written.

  Raises:
    WishError: for a text in another notation.
  """
  return _matched(' '.join(text.split()))['structure']


def _matched(text: str) -> re.Match[str]:
  found = None
  if len(text) <= _MOST_CHARACTERS:
    found = _NOTATION.fullmatch(text)
  if not found:
    raise errors.WishError(
      f"{errors.shown(text)} is not a point: write 'rectum V70 <= 10%', "
      "'bladder mean <= 30 Gy' or 'PTV D95 >= 95%'"
    )
  return found


def _unit(text: str | None) -> str:
  return {'gy': 'Gy'}.get((text or '').lower(), (text or '').lower())


def _dose(
  number: str, unit: str, reference: DoseReference, text: str, goal: bool
) -> float:
  """A dose in Gy or in % of the prescription as a DVH vector has it."""
  if unit == '%':
    dose = reference.percent_to_fraction(float(number))
  else:
    dose = reference.to_fraction(float(number))
    if goal:
      if not float(number) <= _MOST_GOAL_GY:
        raise errors.WishError(
          f'{errors.shown(text)}: {errors.plain(number, 20)} Gy are more than '
          f'any course has, {_MOST_GOAL_GY:g} Gy: are they cGy?'
        )
      return dose
  if not reference.to_percent(dose) <= 100 * MOST_DOSE:
    # A goal may be read before the prescription is known.
    known = '' if goal else f', {reference.prescription_gy:g} Gy'
    raise errors.WishError(
      f'{errors.shown(text)}: a dose of {errors.plain(number, 20)} '
      f'{unit or "Gy"} is more than {100 * MOST_DOSE:g}% of the prescription'
      f'{known}; write doses in Gy or in %'
    )
  return dose


def _volume(
  number: str, unit: str, whole_cc: float, text: str, beyond: bool = False
) -> float:
  """A volume in % or in cc as a fraction of the structure."""
  whole = 100.0
  if unit == 'cc':
    if not whole_cc:
      raise errors.WishError(
        f'{errors.shown(text)}: the patient has no such structure'
      )
    whole = whole_cc
  if float(number) > whole and not beyond:
    of_whole = f', {whole:.1f} cc' if unit == 'cc' else ''
    raise errors.WishError(
      f'{errors.shown(text)}: {errors.plain(number, 20)}{unit or "%"} is more '
      f'than all the volume{of_whole}'
    )
  return float(number) / whole


def index_of(name: str, structures: Sequence[Structure], text: str) -> int:
  """Which structure a point names.

  Args:
    name: as the point has it; capitals do not matter.
    structures: those that may be named.
    text: the point, for the error.

  Raises:
    WishError: for an unknown one.
  """
  names = [s.name for s in structures]
  wanted = ' '.join(name.split()).lower()
  same = [
    i for i, n in enumerate(names) if ' '.join(n.split()).lower() == wanted
  ]
  if not same:
    raise errors.WishError(
      f'{errors.shown(text)}: there is no structure {errors.shown(name)}; '
      f'there are {", ".join(names)}'
    )
  return same[0]
