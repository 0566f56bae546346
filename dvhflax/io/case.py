"""A patient as its files have it, of whatever format."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from dvhflax.io.resample import Dose, Occupancy, Scan


@dataclasses.dataclass(frozen=True)
class Plan:
  """A plan of a patient, its dose yet to be read.

  Attributes:
    label: tells the plan to the user.
    parts: each reads a dose; the plan's is their sum.
    prescription_gy: of the plan, None if it is unknown.
    uids: of the parts, where they have any.
    rtplans: SOP classes by UID of the RTPLANs that it is the dose of.
  """

  label: str
  parts: Sequence[Callable[[], Dose]]
  prescription_gy: float | None = None
  uids: Sequence[str] = ()
  rtplans: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Case:
  """A patient on the grids of its files.

  Attributes:
    id: unique within a cohort.
    occupancies: the structures that the patient has, by name.
    plans: empty for a patient to predict for.
    notes: on the files, for the user.
    provenance: JSON-serialisable.
    prescription_gy: for plans without one, or a patient without plans, from an
      RTPLAN of the structure set; None if unknown.
    ct: reads the CT, and notes on it, a line each; None without.
    names: all in its files, of structures.
  """

  id: str
  occupancies: Mapping[str, Occupancy]
  plans: Sequence[Plan]
  notes: Sequence[str]
  provenance: Mapping[str, Any]
  prescription_gy: float | None = None
  ct: Callable[[], tuple[Scan, list[str]]] | None = None
  names: Sequence[str] = ()


def numbered(found: Sequence[Any]) -> list[Any]:
  """Patients with unique ids: `ID`, `ID-2`, ... where one comes repeatedly.

  Args:
    found: dataclasses with a field `id`.
  """
  # Whose id is `ID-2` from the start keeps it.
  taken = {one.id for one in found}
  unique: dict[str, Any] = {}
  for one in found:
    name, count = one.id, 1
    while name in unique or (count > 1 and name in taken):
      count += 1
      name = f'{one.id}-{count}'
    unique[name] = dataclasses.replace(one, id=name)
  return list(unique.values())
