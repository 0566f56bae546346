"""Reads patients from DICOM-RT: CT, RTSTRUCT, RTDOSE and RTPLAN.

`dicom.matching` decides which files make a patient. Coordinates are DICOM's
own: mm, LPS.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import functools
import itertools
import pathlib
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.io import names as names_lib
from dvhflax.io.case import Case, Plan
from dvhflax.io.contours import stack as contours_lib
from dvhflax.io.dicom import ct as dicom_ct
from dvhflax.io.dicom import files, rtdose, rtplan, rtstruct
from dvhflax.io.dicom.headers import SHARED, Instance
from dvhflax.io.dicom.matching import Found, find_patients
from dvhflax.io.resample import MOST_GY, Dose, Occupancy

# The interface that `io/formats.py` expects of a format.
__all__ = ('find_patients', 'read_patient')


def read_patient(
  found: Found,
  structures: Sequence[str],
  rows: Sequence[tuple[str, str]] = (),
  contour_ends: str = 'rounded',
) -> Case:
  """Reads a patient's structures; its doses are read when asked for.

  Args:
    found: see `find_patients`.
    structures: names of the cohort's structures.
    rows: the user's table of names, see `names.read_table`.
    contour_ends: one of `contours.stack.ENDS`.

  Raises:
    CohortError: for a faulty file, which it names.
  """
  where = found.structure_set.path
  dataset = files.read(where)
  frame = _frame(found)
  rois, remarks = rtstruct.rois(dataset, where, frozenset({frame}))
  match = names_lib.match(
    [roi.name for roi in rois], structures, rows, rtstruct.marks(rois)
  )
  notes = [*found.notes, *remarks, *names_lib.describe(match)]
  notes += [
    f'{dose.path.name}: the RTPLAN that it refers to is not here'
    for dose in itertools.chain(*found.plans)
    if dose.plans - found.rtplans.keys()
  ]
  if not frame:
    notes.append(
      f'{where.name} has no FrameOfReferenceUID: a dose that is written for it '
      'gets one of its own'
    )
  plans, remarks = _plans(found)
  notes += remarks
  prescription_gy = None
  if not plans or not all(plan.prescription_gy for plan in plans):
    prescription_gy, remarks = _prescription_of_set(found)
    notes += remarks
  contours = {}
  for name, index in match.chosen.items():
    try:
      contours[name] = rtstruct.contours(rois[index], where)
    except errors.CohortError as error:
      notes.append(f'{name} left out: {error}')
  heights = [one.height_mm for one in found.slices]
  occupancies, remarks = _occupancies(
    contours,
    contours_lib.slice_spacing(np.array(heights)) if heights else None,
    contour_ends,
  )
  ct = None
  if found.slices:
    paths = [one.path for one in found.slices]
    ct = functools.partial(dicom_ct.read_scan, paths)
  return Case(
    id=found.id,
    occupancies=occupancies,
    plans=plans,
    notes=notes + remarks,
    provenance={
      'source': 'dicom',
      'structure_set': found.structure_set.uid,
      'names': {name: match.names[i] for name, i in match.chosen.items()},
      'roi_numbers': {n: rois[i].number for n, i in match.chosen.items()},
      'rtplans': {uid: plan.sop_class for uid, plan in _rtplans(found).items()},
      'dicom': {**_shared(dataset, where), 'FrameOfReferenceUID': frame},
    },
    prescription_gy=prescription_gy,
    ct=ct,
    names=match.names,
  )


def _shared(dataset: Any, where: pathlib.Path) -> dict[str, str]:
  """Attributes that doses copy from a structure set; all are optional."""
  shared = dict.fromkeys((*SHARED, 'StudyInstanceUID'), '')
  for keyword in shared:
    with contextlib.suppress(errors.CohortError):
      shared[keyword] = files.text(dataset, keyword, where)
  return shared


def _frame(found: Found) -> str:
  """The one frame of reference that structures, doses and CT share.

  Structures that no dose belongs to need not have one: ''.
  """
  where = found.structure_set.path
  frames = found.frames
  if not frames and not found.plans:
    return ''
  of_ct = frozenset().union(*(one.frames for one in found.slices))
  if len(frames) > 1 and frames & of_ct:
    frames &= of_ct
  if len(frames) != 1:
    what = 'and its doses share' if found.plans else 'has'
    raise errors.CohortError(
      f'{where} {what} {len(frames) or "no"} frames of reference: export the '
      'structures and the doses of one image'
    )
  return next(iter(frames))


def _rtplans(found: Found) -> dict[str, Instance]:
  """The RTPLANs that refer to a structure set, by UID."""
  return {
    uid: plan
    for uid, plan in found.rtplans.items()
    if found.structure_set.uid in plan.structure_sets
  }


def _prescription_of_set(found: Found) -> tuple[float | None, list[str]]:
  """The highest prescription of the RTPLANs that refer to a structure set."""
  each = [rtplan.prescription(plan.path) for plan in _rtplans(found).values()]
  told = sorted({gy for gy in each if gy})
  notes = []
  if len(told) > 1:
    notes.append(
      f'its RTPLANs prescribe {" and ".join(f"{gy:g}" for gy in told)} Gy; the '
      'highest is taken: give the prescription if they are phases of a course'
    )
  return rtplan.highest(told), notes


def _occupancies(
  contours: Mapping[str, tuple[list[np.ndarray], list[str]]],
  ct_mm: float | None,
  contour_ends: str,
) -> tuple[dict[str, Occupancy], list[str]]:
  """The volumes of structures; notes on what was left out or filled in.

  Slices are as far apart as the contours tell, since a CT beside them need not
  be the one that they were drawn on.
  """
  heights = [
    np.array([c[:, 2].mean() for c in polygons])
    for polygons, _ in contours.values()
    if polygons
  ]
  own_mm = [contours_lib.regular_spacing(each) for each in heights]
  slice_mm = min(filter(None, own_mm), default=None)
  notes = []
  if slice_mm and ct_mm and abs(slice_mm / ct_mm - 1) > 0.1:
    notes.append(
      f'contours are {slice_mm:.1f} mm apart, slices of the CT {ct_mm:.1f} mm: '
      'the contours count'
    )
  if slice_mm is None and heights:
    slice_mm = ct_mm or contours_lib.slice_spacing(np.concatenate(heights))
  occupancies: dict[str, Occupancy] = {}
  for name, (polygons, remarks) in contours.items():
    notes += [f'{name}: {remark}' for remark in remarks]
    if not polygons:
      notes.append(f'{name} left out: it has no contours')
      continue
    try:
      occupancies[name], remarks = contours_lib.occupancy(
        polygons, slice_mm, contour_ends
      )
      notes += [f'{name}: {remark}' for remark in remarks]
    except errors.CohortError as error:
      notes.append(f'{name} left out: {error}')
  return occupancies, notes


def _plans(found: Found) -> tuple[list[Plan], list[str]]:
  """A patient's plans, and notes on what is doubtful or left out."""
  plans, notes, phases = [], [], []
  for doses in found.plans:
    try:
      plan, remarks = _plan(doses, found.rtplans)
    except errors.CohortError as error:
      notes.append(f'plan {_label(doses)} left out: {error}')
      continue
    plans.append(plan)
    notes += remarks
    phases.append((plan.prescription_gy, _fractions(doses, found.rtplans)))
  # Phases of a course are the usual reason.
  if any(len({one for one in each if one}) > 1 for each in zip(*phases)):
    each = ', '.join(
      f'{plan.label}: {_described(*phase)}'
      for plan, phase in zip(plans, phases)
    )
    notes.append(
      f'the prescriptions of the plans differ ({each}), but they are taken for '
      'alternatives, a Pareto set: if they are the phases of one course, set '
      'cohort.sum_plans'
    )
  in_doses = frozenset().union(*(d.plans for p in found.plans for d in p))
  if any(len(_by_rtplan(doses)) > 1 for doses in found.plans):
    notes += [
      f'{plan.path.name}: no dose of this RTPLAN is here: the course lacks it'
      for uid, plan in _rtplans(found).items()
      if uid not in in_doses
    ]
  return plans, notes


def _plan(
  doses: Sequence[Instance], rtplans: Mapping[str, Instance]
) -> tuple[Plan, list[str]]:
  """The plan that doses add up to, and notes on it."""
  label = _label(doses)
  parts: list[Callable[[], Dose]] = []
  prescribed: list[float | None] = []
  notes = [
    f'{dose.path.name}: {len(dose.planes)} files of a plane each are one dose'
    for dose in doses
    if dose.planes
  ]
  known = {
    uid: rtplans[uid]
    for uid in sorted(frozenset().union(*(dose.plans for dose in doses)))
    if uid in rtplans
  }
  for uids, own in _by_rtplan(doses).items():
    its = [known[uid] for uid in sorted(uids & known.keys())]
    for dose, factor in zip(own, rtplan.factors(own, its)):
      parts.append(functools.partial(_dose, dose, factor))
      if factor != 1:
        notes.append(
          f'{dose.path.name}: the dose of one fraction, times {factor:g}'
        )
    told = [rtplan.prescription(one.path) for one in its]
    told += [None] * len(uids - known.keys())
    if own[0].summation == 'PLAN_OVERVIEW':
      outlined = rtplan.outlined_prescription(own[0].path)
      told = [rtplan.highest([*told, outlined])]
    prescribed += told
  if len(prescribed) < 2:
    total = rtplan.highest(prescribed)
  elif None in prescribed:
    total = None
    notes.append(f'{label}: not all of its RTPLANs tell their prescription')
  else:
    total = sum(gy for gy in prescribed if gy)
    each = ' + '.join(f'{gy:g}' for gy in prescribed)
    notes.append(
      f'{label}: the prescriptions of its RTPLANs are added, {each} Gy'
    )
  plan = Plan(
    label=label,
    parts=parts,
    prescription_gy=total,
    uids=[one.uid for dose in doses for one in dose.planes or (dose,)],
    rtplans={uid: one.sop_class for uid, one in known.items()},
  )
  return plan, notes


def _by_rtplan(
  doses: Sequence[Instance],
) -> dict[frozenset[str], list[Instance]]:
  """Doses by the RTPLANs that they refer to."""
  groups: dict[frozenset[str], list[Instance]] = {}
  for dose in doses:
    groups.setdefault(dose.plans, []).append(dose)
  return groups


def _fractions(
  doses: Sequence[Instance], rtplans: Mapping[str, Instance]
) -> int | None:
  """Planned fractions of the RTPLANs of doses; None if one does not tell."""
  uids = frozenset().union(*(dose.plans for dose in doses))
  each: list[int | None] = [None] * len(uids - rtplans.keys())
  for uid in uids & rtplans.keys():
    try:
      each.append(rtplan.fractions(rtplans[uid].path))
    except errors.CohortError:
      each.append(None)
  return None if None in each else sum(filter(None, each)) or None


def _described(prescription_gy: float | None, fractions: int | None) -> str:
  """A phase, for people."""
  told = [f'{prescription_gy:g} Gy'] if prescription_gy else []
  told += [f'{fractions} fractions'] * bool(fractions)
  return ' in '.join(told) or 'not told'


def _label(doses: Sequence[Instance]) -> str:
  """Names a plan: after its dose, or the first dose of each phase."""
  return ' + '.join(own[0].path.name for own in _by_rtplan(doses).values())


def _dose(dose: Instance, factor: float) -> Dose:
  """Reads a dose, times a factor."""
  if dose.planes:
    read = rtdose.read_planes([plane.path for plane in dose.planes])
  else:
    read = rtdose.read_dose(dose.path)
  if factor == 1:
    return read
  top = float(read.values.max()) * factor
  if top > MOST_GY:
    raise errors.CohortError(
      f'{dose.path}: the maximum dose is {top:.4g} Gy in {factor:g} fractions: '
      'is it already the dose of all fractions?'
    )
  return dataclasses.replace(read, values=read.values * np.float32(factor))
