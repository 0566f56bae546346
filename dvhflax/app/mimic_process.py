"""Computes a deliverable dose, in a process of its own.

  python -m dvhflax.app.mimic_process TASK.npz RESULT.npz

Lines on its standard output are the stage that begins, one of `STAGES`, or how
much wider than enough the gap to the closest dose still is. The last line of an
error is on its standard error.
"""

import json
import os
import sys

import numpy as np

from dvhflax import errors, files
from dvhflax.patient import Structure, named_masks

# In their order: the dose of the beams; fluences until a first gap is known.
STAGES = ('beams', 'fluences')


def write_task(
  path: str | os.PathLike[str],
  dose_gy: np.ndarray,
  masks: np.ndarray,
  present: np.ndarray,
  structures: tuple[Structure, ...],
  spacing_mm: tuple[float, float, float],
  prescription_gy: float,
  protocol: dict[str, object],
  ct: np.ndarray | None,
) -> None:
  """Writes what the process has to know."""
  facts = {
    'structures': [[s.name, s.role] for s in structures],
    'prescription_gy': prescription_gy,
    'protocol': protocol,
    'ct': ct is not None,
  }
  with files.replacing(path) as aside, open(aside, 'wb') as file:
    np.savez_compressed(
      file,
      dose_gy=dose_gy,
      masks=masks,
      present=present,
      spacing_mm=spacing_mm,
      ct=np.zeros(0, np.int16) if ct is None else ct,
      facts=json.dumps(facts),
    )


def run(task: str, result: str) -> None:
  """Solves a task and writes the dose.

  Raises:
    PlanningError: see `mimic`.
  """
  from dvhflax.planning.density import density_of
  from dvhflax.planning.mimic import mimic
  from dvhflax.sites.protocol import Protocol

  print(STAGES[0], flush=True)
  with np.load(task, allow_pickle=False) as file:
    facts = json.loads(str(file['facts']))
    structures = [Structure(name, role) for name, role in facts['structures']]
    masks = named_masks(structures, file['masks'], file['present'])
    x_mm, y_mm, z_mm = file['spacing_mm'].tolist()
    found = mimic(
      np.maximum(file['dose_gy'], 0),
      masks,
      (x_mm, y_mm, z_mm),
      Protocol.from_dict(facts['protocol']),
      density_of(masks['body'], file['ct'] if facts['ct'] else None),
      facts['prescription_gy'],
      progress=lambda wider: print(f'{wider:.6g}', flush=True),
      prepared=lambda: print(STAGES[1], flush=True),
    )
  with files.replacing(result) as aside:
    np.savez_compressed(aside, dose_gy=found.dose_gy)


if __name__ == '__main__':
  os.nice(10)  # the page comes first
  try:
    run(*sys.argv[1:])
  except errors.UserError as error:
    print(' '.join(str(error).split()), file=sys.stderr)
    sys.exit(2)
