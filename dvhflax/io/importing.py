"""Shared by all imports: resamples patients onto the cohort grid.

The cohort grid is centred on the patient's targets. Resampling costs accuracy,
above all target coverage; the loss is measured for every structure and plan,
and reported.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.dose_volume import Curve
from dvhflax.grid import Axes, Grid
from dvhflax.io import body as body_lib
from dvhflax.io import grid_cost, placement, resample
from dvhflax.io.resample import Dose, Occupancy, Scan
from dvhflax.io.source_dvh import curve
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Patient, Structure, occupied

# With more of a target outside of the dose, the two do not belong together.
MOST_TARGET_OUTSIDE = 0.05
# With less of a target inside of the CT, the two do not belong together.
LEAST_TARGET_SCANNED = 0.95
# Maximum dose over reference dose, beyond any plan, and below that of a single
# fraction of a long course.
MOST_RATIO, LEAST_RATIO = 100.0, 0.015
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


@dataclasses.dataclass(frozen=True)
class Plan:
  """A plan of a patient, its dose yet to be read.

  Attributes:
    label: tells the plan to the user.
    parts: each reads a dose; the plan's is their sum.
    prescription_gy: of the plan, None if it is unknown.
    uids: of the parts, where they have any.
    rtplans: SOP classes by UID of the RTPLANs that it is the dose of.
  """

  label: str
  parts: Sequence[Callable[[], Dose]]
  prescription_gy: float | None = None
  uids: Sequence[str] = ()
  rtplans: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Case:
  """A patient on the grids of its files.

  Attributes:
    id: unique within a cohort.
    occupancies: the structures that the patient has, by name.
    plans: empty for a patient to predict for.
    notes: on the files, for the user.
    provenance: JSON-serialisable.
    prescription_gy: for plans without one, or a patient without plans, from an
      RTPLAN of the structure set; None if unknown.
    ct: reads the CT, and notes on it, a line each; None without.
  """

  id: str
  occupancies: Mapping[str, Occupancy]
  plans: Sequence[Plan]
  notes: Sequence[str]
  provenance: Mapping[str, Any]
  prescription_gy: float | None = None
  ct: Callable[[], tuple[Scan, list[str]]] | None = None


def numbered(found: Sequence[Any]) -> list[Any]:
  """Patients with unique ids: `ID`, `ID-2`, ... where one comes repeatedly.

  Args:
    found: dataclasses with a field `id`.
  """
  # Whose id is `ID-2` from the start keeps it.
  taken = {one.id for one in found}
  unique: dict[str, Any] = {}
  for one in found:
    name, count = one.id, 1
    while name in unique or (count > 1 and name in taken):
      count += 1
      name = f'{one.id}-{count}'
    unique[name] = dataclasses.replace(one, id=name)
  return list(unique.values())


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
  doses, plans, remarks = _plans(case, settings, grid, inside, found)
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


def _plans(
  case: Case,
  settings: Settings,
  grid: Grid,
  inside: Mapping[str, np.ndarray],
  found: Mapping[str, dict[str, Any]],
) -> tuple[list[np.ndarray], list[dict[str, Any]], list[str]]:
  """Reads a case's plans onto the grid.

  Args:
    case, settings, grid: see `assemble`.
    inside: `[X, Y, Z]` bool by structure.
    found: the report on each structure; what each plan costs is added.

  Returns:
    Doses in Gy, what is to be told of each, and notes on their doses and on the
    plans that are left out, a line each.
  """
  targets = [
    s.name
    for s in settings.structures
    if s.role == 'target' and s.name in inside
  ]
  read: list[tuple[Plan, _Read, float, str]] = []
  remarks: list[str] = []
  for plan in case.plans:
    try:
      one = _plan_dose(case, plan, grid, targets)
      reference, source = _reference(
        plan, case, settings, one.dose_gy, inside[targets[-1]]
      )
    except errors.CohortError as error:
      remarks.append(f'plan {plan.label} left out: {error}')
      continue
    remarks += one.notes
    read.append((plan, one, reference, source))
  highest = max((reference for *_, reference, _ in read), default=0.0)
  doses: list[np.ndarray] = []
  plans: list[dict[str, Any]] = []
  for plan, one, reference, source in read:
    # The mean of its own target goes with any dose.
    top = float(one.dose_gy.max())
    if top <= LEAST_RATIO * highest:
      remarks.append(
        f'plan {plan.label} left out: its maximum dose of {top:.3g} Gy does '
        f'not go with another plan of {highest:.4g} Gy: is it in Gy?'
      )
      continue
    for name, entry in found.items():
      entry['outside_dose'] = max(entry['outside_dose'], one.outside[name])
      if inside[name].any():
        inner = one.dose_gy[inside[name]]
        entry['plans'].append(
          grid_cost.cost(one.curves[name], inner, reference)
        )
    doses.append(one.dose_gy)
    plans.append(
      {
        'label': plan.label,
        'reference_gy': reference,
        'prescription_from': source,
        'uids': list(plan.uids),
        'rtplans': dict(plan.rtplans),
        'grid': placement.described(one.axes),
      }
    )
  return doses, plans, remarks


@dataclasses.dataclass(frozen=True)
class _Read:
  """A plan's dose.

  Attributes:
    dose_gy: on the grid.
    axes: of the source grid.
    curves: DVHs on it.
    outside: shares of structures outside of it.
    notes: on the dose.
  """

  dose_gy: np.ndarray
  axes: Axes
  curves: Mapping[str, Curve]
  outside: Mapping[str, float]
  notes: Sequence[str]


def _plan_dose(
  case: Case, plan: Plan, grid: Grid, targets: Sequence[str]
) -> _Read:
  """A plan's dose, on the grid and on its own.

  Parts are added up one by one, so that one is in memory at a time.
  """
  on_grid = np.zeros(grid.shape, np.float32)
  volumes = {n: o.volumes_mm3 for n, o in case.occupancies.items()}
  inside = {name: volume > 0 for name, volume in volumes.items()}
  samples: dict[str, Any] = dict.fromkeys(volumes, np.float32(0))
  outside = dict.fromkeys(volumes, 0.0)
  axes = grid.axes
  notes: list[str] = []
  for part in plan.parts:
    dose = part()
    axes = dose.axes
    notes += dose.notes
    on_grid += resample.trilinear(dose, grid.axes)
    for name, occupancy in case.occupancies.items():
      sampled = resample.trilinear(dose, occupancy.centres)
      samples[name] = samples[name] + sampled[inside[name]]
      share = 1 - resample.share_in_dose(dose, occupancy)
      outside[name] = max(outside[name], share)
  for name in targets:
    if outside[name] > MOST_TARGET_OUTSIDE:
      raise errors.CohortError(
        f'{outside[name]:.0%} of {name} lie outside of the dose grid: does '
        'this dose belong to these structures?'
      )
  curves = {
    name: curve(samples[name], volumes[name][inside[name]]) for name in volumes
  }
  return _Read(on_grid, axes, curves, outside, notes)


def _reference(
  plan: Plan,
  case: Case,
  settings: Settings,
  dose_gy: np.ndarray,
  target: np.ndarray,
) -> tuple[float, str]:
  """The dose in Gy that 1.0 stands for, and where it is from."""
  if plan.prescription_gy is not None:
    reference, source = plan.prescription_gy, 'plan'
  elif case.prescription_gy is not None and not plan.rtplans:
    reference, source = case.prescription_gy, 'structure set'
  elif settings.prescription_gy is not None:
    reference, source = settings.prescription_gy, 'config'
  else:
    reference = float(dose_gy[target].mean(dtype=np.float64))
    source = 'target mean'
  top = float(dose_gy.max())
  if not LEAST_RATIO * reference < top <= MOST_RATIO * reference:
    raise errors.CohortError(
      f'a reference dose of {reference:.4g} Gy (from the {source}) does not go '
      f'with a maximum dose of {top:.3g} Gy: is one of them in cGy?'
    )
  return reference, source
