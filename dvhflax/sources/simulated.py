"""Simulated patients with Pareto-optimal plans."""

from collections.abc import Sequence

import ml_collections
import numpy as np

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.patient import Patient, Structure
from dvhflax.planning.planner import plan_patient
from dvhflax.sites import PROSTATE, Protocol, Site
from dvhflax.sources.anatomy import sample_anatomy
from dvhflax.sources.plan_counts import PlanCounts
from dvhflax.sources.splits import split_patients


class Simulated:
  """A cohort's patients, of a site that has shapes."""

  def __init__(self, config: ml_collections.ConfigDict, site: Site = PROSTATE):
    """Args: config: see `config/defaults.py`; site: whose anatomy.

    Raises:
      ConfigError: if the site does not simulate a structure of the config.
    """
    self._site = site
    self._cohort = cohort = config.cohort
    self._protocol = config_lib.protocol(config)
    self.structures = tuple(map(Structure.from_name, cohort.structures))
    if not set(self.structures) <= set(site.structures):
      # Reported before the build begins.
      _draw(site, 0, 0, (1, 1, 1), (1.0, 1.0, 1.0), cohort.structures)
    self.ids = [f'sim-{i:04d}' for i in range(cohort.patients)]
    self.splits = split_patients(
      cohort.patients,
      cohort.validation_patients,
      cohort.test_patients,
      cohort.seed,
    )
    self._plans = PlanCounts.of(cohort)
    self.max_plans = self._plans.most
    self.provenance = {
      'source': 'simulated',
      'seed': cohort.seed,
      **self._plans.provenance,
      'patients': cohort.patients,
      'spacing_mm': list(cohort.spacing_mm),
      'protocol': self._protocol.to_dict(),
    }

  def read(self, index: int) -> Patient:
    """Simulates and plans the patient of `ids[index]`."""
    return simulate_patient(
      self._cohort.seed,
      index,
      grid=tuple(self._cohort.grid),
      spacing_mm=tuple(self._cohort.spacing_mm),
      plans=self._plans.of_split(self.splits[index]),
      structures=self._cohort.structures,
      protocol=self._protocol,
      site=self._site,
    )


def simulate_patient(
  seed: int,
  index: int,
  *,
  grid: tuple[int, int, int],
  spacing_mm: tuple[float, float, float],
  plans: int,
  structures: Sequence[str] = ('body', 'bladder', 'rectum', 'PTV'),
  protocol: Protocol = PROSTATE.protocol,
  site: Site = PROSTATE,
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
    site: whose anatomy.

  Returns:
    The patient; doses in fractions of the prescription.

  Raises:
    ConfigError: if the site is not simulated, or without one of the structures.
    PlanningError: see `plan_patient`.
  """
  masks = _draw(site, seed, index, grid, spacing_mm, structures)
  planned = plan_patient(masks, spacing_mm, plans, protocol)
  return Patient(
    id=f'sim-{index:04d}',
    masks=np.stack([masks[s] for s in structures], -1),
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


def _draw(
  site: Site,
  seed: int,
  index: int,
  grid: tuple[int, int, int],
  spacing_mm: tuple[float, float, float],
  structures: Sequence[str],
) -> dict[str, np.ndarray]:
  """Masks of all that the site simulates, `structures` among them."""
  rng = np.random.default_rng([seed, index])
  masks = sample_anatomy(rng, grid, spacing_mm, site).masks
  lacking = [name for name in structures if name not in masks]
  if lacking:
    raise errors.ConfigError(
      f'cohort.structures: simulated {site.name} patients have no '
      f'{", ".join(lacking)}; there are {", ".join(masks)}'
    )
  return masks
