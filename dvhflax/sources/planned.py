"""Patients of any source, with Pareto-optimal plans computed for them."""

import dataclasses
from typing import Any

import ml_collections
import numpy as np

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.patient import Patient, named_masks
from dvhflax.planning.density import density_of
from dvhflax.planning.planner import plan_patient
from dvhflax.sites.protocol import Protocol
from dvhflax.sources.plan_counts import PlanCounts
from dvhflax.sources.splits import split_patients


class Stored:
  """The patients of another cohort."""

  def __init__(self, cohort: ml_collections.ConfigDict):
    """Opens the cohort at `cohort.raw`.

    Raises:
      ConfigError: if `cohort.raw` is not set.
      CohortError: if there is no cohort, or one of another grid.
    """
    if not cohort.raw:
      raise errors.ConfigError(
        'cohort.raw is not set: give the cohort whose patients are to be '
        'planned, --config.cohort.raw=cohorts/NAME'
      )
    self._store = store = Cohort.open(cohort.raw)
    if tuple(store.grid) != tuple(cohort.grid):
      raise errors.CohortError(
        f'{cohort.raw} has grid {tuple(store.grid)}, but cohort.grid is '
        f'{tuple(cohort.grid)}: they must agree'
      )
    self.structures = store.structures
    self.ids = [p.id for p in store.patients]
    self.splits = [p.split for p in store.patients]
    # Plans go through them: what is built from here keeps them.
    self.ct = store.metadata.ct
    self.max_plans = store.metadata.max_plans
    self.provenance = {
      'source': 'store',
      'from': store.metadata.provenance,
      'patients': len(self.ids),
    }

  def read(self, index: int) -> Patient:
    """The patient of `ids[index]` with its plans."""
    record = self._store.patients[index]
    return Patient(
      id=record.id,
      masks=self._store.masks(index),
      present=np.array(record.present),
      spacing_mm=record.spacing_mm,
      dose=self._store.doses(index),
      reference_gy=np.array(record.reference_gy),
      prescription_gy=record.prescription_gy,
      plan_weights=np.array(record.plan_weights),
      provenance=record.provenance,
      ct_hu=self._store.ct(index),
    )


class Planned:
  """The patients of a source, planned."""

  def __init__(self, source: Any, config: ml_collections.ConfigDict):
    """Takes over a source's patients.

    Args:
      source: as `build` wants it.
      config: see `config.py`.

    Raises:
      ConfigError: if the protocol names a structure that the source lacks.
    """
    self._source = source
    self._protocol = config_lib.protocol(config)
    self._plans = PlanCounts.of(config.cohort)
    self._replace = config.cohort.replace_plans
    self.structures = source.structures
    names = [s.name for s in source.structures]
    for name in (*self._protocol.targets, *self._protocol.oars):
      if name not in names:
        raise errors.ConfigError(
          f'planning: protocol {self._protocol.name} has {name}, the cohort '
          f'only {", ".join(names)}'
        )
    self.ids = source.ids
    cohort = config.cohort
    self.splits = getattr(source, 'splits', None) or split_patients(
      len(self.ids),
      cohort.validation_patients,
      cohort.test_patients,
      cohort.seed,
    )
    self.ct = getattr(source, 'ct', False)
    self.max_plans = self._plans.most
    if not self._replace:
      self.max_plans += source.max_plans
    self.provenance = {
      **source.provenance,
      **self._plans.provenance,
      'replace_plans': self._replace,
      'protocol': self._protocol.to_dict(),
    }

  def read(self, index: int) -> Patient:
    """Reads and plans a patient.

    Raises:
      CohortError: if it has plans of another protocol.
      PlanningError: if it cannot be planned; names the patient.
    """
    patient = self._source.read(index)
    plans = self._plans.of_split(self.splits[index])
    keeps = not self._replace and len(patient.dose) > 0
    if keeps and not self._planned_here(patient):
      raise errors.CohortError(
        f'patient {patient.id} has plans that are not of protocol '
        f'{self._protocol.name} as configured: --config.cohort.plans=0 keeps '
        'these alone, --config.cohort.replace_plans=True leaves them out'
      )
    masks = named_masks(self.structures, patient.masks, patient.present)
    try:
      planned = plan_patient(
        masks,
        patient.spacing_mm,
        plans,
        self._protocol,
        density=density_of(masks['body'], patient.ct_hu),
        beside=patient.plan_weights if keeps else None,
      )
    except errors.PlanningError as error:
      raise errors.PlanningError(f'patient {patient.id}: {error}') from None
    prescription_gy = self._protocol.prescription_gy
    provenance = {
      **patient.provenance,
      'protocol': self._protocol.to_dict(),
      'gap': planned.gap.tolist(),
    }
    dose = self._protocol.reference.to_fraction(planned.dose_gy)
    reference_gy = np.full(plans, prescription_gy)
    weights = planned.weights
    if keeps:
      provenance['gap'] = [*patient.provenance['gap'], *provenance['gap']]
      dose = np.concatenate([patient.dose, dose])
      reference_gy = np.concatenate([patient.reference_gy, reference_gy])
      weights = np.concatenate([patient.plan_weights, weights])
    return dataclasses.replace(
      patient,
      dose=dose,
      reference_gy=reference_gy,
      prescription_gy=prescription_gy,
      plan_weights=weights,
      provenance=provenance,
    )

  def _planned_here(self, patient: Patient) -> bool:
    """Whether its plans are of this protocol."""
    before = patient.provenance.get('protocol')
    return isinstance(before, dict) and (
      Protocol.from_dict(before) == self._protocol
    )
