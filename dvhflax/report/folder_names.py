"""Folders that are named after patients, one a patient whatever their ids.

An id of letters, digits and `_.-` is its folder's name. Any other gets `_` for
what a name must not have, and after a tilde, which is in none of the plain
names, a part of its SHA-256: that tells `12/345` from `12 345`, and follows
from the id alone, so that it is the same in every run.
"""

from collections import Counter
from collections.abc import Sequence
import hashlib
import json
import os
import re
import unicodedata

# File systems hold 255 bytes; what is written beside a name needs a few.
MOST_BYTES = 200
_FORBIDDEN = re.compile(r'[^\w.-]')
# Names of devices in Windows, whatever the suffix.
_RESERVED = re.compile(
  r'(con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])'
  r'(\..*)?',
  re.IGNORECASE,
)
_DIGITS = 10


def folder_name(
  patient: str, others: Sequence[str] = (), output: str | None = None
) -> str:
  """The name of a patient's folder.

  Args:
    patient: id, any text.
    others: ids whose folders lie beside it. File systems that do not tell
      capitals from small letters would take `AB` and `ab` for one.
    output: where the folder is to be; one of that name that is there already,
      and holds the prediction of another patient, is left alone.

  Returns:
    A name of at most `MOST_BYTES` bytes that every usual file system takes;
    never `.`, `..` or hidden.
  """
  alike = Counter(_folded(other) for other in {patient, *others})
  if (
    _is_plain(patient)
    and alike[_folded(patient)] == 1
    and _owner(output, patient) in (None, patient)
  ):
    return patient
  digest = hashlib.sha256(patient.encode('utf-8', 'surrogatepass')).hexdigest()
  readable = _FORBIDDEN.sub('_', unicodedata.normalize('NFC', patient))
  if not readable or readable[0] in '.-' or _RESERVED.fullmatch(readable):
    readable = f'_{readable.lstrip(".")}'
  room = MOST_BYTES - _DIGITS - 1
  readable = readable.encode()[:room].decode(errors='ignore')
  return f'{readable}~{digest[:_DIGITS]}'


def _is_plain(patient: str) -> bool:
  return not (
    _FORBIDDEN.search(patient)
    or not patient
    or patient[0] in '.-'
    or patient[-1] == '.'
    or len(patient.encode()) > MOST_BYTES
    or _RESERVED.fullmatch(patient)
    or unicodedata.normalize('NFC', patient) != patient
  )


def _folded(patient: str) -> str:
  return unicodedata.normalize('NFC', patient).casefold()


def _owner(output: str | None, name: str) -> str | None:
  """Whose prediction a folder holds; None if that is not known."""
  try:
    with open(
      os.path.join(output or '', name, 'metrics.json'), encoding='utf-8'
    ) as file:
      found = json.load(file)['patient']
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    return None
  return found if isinstance(found, str) else None
