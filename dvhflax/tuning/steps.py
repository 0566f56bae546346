"""What a session answers: a previewed dose, and one that it keeps."""

import dataclasses
from typing import Any

import numpy as np

from dvhflax.normalisation import DoseReference


@dataclasses.dataclass(frozen=True)
class Held:
  """How far a wish was taken while structures are locked.

  Attributes:
    share: of the way from the wish before to the new one, 0 to 1; at 0 the
      dose stayed what it was.
    by: the locked structure that held it most; empty where nothing did.
    why: what of that structure would have become worse, for people.
  """

  share: float
  by: str = ''
  why: str = ''


@dataclasses.dataclass(frozen=True)
class Answer:
  """A predicted dose, and what it was asked for.

  Attributes:
    dose: `[X, Y, Z]` float32, fraction of the reference.
    dvh: `[S, K]` that the dose has.
    desired_dvh: `[S, K]` that was asked for; None of an anatomy-only network.
    reference: what 1.0 of `dose` and `dvh` stands for, see `normalisation`.
    desired_reference: what 1.0 of `desired_dvh` stands for; another where 1.0
      is each plan's own target mean.
  """

  dose: np.ndarray
  dvh: np.ndarray
  desired_dvh: np.ndarray | None
  reference: DoseReference
  desired_reference: DoseReference

  @property
  def dose_gy(self) -> np.ndarray:
    """`[X, Y, Z]` float32 in Gy."""
    return self.reference.to_gy(self.dose)

  @property
  def wished_dvh(self) -> np.ndarray | None:
    """`[S, K]` that a physician wished for, see `Step`."""
    return self.desired_dvh


@dataclasses.dataclass(frozen=True)
class Preview(Answer):
  """A dose that is not kept.

  Attributes:
    points: each as asked and achieved, see `plan_metrics.point_achieved`.
    worse: locked structures that it makes worse than at their lock;
      `Session.tune` would take its wish only a part of the way.
  """

  points: list[dict[str, Any]]
  worse: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step(Answer):
  """A dose of a session.

  Attributes:
    metrics: `achieved` and `desired`, see `plan_metrics`; `reach`, how far the
      wish is from the training plans; `points`, each as asked and achieved;
      `reference_gy`, `prescription_gy` and `reference_from`; `cut_off`, the
      structures that reach the sides of the grid.
    number: of the session's steps, from 0; none is given twice.
    action: `first_dose`, `tune` or `balanced`.
    name: that it was given.
    note: that it was given.
    time: when it was made, ISO 8601 in UTC.
    held: how far its wish was taken; None where nothing was locked.
  """

  metrics: dict[str, Any]
  number: int = 0
  action: str = 'tune'
  name: str = ''
  note: str = ''
  time: str = ''
  held: Held | None = None

  @property
  def points(self) -> list[dict[str, Any]]:
    """Each as asked and achieved."""
    points: list[dict[str, Any]] = self.metrics['points']
    return points

  @property
  def wished_dvh(self) -> np.ndarray | None:
    """`desired_dvh`, but None of a first dose.

    That one is for the mean DVH of the training plans, which nobody wished for
    this patient.
    """
    return self.desired_dvh if self.action == 'tune' else None
