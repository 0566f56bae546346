"""How many plans are computed for a patient."""

import dataclasses
from typing import Any

import ml_collections


@dataclasses.dataclass(frozen=True)
class PlanCounts:
  """Plans to compute for each patient of a split.

  Attributes:
    train: for training patients.
    held_out: for validation and test patients.
  """

  train: int
  held_out: int

  @classmethod
  def of(cls, cohort: ml_collections.ConfigDict) -> 'PlanCounts':
    """As `config.cohort` says."""
    return cls(cohort.plans, cohort.held_out_plans or cohort.plans)

  @property
  def most(self) -> int:
    """The greater of the two."""
    return max(self.train, self.held_out)

  @property
  def provenance(self) -> dict[str, Any]:
    """For a cohort's metadata; older cohorts had one number for all."""
    same = self.train == self.held_out
    return {'plans': self.train} | (
      {} if same else {'held_out_plans': self.held_out}
    )

  def of_split(self, split: str) -> int:
    """For a patient of `train`, `validation` or `test`."""
    return self.train if split == 'train' else self.held_out
