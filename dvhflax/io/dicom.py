"""Reads patients from DICOM-RT: CT, RTSTRUCT, RTDOSE and RTPLAN.

Which files make a patient is told by `dicom_matching`. Coordinates are DICOM's
own: mm, LPS.
"""

from collections.abc import Iterable, Mapping, Sequence
import contextlib
import functools
import itertools
import pathlib
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.io import contours as contours_lib
from dvhflax.io import dicom_ct, rtdose, rtstruct
from dvhflax.io import dicom_files as files
from dvhflax.io import names as names_lib
from dvhflax.io.dicom_headers import SHARED, Instance
from dvhflax.io.dicom_matching import Found, find_patients
from dvhflax.io.importing import Case, Plan
from dvhflax.io.resample import Occupancy

# What `cohort.imported.open_folder` wants of the module of a source.
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
    contour_ends: one of `contours.ENDS`.

  Raises:
    CohortError: for a faulty file, which it names.
  """
  where = found.structure_set.path
  dataset = files.read(where)
  frame = _frame(found)
  rois, remarks = rtstruct.rois(dataset, where, frozenset({frame}))
  match = names_lib.match([roi.name for roi in rois], structures, rows)
  notes = [*found.notes, *remarks, *names_lib.describe(match)]
  notes += [
    f'{dose.path.name}: the RTPLAN that it refers to is not here'
    for dose in itertools.chain(*found.plans)
    if dose.plans - found.rtplans.keys()
  ]
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
    plans=[_plan(doses, found.rtplans) for doses in found.plans],
    notes=notes + remarks,
    provenance={
      'source': 'dicom',
      'structure_set': found.structure_set.uid,
      'names': {name: rois[i].name for name, i in match.chosen.items()},
      'roi_numbers': {n: rois[i].number for n, i in match.chosen.items()},
      'rtplans': {uid: plan.sop_class for uid, plan in _rtplans(found).items()},
      'dicom': {**_shared(dataset, where), 'FrameOfReferenceUID': frame},
    },
    prescription_gy=None if found.plans else _prescription_of_set(found),
    ct=ct,
  )


def _shared(dataset: Any, where: pathlib.Path) -> dict[str, str]:
  """What doses repeat of a structure set; nothing here needs to be there."""
  shared = dict.fromkeys((*SHARED, 'StudyInstanceUID'), '')
  for keyword in shared:
    with contextlib.suppress(errors.CohortError):
      shared[keyword] = files.text(dataset, keyword, where)
  return shared


def _frame(found: Found) -> str:
  """The one frame of reference that structures and doses share."""
  frames = found.structure_set.frames
  for plan in found.plans:
    for dose in plan:
      frames &= dose.frames
  if len(frames) != 1:
    raise errors.CohortError(
      f'{found.structure_set.path} and its doses share '
      f'{len(frames) or "no"} frames of reference: export the structures and '
      'the doses of one image'
    )
  return next(iter(frames))


def _rtplans(found: Found) -> dict[str, Instance]:
  """The RTPLANs that refer to a structure set, by UID."""
  return {
    uid: plan
    for uid, plan in found.rtplans.items()
    if found.structure_set.uid in plan.structure_sets
  }


def _prescription_of_set(found: Found) -> float | None:
  """The highest prescription of the RTPLANs that refer to a structure set."""
  return _highest(_prescription(p.path) for p in _rtplans(found).values())


def _prescription(path: pathlib.Path) -> float | None:
  """The highest TargetPrescriptionDose of an RTPLAN; None if it has none."""
  dataset = files.read(path)
  return _highest(
    float(files.numbers(item, 'TargetPrescriptionDose', path, 1)[0])
    for item in files.items(dataset, 'DoseReferenceSequence', path)
    if files.text(item, 'DoseReferenceType', path) == 'TARGET'
    and files.value(item, 'TargetPrescriptionDose', path) is not None
  )


def _outlined_prescription(path: pathlib.Path) -> float | None:
  """The highest prescription of a PlanOverviewSequence; None if it has none."""
  dataset = files.read(path, ('PlanOverviewSequence',))
  return _highest(
    float(files.numbers(item, 'TotalPrescriptionDose', path, 1)[0])
    for overview in files.items(dataset, 'PlanOverviewSequence', path)
    for item in files.items(overview, 'PrescriptionOverviewSequence', path)
  )


def _highest(doses_gy: Iterable[float | None]) -> float | None:
  """The highest of the doses that are told; one of 0 tells nothing."""
  return max((dose for dose in doses_gy if dose and dose > 0), default=None)


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


def _plan(doses: Sequence[Instance], rtplans: Mapping[str, Instance]) -> Plan:
  known = sorted(frozenset.union(*(d.plans for d in doses)) & rtplans.keys())
  if doses[0].summation == 'BEAM':
    _require_all_beams(doses, [rtplans[uid] for uid in known])
  prescribed = [_prescription(rtplans[uid].path) for uid in known]
  if doses[0].summation == 'PLAN_OVERVIEW':
    prescribed.append(_outlined_prescription(doses[0].path))
  return Plan(
    label=doses[0].path.name,
    parts=[functools.partial(rtdose.read_dose, dose.path) for dose in doses],
    prescription_gy=_highest(prescribed),
    uids=[dose.uid for dose in doses],
    rtplans={uid: rtplans[uid].sop_class for uid in known},
  )


def _require_all_beams(
  doses: Sequence[Instance], rtplans: Sequence[Instance]
) -> None:
  """Raises a CohortError unless there is a dose of every beam of a plan."""
  where = doses[0].path
  if not rtplans:
    raise errors.CohortError(
      f'{where}: without the RTPLAN nobody knows whether all beams are there'
    )
  path = rtplans[0].path
  groups = files.items(files.read(path), 'FractionGroupSequence', path)
  beams = sum(
    int(files.numbers(group, 'NumberOfBeams', path, 1)[0]) for group in groups
  )
  if beams != len(doses):
    raise errors.CohortError(
      f'{where}: {len(doses)} doses of beams, but {path} has {beams} beams'
    )
