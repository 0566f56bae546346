"""Shared by all imports: resamples patients onto the cohort grid.

The cohort grid is centred on the patient's targets. Resampling costs accuracy,
above all target coverage; the loss is measured for every structure and plan,
and reported.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.grid import Grid
from dvhflax.io import body as body_lib
from dvhflax.io import grid_cost, plan_doses, resample
from dvhflax.io.case import Case
from dvhflax.io.resample import Scan
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Patient, Structure, occupied

# With less of a target inside of the CT, the two do not belong together.
LEAST_TARGET_SCANNED = 0.95
# More than any course; what is in cGy nearly always is.
MOST_PRESCRIBED_GY = 200.0
# Less than any treatment; a dose in kGy, or scaled to a maximum of 1 / 10^n.
LEAST_PRESCRIBED_GY = 0.1
# With more of the target outside of the body, the two do not belong together.
MOST_TARGET_NOT_IN_BODY = 0.5


@dataclasses.dataclass(frozen=True)
class Settings:
  """Import settings, the same for every patient.

  Attributes:
    structures: in the order of the channels; targets in ascending order of
      prescription, the last that a patient has sets the reference dose.
    shape, spacing_mm: the cohort's grid.
    prescription_gy: for plans without one; if None, the mean target dose.
    usual_gy: the prescription of a patient without a usable plan, if it is not
      known otherwise.
    ct: keep the CT of a patient that has one.
  """

  structures: tuple[Structure, ...]
  shape: tuple[int, int, int]
  spacing_mm: tuple[float, float, float]
  prescription_gy: float | None = None
  ct: bool = False
  usual_gy: float | None = None


def assemble(
  case: Case, settings: Settings, *, dose_optional: bool = False
) -> tuple[Patient, dict[str, Any]]:
  """Resamples a patient onto the cohort grid.

  Args:
    case: the patient.
    settings: what is wanted.
    dose_optional: accept a patient without a usable plan.

  Returns:
    The patient, and its entry in the report (JSON-serialisable).

  Raises:
    CohortError: no body, no target, no plan that can be read and has the
      target within its dose, or no prescription.
  """
  case, scan = _scanned(case, settings)
  targets = _require(case, settings)
  grid = Grid(
    settings.shape,
    settings.spacing_mm,
    resample.centroid([case.occupancies[name] for name in targets]),
  )
  masks, found = _masks(case, settings, grid)
  inside = {
    structure.name: masks[..., channel] > 0
    for channel, structure in enumerate(settings.structures)
    if structure.name in found
  }
  _check_place(case, settings, inside, targets[-1])
  doses, plans, remarks = plan_doses.read(
    case, targets, grid, inside, found, settings.prescription_gy
  )
  notes = [*case.notes, *remarks]
  if not doses and not dose_optional:
    raise errors.CohortError(f'patient {case.id}: {"; ".join(notes)}')
  # One prescription per patient: the highest of its plans.
  told = [plan['reference_gy'] for plan in plans]
  prescription_gy = max(told or [_prescription(case, settings)])
  if not LEAST_PRESCRIBED_GY <= prescription_gy <= MOST_PRESCRIBED_GY:
    unit = 'cGy' if prescription_gy > MOST_PRESCRIBED_GY else 'Gy'
    raise errors.CohortError(
      f'patient {case.id}: a prescription of {prescription_gy:g} Gy: is it in '
      f'{unit}? Give it in Gy by --prescription_gy or cohort.prescription_gy'
    )
  patient = Patient(
    id=case.id,
    masks=masks,
    present=occupied(masks),
    spacing_mm=settings.spacing_mm,
    dose=DoseReference.of_prescription(prescription_gy).to_fraction(
      np.array(doses, np.float32).reshape(-1, *grid.shape)
    ),
    reference_gy=np.full(len(doses), prescription_gy),
    prescription_gy=prescription_gy,
    plan_weights=np.zeros((len(doses), 0)),
    provenance={
      **case.provenance,
      'plans': plans,
      'grid_centre_mm': list(grid.centre_mm),
      'outside_grid': {
        name: one['outside_grid']
        for name, one in found.items()
        if one['outside_grid'] > 0.001
      },
    },
    ct_hu=None if scan is None else resample.hu_on(grid, scan),
  )
  entry = {
    'id': case.id,
    'plans': plans,
    'notes': [*notes, *grid_cost.warnings(found, plans, targets[-1])],
    'structures': found,
  }
  return patient, entry


def _scanned(case: Case, settings: Settings) -> tuple[Case, Scan | None]:
  """Reads the CT if it is wanted, or if the body has to be derived from it.

  A faulty CT is left out: the patient can be imported without it.

  Returns:
    The case, with a body if the CT tells it, and the CT if it is to be kept.
  """
  (body,) = (s.name for s in settings.structures if s.role == 'body')
  lacks_body = body not in case.occupancies
  if case.ct is None or not (settings.ct or lacks_body):
    return case, None
  occupancies = dict(case.occupancies)
  provenance = dict(case.provenance)
  try:
    scan, notes = case.ct()
    for structure in settings.structures:
      name = structure.name
      if structure.role == 'target' and name in occupancies:
        share = resample.share_in_dose(scan, occupancies[name])
        if share < LEAST_TARGET_SCANNED:
          raise errors.CohortError(
            f'{1 - share:.0%} of {name} lie outside of it: does this CT belong '
            'to these structures?'
          )
    if lacks_body:
      occupancies[body] = body_lib.from_scan(scan)
      provenance[body] = 'derived from the CT'
      notes = [*notes, f'{body} derived from the CT']
  except errors.CohortError as error:
    return dataclasses.replace(
      case, notes=[*case.notes, f'CT left out: {error}']
    ), None
  outside = 1 - resample.share_in_dose(scan, occupancies[body])
  if settings.ct and outside > 0.001:
    notes = [
      *notes,
      f'{outside:.1%} of {body} lie outside of the CT: air there',
    ]
  case = dataclasses.replace(
    case,
    occupancies=occupancies,
    notes=[*case.notes, *notes],
    provenance=provenance,
  )
  return case, scan if settings.ct else None


def _require(case: Case, settings: Settings) -> list[str]:
  """Names of the case's targets; raises if it has none, or no body."""
  for role in ('body', 'target'):
    wanted = [s.name for s in settings.structures if s.role == role]
    if not any(name in case.occupancies for name in wanted):
      reasons = '; '.join(case.notes) or 'it has no structures'
      raise errors.CohortError(
        f'patient {case.id} has no {" or ".join(wanted)}: {reasons}'
      )
  return [
    s.name
    for s in settings.structures
    if s.role == 'target' and s.name in case.occupancies
  ]


def _check_place(
  case: Case,
  settings: Settings,
  inside: Mapping[str, np.ndarray],
  target: str,
) -> None:
  """Raises a CohortError if the target or the body is not on the grid, or the
  target lies elsewhere."""
  (body,) = (s.name for s in settings.structures if s.role == 'body')
  for name in (target, body):
    if not inside[name].any():
      raise errors.CohortError(
        f'patient {case.id}: {name} lies outside of cohort.grid'
      )
  # By its bounds: of a label map, the body is what other structures leave.
  places = np.argwhere(inside[body])
  first, last = places.min(0), places.max(0)
  its = np.argwhere(inside[target])
  share = 1 - float(((its >= first) & (its <= last)).all(1).mean())
  if share > MOST_TARGET_NOT_IN_BODY:
    raise errors.CohortError(
      f'patient {case.id}: {share:.0%} of {target} lie outside of the bounds '
      f'of {body}: are they of the same patient?'
    )


def _prescription(case: Case, settings: Settings) -> float:
  """Of a patient without a usable plan."""
  told = [plan.prescription_gy for plan in case.plans if plan.prescription_gy]
  if told:
    return max(told)
  for prescription_gy in (
    case.prescription_gy,
    settings.prescription_gy,
    settings.usual_gy,
  ):
    if prescription_gy is not None:
      return prescription_gy
  raise errors.CohortError(
    f'patient {case.id}: the prescription is unknown: give it in Gy by '
    '--prescription_gy'
  )


def _masks(
  case: Case, settings: Settings, grid: Grid
) -> tuple[np.ndarray, dict[str, Any]]:
  """`[X, Y, Z, S]` masks, and what became of each structure's volume."""
  masks = np.zeros((*grid.shape, len(settings.structures)), np.uint8)
  found = {}
  for channel, structure in enumerate(settings.structures):
    occupancy = case.occupancies.get(structure.name)
    if occupancy is None:
      continue
    fractions = resample.fractions_on(grid, occupancy)
    within_cc = float(fractions.sum(dtype=np.float64)) * grid.voxel_cc
    masks[..., channel] = resample.to_mask(fractions)
    found[structure.name] = {
      'volume_cc': occupancy.volume_cc,
      'outside_grid': max(0.0, 1 - within_cc / occupancy.volume_cc),
      'mask_cc': float(masks[..., channel].sum()) * grid.voxel_cc,
      'outside_dose': 0.0,
      'plans': [],
    }
  return masks, found
