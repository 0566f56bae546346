"""A case's plans: their doses on the cohort grid, and the dose that each is of.

What is lost on the grid is measured for every structure and plan.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.dose_volume import Curve
from dvhflax.grid import Axes, Grid
from dvhflax.io import grid_cost, placement, resample
from dvhflax.io.case import Case, Plan
from dvhflax.io.source_dvh import curve

# With more of a target outside of the dose, the two do not belong together.
MOST_TARGET_OUTSIDE = 0.05
# Maximum dose over reference dose, beyond any plan, and below that of a single
# fraction of a long course.
MOST_RATIO, LEAST_RATIO = 100.0, 0.015


def read(
  case: Case,
  targets: Sequence[str],
  grid: Grid,
  inside: Mapping[str, np.ndarray],
  found: Mapping[str, dict[str, Any]],
  prescription_gy: float | None,
) -> tuple[list[np.ndarray], list[dict[str, Any]], list[str]]:
  """Reads a case's plans onto the grid.

  Args:
    case: the patient; a plan without a prescription gets the case's, if it is
      of no RTPLAN.
    targets: names of its targets, the one that sets the reference dose last.
    grid: of the cohort.
    inside: `[X, Y, Z]` bool by structure.
    found: the report on each structure; what each plan costs is added.
    prescription_gy: for plans that have none otherwise; if None, the mean
      dose of the target.

  Returns:
    Doses in Gy, what is to be told of each, and notes on their doses and on the
    plans that are left out, a line each.
  """
  read: list[tuple[Plan, _Read, float, str]] = []
  remarks: list[str] = []
  for plan in case.plans:
    try:
      one = _plan_dose(case, plan, grid, targets)
      reference, source = _reference(
        plan, case, prescription_gy, one.dose_gy, inside[targets[-1]]
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
  prescription_gy: float | None,
  dose_gy: np.ndarray,
  target: np.ndarray,
) -> tuple[float, str]:
  """The dose in Gy that 1.0 stands for, and where it is from."""
  if plan.prescription_gy is not None:
    reference, source = plan.prescription_gy, 'plan'
  elif case.prescription_gy is not None and not plan.rtplans:
    reference, source = case.prescription_gy, 'structure set'
  elif prescription_gy is not None:
    reference, source = prescription_gy, 'config'
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
