"""A patient as every source delivers it and the cohort store keeps it."""

from collections.abc import Sequence
import dataclasses
import re
from typing import Any, Literal

import numpy as np

Role = Literal['body', 'oar', 'target']

# CT numbers in HU that are kept: those of a CT of 12 bits. Importers clip.
LEAST_HU, MOST_HU = -1024, 3071


@dataclasses.dataclass(frozen=True)
class Structure:
  """A contoured structure and the part it plays.

  Attributes:
    name: name used in tables, figures and configs, such as `rectum`.
    role: `target` (a PTV), `oar`, or `body` (the outline, or where no outline
      was contoured the region that can receive dose).
  """

  name: str
  role: Role

  @classmethod
  def from_name(cls, name: str) -> 'Structure':
    """`body` is the outline, `PTV...` (CTV, GTV, ITV) a target, else an OAR."""
    if name.lower() == 'body':
      return cls(name, 'body')
    if re.match('[pcgi]tv', name, re.IGNORECASE):
      return cls(name, 'target')
    return cls(name, 'oar')


@dataclasses.dataclass(frozen=True)
class Patient:
  """Masks and plans of one patient on one grid.

  Attributes:
    id: unique within a cohort.
    masks: `[X, Y, Z, S]` uint8, 0 or 1, channels in the cohort's order of
      structures; all 0 where a structure is absent.
    present: `[S]` bool, whether the structure was contoured.
    spacing_mm: voxel size along each axis.
    dose: `[N, X, Y, Z]` float32, fraction of `reference_gy`.
    reference_gy: `[N]` the dose in Gy that 1.0 stands for, plan by plan: the
      prescription, or the plan's mean dose in the highest target, see
      `normalisation`.
    prescription_gy: prescription of the (highest) target.
    plan_weights: `[N, W]` objective weights of each plan; W is 0 where the
      plans are clinical ones.
    provenance: JSON-serialisable facts on where the patient came from.
    ct_hu: `[X, Y, Z]` int16, CT numbers in HU within `LEAST_HU` and `MOST_HU`;
      None without a CT.
  """

  id: str
  masks: np.ndarray
  present: np.ndarray
  spacing_mm: tuple[float, float, float]
  dose: np.ndarray
  reference_gy: np.ndarray
  prescription_gy: float
  plan_weights: np.ndarray
  provenance: dict[str, Any]
  ct_hu: np.ndarray | None = None


def occupied(masks: np.ndarray) -> np.ndarray:
  """`[S]` bool: which of `[X, Y, Z, S]` masks have a voxel."""
  return np.asarray(masks.any((0, 1, 2)))


def named_masks(
  structures: Sequence[Structure], masks: np.ndarray, present: np.ndarray
) -> dict[str, np.ndarray]:
  """The structures that a patient has, as the planner wants them.

  Args:
    structures: S structures.
    masks: `[X, Y, Z, S]`.
    present: `[S]` bool.

  Returns:
    `[X, Y, Z]` by name; the outline is `body` whatever its name.
  """
  return {
    'body' if structure.role == 'body' else structure.name: masks[..., channel]
    for channel, structure in enumerate(structures)
    if present[channel]
  }
