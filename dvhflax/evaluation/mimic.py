"""How deliverable a dose of a cohort's patient is; see `planning.mimic`."""

from collections.abc import Mapping
import json
import os
from typing import Any

import numpy as np

from dvhflax import errors, files
from dvhflax.cohort.store import Cohort
from dvhflax.normalisation import DoseReference
from dvhflax.patient import named_masks
from dvhflax.planning.density import density_of
from dvhflax.planning.mimic import Mimicked, mimic
from dvhflax.sites.protocol import Protocol
from dvhflax.tuning import dose_file


def mimic_patient(
  cohort: Cohort,
  patient: str,
  *,
  dose: str | None = None,
  plan: int | None = None,
  protocol: Protocol | None = None,
) -> Mimicked:
  """The deliverable dose that is closest to a patient's dose.

  Args:
    cohort: store of the patient.
    patient: id.
    dose: file, the `dose.npz` of a prediction.
    plan: number of a plan of the patient, in place of `dose`.
    protocol: beams and objectives; None: those of the patient's plans.

  Raises:
    UserError: if not just one dose is named, or there is none such, or no
      protocol.
    PlanningError: for a patient that cannot be planned.
  """
  index = cohort.index(patient)
  return mimic_dose(cohort, index, _given(cohort, index, dose, plan), protocol)


def mimic_dose(
  cohort: Cohort,
  index: int,
  dose_gy: np.ndarray,
  protocol: Protocol | None = None,
) -> Mimicked:
  """The deliverable dose that is closest to a given one.

  Args:
    cohort: store of the patient.
    index: place of the patient.
    dose_gy: `[X, Y, Z]`.
    protocol: see `mimic_patient`.

  Raises:
    UserError: if there is no protocol.
    PlanningError: for a patient or a dose that cannot be.
  """
  record = cohort.patients[index]
  masks = named_masks(
    cohort.structures, cohort.masks(index), cohort.present[index]
  )
  return mimic(
    dose_gy,
    masks,
    record.spacing_mm,
    protocol or _protocol(record.provenance),
    density_of(masks['body'], cohort.ct(index)),
    record.prescription_gy,
  )


def _given(
  cohort: Cohort, index: int, dose: str | None, plan: int | None
) -> np.ndarray:
  """`[X, Y, Z]` Gy."""
  record = cohort.patients[index]
  if plan is not None and dose is None:
    if not 0 <= plan < record.plans:
      raise errors.UserError(
        f'--plan={plan}: {record.id} has plans 0 to {record.plans - 1}'
      )
    return cohort.reference(index, plan).to_gy(cohort.dose(index, plan))
  if dose is not None and plan is None:
    return dose_file.read(dose, cohort.masks(index))
  raise errors.UserError('say which dose: --dose=FILE.npz, or --plan=NUMBER')


def _protocol(provenance: Mapping[str, Any]) -> Protocol:
  if not isinstance(provenance.get('protocol'), dict):
    raise errors.UserError(
      'the plans of this patient have no protocol: give a configuration with '
      'one, such as --config=openkbp'
    )
  return Protocol.from_dict(provenance['protocol'])


def describe(found: Mimicked) -> str:
  """A table of the differences, deliverable minus given dose."""
  lines = ['in % of the prescription   mean  mean absolute  largest']
  for name, row in found.difference.items():
    lines.append(
      f'{name:24}{row["mean"]:+7.2f}{row["mean_absolute"]:15.2f}'
      f'{row["largest"]:9.2f}'
    )
  return '\n'.join(lines)


def write(
  path: str,
  found: Mimicked,
  spacing_mm: tuple[float, float, float],
  prescription_gy: float,
) -> None:
  """Writes dose (fractions of the prescription) and fluence maps as `.npz`."""
  os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
  prescribed = DoseReference.of_prescription(prescription_gy)
  beams = found.model.beamlets
  maps = np.zeros(beams.open.size, np.float32)
  maps[beams.active[beams.active >= 0]] = found.fluence[beams.active >= 0]
  with files.replacing(path) as aside, open(aside, 'wb') as file:
    np.savez_compressed(
      file,
      dose=prescribed.to_fraction(found.dose_gy),
      **prescribed.to_json(),
      spacing_mm=spacing_mm,
      fluence=maps.reshape(beams.open.shape),
      gantry_degrees=np.degrees(beams.angles),
      beamlet_mm=beams.width_mm,
      difference=json.dumps(found.difference),
    )
