"""Sorts DICOM-RT files into patients.

A patient is a structure set with the doses and the CT that belong to it;
several plans are that patient's Pareto set.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import pathlib

import numpy as np

from dvhflax import errors
from dvhflax.io.case import numbered
from dvhflax.io.dicom.headers import (
  CT,
  RTDOSE,
  RTPLANS,
  RTSTRUCT,
  Instance,
  scan,
)
from dvhflax.io.dicom.plans import Sums, by_plan
from dvhflax.io.dicom.stacking import stacked
from dvhflax.io.import_report import Skipped


@dataclasses.dataclass(frozen=True)
class Found:
  """A patient whose files belong together, yet to be read.

  Attributes:
    id: unique among those found together.
    structure_set: the RTSTRUCT.
    plans: RTDOSE files, a tuple a plan: one, or those that add up to it; may
      be empty.
    rtplans: RTPLAN instances by UID.
    slices: of the CT, from low to high; none without a CT.
    notes: on how the files were matched.
  """

  id: str
  structure_set: Instance
  plans: Sequence[tuple[Instance, ...]]
  rtplans: Mapping[str, Instance]
  slices: Sequence[Instance]
  notes: tuple[str, ...]

  @property
  def frames(self) -> frozenset[str]:
    """Frames of reference that structures and doses share."""
    return _shared_frames(self.structure_set, self.plans)


def find_patients(
  root: str | pathlib.Path,
  *,
  sum_beams: bool = False,
  sum_fractions: bool = False,
  sum_plans: bool = False,
  dose_optional: bool = False,
) -> tuple[list[Found], list[Skipped]]:
  """Sorts all files below a folder into patients.

  Args:
    root: searched at any depth.
    sum_beams: accept plans that are stored as a dose a beam, and add these.
    sum_fractions: likewise, for a dose a fraction group.
    sum_plans: take the plans of a structure set for the phases of one course,
      and add these.
    dose_optional: find structure sets without a dose as well.

  Returns:
    The patients in the order of their ids, and what belongs to none.

  Raises:
    CohortError: if there is no such folder.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise errors.CohortError(
      f'there is no folder {root}: give the folder of the patients'
    )
  instances, skipped = scan(root)
  of_class = defaultdict(list)
  for instance in instances:
    of_class[instance.sop_class].append(instance)
  rtplans = {p.uid: p for c in RTPLANS for p in of_class[c]}
  sets = {s.uid: s for s in of_class[RTSTRUCT]}
  grids, unfit = stacked(of_class[RTDOSE])
  skipped += unfit
  doses, notes, unfit = _by_owner(grids, sets, rtplans)
  skipped += unfit
  sums = Sums(sum_beams, sum_fractions, sum_plans)
  found = []
  for uid, structure_set in sets.items():
    plans, unfit = by_plan(doses[uid], sums)
    skipped += unfit
    if not plans and not dose_optional:
      skipped.append(
        Skipped(str(structure_set.path), 'no usable RTDOSE belongs to it')
      )
      continue
    slices, remarks = _slices(
      structure_set, _shared_frames(structure_set, plans), of_class[CT]
    )
    found.append(
      Found(
        id=structure_set.patient_id or 'unnamed',
        structure_set=structure_set,
        plans=plans,
        rtplans=rtplans,
        slices=slices,
        notes=(*notes[uid], *remarks),
      )
    )
  found.sort(key=lambda one: (one.id, one.structure_set.uid))
  return numbered(found), skipped


def _by_owner(
  doses: Iterable[Instance],
  sets: Mapping[str, Instance],
  rtplans: Mapping[str, Instance],
) -> tuple[dict[str, list[Instance]], dict[str, list[str]], list[Skipped]]:
  """Doses and notes by the UID of their structure set, and the others."""
  owned: dict[str, list[Instance]] = defaultdict(list)
  notes: dict[str, list[str]] = defaultdict(list)
  skipped = []
  for dose in doses:
    try:
      owner, remarks = _owner(dose, sets, rtplans)
    except errors.CohortError as error:
      skipped.append(Skipped(str(dose.path), str(error)))
      continue
    owned[owner].append(dose)
    notes[owner] += remarks
  return owned, notes, skipped


def _owner(
  dose: Instance, sets: Mapping[str, Instance], rtplans: Mapping[str, Instance]
) -> tuple[str, list[str]]:
  """UID of the structure set that a dose belongs to, and a note on doubts.

  The set that the dose refers to, else the one that its plan refers to, else
  the only one of the patient in the dose's frame of reference.
  """
  if not dose.frames:
    raise errors.CohortError(
      'has no FrameOfReferenceUID, so its position relative to the structures '
      'is unknown; export it again'
    )
  by_plan = [rtplans[uid].structure_sets for uid in dose.plans & rtplans.keys()]
  named = dose.structure_sets or frozenset().union(*by_plan)
  present = sorted(named & sets.keys())
  notes = []
  if len(present) > 1:
    raise errors.CohortError('refers to several structure sets')
  if not present:
    present = [
      uid
      for uid, one in sets.items()
      if one.frames & dose.frames and one.patient_id == dose.patient_id
    ]
    if len(present) != 1:
      raise errors.CohortError(
        'the structure set that it refers to is not here, and '
        f'{len(present) or "none"} share its frame of reference'
      )
    notes = [f'{dose.path.name} matched by its frame of reference alone']
  owner = sets[present[0]]
  if not owner.frames:
    raise errors.CohortError(
      f'{owner.path} has no FrameOfReferenceUID, so the position of the dose '
      'is unknown; export the structures again'
    )
  if not owner.frames & dose.frames:
    raise errors.CohortError(
      f'its frame of reference is not that of {owner.path}: export the '
      'structures on the image that was planned on'
    )
  if owner.patient_id != dose.patient_id:
    raise errors.CohortError(f'its PatientID is not that of {owner.path}')
  return owner.uid, notes


def _shared_frames(
  structure_set: Instance, plans: Iterable[Iterable[Instance]]
) -> frozenset[str]:
  frames = structure_set.frames
  for plan in plans:
    for dose in plan:
      frames &= dose.frames
  return frames


def _slices(
  structure_set: Instance,
  frames: frozenset[str],
  slices: Iterable[Instance],
) -> tuple[list[Instance], list[str]]:
  """The slices of the CT that structures were contoured on.

  Returns:
    Those of the series that the structure set refers to, else of that of most
    slices of the patient in its frame of reference, from low to high, without
    scout views; notes on what is doubtful.
  """
  series: dict[str, list[Instance]] = defaultdict(list)
  other_ids: set[str] = set()
  for one in slices:
    if one.height_mm is None or one.localizer:
      continue
    named = one.series in structure_set.images
    if not _shares_frame(structure_set, frames, one, named):
      continue
    if named or one.patient_id == structure_set.patient_id:
      series[one.series].append(one)
    else:
      other_ids.add(one.patient_id)
  if not series:
    return [], [
      f'the CT in the frame of reference of the structures has PatientID '
      f'{other!r}, and they do not refer to it: not taken'
      for other in sorted(other_ids)
    ]
  notes = []
  chosen = [uid for uid in series if uid in structure_set.images]
  if structure_set.images and not chosen:
    notes.append(
      'the CT that the structures were contoured on is not here; another one '
      'in their frame of reference is taken'
    )
  among = chosen or list(series)
  # A series of reformatted images may have more of them.
  axial = {uid: sum(one.axial for one in series[uid]) for uid in among}
  best = max(among, key=lambda uid: (axial[uid], len(series[uid])))
  if len(among) > 1:
    notes.append(
      f'{len(among)} CTs share the frame of reference of the structures; that '
      f'of most slices is taken, series {best}'
    )
  own, remarks = _axial_only(series[best])
  ids = {one.patient_id for one in own} - {structure_set.patient_id}
  if ids:
    notes.append(
      f'the CT has PatientID {", ".join(map(repr, sorted(ids)))}, the '
      f'structures {structure_set.patient_id!r}: are they of one patient?'
    )
  if not own[0].frames & frames:
    notes.append(
      'the CT is taken by series and study: no FrameOfReferenceUID tells that '
      'the structures lie in its coordinates'
    )
  return sorted(own, key=lambda one: one.height_mm or 0.0), notes + remarks


def _shares_frame(
  structure_set: Instance, frames: frozenset[str], one: Instance, named: bool
) -> bool:
  """Whether structures lie in the coordinates of a CT slice.

  Where a FrameOfReferenceUID is missing, the reference to the slice's series
  tells, or that both lack it in one study.
  """
  if frames and one.frames:
    return bool(frames & one.frames)
  return named or (
    not structure_set.frames
    and not one.frames
    and bool(one.patient_id and one.study)
    and (one.patient_id, one.study)
    == (structure_set.patient_id, structure_set.study)
  )


def _axial_only(
  series: Sequence[Instance],
) -> tuple[list[Instance], list[str]]:
  """A series without images across the slices that no slice is missing for,
  such as scout views that do not say so; a note on them."""
  axial = [one for one in series if one.axial]
  others = len(series) - len(axial)
  heights = np.unique([one.height_mm for one in axial])
  if not others or len(heights) < 2:
    return list(series), []
  steps = np.diff(heights)
  if steps.max() > 1.5 * np.median(steps):
    return list(series), []
  return axial, [f'{others} images of the CT that are not axial left out']
