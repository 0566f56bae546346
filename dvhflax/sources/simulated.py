"""Simulated patients with Pareto-optimal plans."""

from collections.abc import Sequence

import numpy as np

from dvhflax.patient import Patient
from dvhflax.planning.planner import plan_patient
from dvhflax.sites.prostate import PROSTATE
from dvhflax.sites.protocol import Protocol
from dvhflax.sources.anatomy import sample_anatomy


def simulate_patient(
  seed: int,
  index: int,
  *,
  grid: tuple[int, int, int],
  spacing_mm: tuple[float, float, float],
  plans: int,
  structures: Sequence[str] = ('body', 'bladder', 'rectum', 'PTV'),
  protocol: Protocol = PROSTATE,
) -> Patient:
  """A patient that follows from (seed, index) alone.

  Args:
    seed: of the cohort.
    index: of the patient in it.
    grid: voxels along x, y, z.
    spacing_mm: voxel size.
    plans: N Pareto-optimal plans.
    structures: mask channels, in order.
    protocol: of the plans.

  Returns:
    The patient; doses in fractions of the prescription.
  """
  rng = np.random.default_rng([seed, index])
  anatomy = sample_anatomy(rng, grid, spacing_mm)
  planned = plan_patient(anatomy.masks, spacing_mm, plans, protocol)
  return Patient(
    id=f'sim-{index:04d}',
    masks=np.stack([anatomy.masks[s] for s in structures], -1),
    present=np.ones(len(structures), bool),
    spacing_mm=spacing_mm,
    dose=protocol.reference.to_fraction(planned.dose_gy),
    reference_gy=np.full(plans, protocol.prescription_gy),
    prescription_gy=protocol.prescription_gy,
    plan_weights=planned.weights,
    provenance={
      'seed': seed,
      'index': index,
      'protocol': protocol.to_dict(),
      'gap': planned.gap.tolist(),
    },
  )
