"""Files of DVH curves, as people write them and programs export them.

A file of curves is CSV with a row a point of a curve, or JSON: a list of
objects with a list for each column. The columns, or keys, are `structure`, one
of the doses and one of the volumes:

  dose            fractions of what 1.0 of the cohort stands for
  dose_gy         Gy
  dose_percent    % of the prescription
  volume          fractions of the structure
  volume_percent  % of the structure
"""

from collections.abc import Mapping
import csv
import dataclasses
import io
import json
import math
import os
import stat
from typing import Any, Literal

import numpy as np

from dvhflax import errors
from dvhflax.dose_volume import Curve
from dvhflax.normalisation import DoseReference
from dvhflax.tuning import wish
from dvhflax.wishes.points import MOST_DOSE

DOSES = {
  'dose': 'fractions of what 1.0 of the cohort stands for',
  'dose_gy': 'Gy',
  'dose_percent': '% of the prescription',
}
VOLUMES = {
  'volume': 'fractions of the structure',
  'volume_percent': '% of the structure',
}
# Of a file of curves; far more than a hundred curves in steps of 0.01 Gy.
_MOST_BYTES = 20 * 2**20

Unit = Literal['fraction', 'gy']


@dataclasses.dataclass(frozen=True)
class WishedCurve(Curve):
  """A curve of a wish: `volume` in fractions, `dose` in `unit`.

  Attributes:
    unit: `fraction`, of what 1.0 of the cohort stands for, or `gy`.
  """

  unit: Unit = 'fraction'


def read_curves(path: str, prescription_gy: float) -> dict[str, WishedCurve]:
  """Curves by structure, of a `.csv` or `.json` file.

  Args:
    path: of the file, see above.
    prescription_gy: of the patient, which doses in % are of.

  Raises:
    WishError: a file that `read` does not read, a curve that is no DVH, doses
      or volumes that can only be of another unit.
  """
  curves: dict[str, WishedCurve] = {}
  for entry in read(path):
    name, curve = _curve(entry, errors.plain(path, 200), prescription_gy)
    if name in curves:
      raise errors.WishError(
        f'{errors.plain(path, 200)} has two curves of {errors.plain(name)}'
      )
    curves[name] = curve
  return curves


def _curve(
  entry: dict[str, Any], path: str, prescription_gy: float
) -> tuple[str, WishedCurve]:
  name = entry['structure']
  dose_key, volume_key = (
    next(key for key in keys if key in entry) for keys in (DOSES, VOLUMES)
  )
  prescribed = DoseReference.of_prescription(prescription_gy)
  unit: Unit = 'fraction' if dose_key == 'dose' else 'gy'
  dose = entry[dose_key]
  if dose_key == 'dose_percent':
    dose = prescribed.to_gy(prescribed.percent_to_fraction(dose))
  most = MOST_DOSE if unit == 'fraction' else prescribed.to_gy(MOST_DOSE)
  volume = entry[volume_key] / (100 if volume_key == 'volume_percent' else 1)
  where = f'{path}: {errors.plain(name)}'
  if dose.max(initial=0) > most:
    raise errors.WishError(
      f'{where} has a {_unit_fault(entry, dose_key, DOSES)}'
    )
  if volume_key == 'volume' and volume.max(initial=0) > 1 + wish.ROUNDING:
    raise errors.WishError(
      f'{where} leaves [0, 1]: it has a '
      f'{_unit_fault(entry, volume_key, VOLUMES)}'
    )
  order = np.argsort(dose, kind='stable')
  curve = WishedCurve(dose[order], volume[order], unit=unit)
  fault = wish.fault_of(curve, most)
  if fault:
    raise errors.WishError(f'{path}: the curve of {errors.plain(name)} {fault}')
  return name, curve


def _unit_fault(
  entry: dict[str, Any], key: str, columns: Mapping[str, str]
) -> str:
  """Of a largest value that is too large for its unit."""
  others = ' or '.join(
    f'{name!r} ({unit})' for name, unit in columns.items() if name != key
  )
  return (
    f'{key.partition("_")[0]} of {entry[key].max():g} under {key!r}, which is '
    f'in {columns[key]}: is it of another unit? Then name it {others}'
  )


def read(path: str) -> list[dict[str, Any]]:
  """What a `.csv` or `.json` file lists.

  Args:
    path: of the file.

  Returns:
    A dict a curve: its `structure`, and a finite float array for one of
    `DOSES` and one of `VOLUMES`, of the same length.

  Raises:
    WishError: a file that is missing, irregular, too large or unreadable,
      columns that are missing or there twice, values that are not finite
      numbers.
  """
  shown = errors.plain(path, 200)
  ending = os.path.splitext(path)[1].lower()
  if ending not in ('.csv', '.json'):
    raise errors.WishError(f'{shown}: curves are read from .csv or .json')
  text = _text(path, shown)
  listed = _of_csv(text, shown) if ending == '.csv' else _of_json(text, shown)
  if not isinstance(listed, list) or not listed:
    raise errors.WishError(f'{shown} has no list of curves')
  return [_entry(one, shown) for one in listed]


def _text(path: str, shown: str) -> str:
  try:
    # A device or a pipe may never end.
    if not stat.S_ISREG(os.stat(path).st_mode):
      raise errors.WishError(f'{shown} is not a regular file')
    with open(path, 'rb') as file:
      content = file.read(_MOST_BYTES + 1)
  except (OSError, ValueError) as error:
    reason = error.strerror if isinstance(error, OSError) else error
    raise errors.WishError(f'{shown} cannot be read: {reason}') from None
  if len(content) > _MOST_BYTES:
    raise errors.WishError(
      f'{shown} has more than {_MOST_BYTES // 2**20} MiB: too large for a '
      'file of curves'
    )
  try:
    return content.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise errors.WishError(
      f'{shown} is not UTF-8 text (byte {error.start}): save it as UTF-8'
    ) from None


def _of_json(text: str, shown: str) -> object:
  def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
      if key in found:
        raise errors.WishError(f'{shown} has {errors.shown(key)} twice')
      found[key] = value
    return found

  try:
    # Python's whole numbers have no limit, and a time that grows with them.
    return json.loads(text, parse_int=float, object_pairs_hook=unique)
  except ValueError as error:
    reason = errors.plain(str(error), 200)
    raise errors.WishError(f'{shown} cannot be read: {reason}') from None
  except RecursionError:
    raise errors.WishError(
      f'{shown} cannot be read: it is nested too deeply for a list of curves'
    ) from None


def _of_csv(text: str, shown: str) -> list[dict[str, Any]]:
  reader = csv.reader(io.StringIO(text, newline=''), skipinitialspace=True)
  curves: dict[str, dict[str, Any]] = {}
  try:
    columns = [name.strip().lower() for name in next(reader, [])]
    for name in ('structure', *DOSES, *VOLUMES):
      if columns.count(name) > 1:
        raise errors.WishError(f'{shown} has two columns {name!r}')
    if 'structure' not in columns:
      raise errors.WishError(
        f"{shown} has no column 'structure'; separated by commas, its columns "
        f'are {errors.shown(columns)}'
      )
    dose, volume = _columns(columns, f'{shown} has', 'column')
    places = [columns.index(name) for name in ('structure', dose, volume)]
    for row in reader:
      if not any(map(str.strip, row)):
        continue
      if len(row) <= max(places):
        raise errors.WishError(
          f'{shown}, line {reader.line_num}: {len(row)} of {len(columns)} '
          'columns'
        )
      name, *numbers = (row[place].strip() for place in places)
      curve = curves.setdefault(name, {'structure': name, dose: [], volume: []})
      for key, number in zip((dose, volume), numbers):
        curve[key].append(number)
  except csv.Error as error:
    raise errors.WishError(
      f'{shown}, line {reader.line_num}, cannot be read: '
      f'{errors.plain(str(error), 200)}'
    ) from None
  return list(curves.values())


def _columns(
  names: Mapping[str, Any] | list[str], whose: str, what: str
) -> tuple[str, str]:
  """Which dose and which volume there are."""
  found = []
  for kind, columns in (('dose', DOSES), ('volume', VOLUMES)):
    there = [name for name in columns if name in names]
    if len(there) != 1:
      among = ', '.join(f'{name!r} ({unit})' for name, unit in columns.items())
      number = 'no' if not there else 'more than one'
      raise errors.WishError(
        f'{whose} {number} {what} of {kind}s; name it as one of {among}'
      )
    found += there
  return found[0], found[1]


def _entry(entry: object, shown: str) -> dict[str, Any]:
  if not isinstance(entry, Mapping):
    raise errors.WishError(f'{shown}: a curve is not an object with keys')
  name = entry.get('structure')
  if not isinstance(name, str) or not name:
    raise errors.WishError(f"{shown}: a curve has no 'structure'")
  where = f'{shown}: {errors.plain(name)}'
  dose, volume = _columns(entry, f'{where} has', 'key')
  curve = {key: _numbers(entry[key], key, where) for key in (dose, volume)}
  if len(curve[dose]) != len(curve[volume]):
    raise errors.WishError(
      f'{where} has {len(curve[dose])} doses but {len(curve[volume])} volumes'
    )
  return {'structure': name, **curve}


def _numbers(values: object, key: str, where: str) -> np.ndarray:
  if not isinstance(values, list):
    raise errors.WishError(f'{where}: {key!r} is not a list of numbers')
  numbers = []
  for value in values:
    try:
      number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
      number = math.nan
    if not math.isfinite(number):
      raise errors.WishError(
        f'{where}: {key!r} is not a list of numbers: {errors.shown(value, 40)}'
      )
    numbers.append(number)
  return np.array(numbers, np.float64)
