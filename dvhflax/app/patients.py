"""The patients that can be tuned for: of the cohort, and of uploads.

Addresses have a patient's key, never its name.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any, Literal

from dvhflax.cohort.store import Cohort


@dataclasses.dataclass(frozen=True)
class Entry:
  """A patient as the page lists it.

  Attributes:
    key: in addresses.
    id: of the patient in its source.
    source: where from.
    prescription_gy: None where it is not known before the patient is read.
    plans: whose doses can be shown.
    faults: why there can be no session; None if there can.
    upload: that the patient is of; empty for one of the cohort.
  """

  key: str
  id: str
  source: Literal['cohort', 'upload']
  prescription_gy: float | None
  plans: int
  faults: str | None = None
  upload: str = ''

  def to_json(self) -> dict[str, Any]:
    """As `GET /api/v1/patients` has it."""
    return {
      'key': self.key,
      'label': self.id,
      'source': self.source,
      'prescription_gy': self.prescription_gy,
      'plans': self.plans,
      'faults': self.faults,
    }


def of_cohort(cohort: Cohort) -> Iterator[Entry]:
  """Those whose masks are in the store."""
  for index, record in enumerate(cohort.patients):
    if cohort.holds(index):
      held = range(record.plans, -1, -1)
      plans = next(n for n in held if not n or cohort.holds(index, n))
      yield Entry(
        f'p{index}', record.id, 'cohort', record.prescription_gy, plans
      )
