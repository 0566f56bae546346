"""The doses of a session by their names: steps, plans, deliverable ones."""

from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.app import exports, faults
from dvhflax.app.compute import Compute
from dvhflax.app.opened import Opened
from dvhflax.app.session_files import SessionFiles
from dvhflax.patient import Patient
from dvhflax.tuning.steps import Step


class Doses:
  """Finds what the state of a session lists as `doses`."""

  def __init__(self, compute: Compute, files: Compute, kept: SessionFiles):
    """Reads nothing yet.

    Args:
      compute: the thread of the network.
      files: the thread that reads files of patients.
      kept: the sessions on disk, with their deliverable doses.
    """
    self._compute, self._files, self._kept = compute, files, kept

  async def gy(self, opened: Opened, name: str) -> np.ndarray:
    """`[X, Y, Z]` Gy.

    Raises:
      NotThere: if there is none such.
    """
    kind, _, number = name.rpartition('-')
    digits = number.isascii() and number.isdecimal() and len(number) < 10
    at = int(number) if digits else -1
    step = step_of(opened, name)
    if kind == 'step' and step is not None:
      return step.dose_gy
    if kind == 'plan' and 0 <= at < opened.entry.plans:
      if isinstance(opened.session.record, Patient):
        record = opened.session.record
        return np.asarray(record.dose[at] * record.reference_gy[at])
      cohort = opened.session.cohort
      index = cohort.index(opened.entry.id)
      dose = await self._files.run(cohort.dose, index, at)
      return cohort.reference(index, at).to_gy(dose)
    if kind == 'deliverable' and at in opened.made:
      made = await self._files.run(self._kept.made, opened.key, at)
      if made is not None:
        return made
    raise faults.NotThere(
      f"there is no dose {errors.shown(name)}: see the state's `doses`"
    )

  async def dvh(self, opened: Opened, name: str) -> dict[str, Any]:
    """Its DVHs, and what it has of the goals.

    Raises:
      NotThere: if there is none such.
    """
    step = step_of(opened, name)
    if step is not None and name.startswith('step-'):
      goals, _ = await self._compute.run(opened.judged, step)
      return {
        'id': name,
        'reference_gy': step.reference.gy,
        'achieved': step.dvh,
        'goals': goals,
        'metrics': {'achieved': step.metrics['achieved']},
      }
    dose_gy = await self.gy(opened, name)
    return {'id': name, **await self._compute.run(opened.measured, dose_gy)}

  async def asked(self, opened: Opened, name: str) -> exports.Asked:
    """What an export of it has to know.

    Raises:
      NotThere: if there is none such.
    """
    dose_gy = await self.gy(opened, name)
    step = step_of(opened, name)
    goals = await self._compute.run(
      opened.session.assess, opened.goals, dose_gy
    )
    return exports.Asked(opened.session, name, dose_gy, step, opened.ct, goals)


def step_of(opened: Opened, name: str) -> Step | None:
  """The step that a dose is of, or is the deliverable one of."""
  kind, _, number = name.rpartition('-')
  if kind not in ('step', 'deliverable'):
    return None
  steps = opened.session.steps
  return next((s for s in steps if str(s.number) == number), None)
