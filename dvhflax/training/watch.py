"""Ends a run whose loss is not finite."""

import collections

import jax
import numpy as np

from dvhflax.training.sampler import Draw
from dvhflax.training.setup import Run

# Losses are looked at so many updates late: waiting for the newest would
# leave the device idle.
LAG = 2


class LossWatch:
  """Raises once a loss is not finite, a few updates late, never waiting.

  Attributes:
    last: the newest loss that was looked at.
  """

  def __init__(self, run: Run):
    self._run = run
    self._waiting: collections.deque[tuple[int, jax.Array, Draw]] = (
      collections.deque()
    )
    self.last: float | None = None

  def add(self, step: int, loss: jax.Array, draw: Draw) -> None:
    """Takes the loss of an update, as it came out.

    Raises:
      UserError: if an earlier one is not finite.
    """
    self._waiting.append((step, loss, draw))
    self._look(LAG)

  def flush(self) -> None:
    """Looks at all, and waits for them; raises as `add`."""
    self._look(0)

  def _look(self, keep: int) -> None:
    while len(self._waiting) > keep:
      step, loss, draw = self._waiting.popleft()
      self.last = float(loss)
      if not np.isfinite(self.last):
        patients = self._run.cohort.patients
        names = ', '.join(patients[i].id for i in draw.patients)
        raise self._run.not_finite(
          f'the loss is {self.last} at step {step}, learning rate '
          f'{float(self._run.schedule(step)):.3g}, patients {names}'
        )
