"""Reads patients from DICOM-RT: CT, RTSTRUCT, RTDOSE and RTPLAN.

A patient is a structure set with the doses that belong to it; several plans
are that patient's Pareto set. What a file is and what it belongs to is told
by its SOP class, its frame of reference and the UIDs that it refers to, never
by its name, its folder or its Modality. Coordinates are DICOM's own: mm, LPS.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
import contextlib
import dataclasses
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
from dvhflax.io.import_report import Skipped
from dvhflax.io.importing import Case, Plan, numbered
from dvhflax.io.resample import Occupancy

CT = '1.2.840.10008.5.1.4.1.1.2'
RTDOSE = '1.2.840.10008.5.1.4.1.1.481.2'
RTSTRUCT = '1.2.840.10008.5.1.4.1.1.481.3'
# DoseSummationType of a whole plan: an RTPLAN's, or one that is outlined only.
_WHOLE = ('PLAN', 'PLAN_OVERVIEW')
# What an RTDOSE repeats of the patient and study that it belongs to.
_SHARED = (
  'PatientName', 'PatientID', 'PatientBirthDate', 'PatientSex',
  'StudyInstanceUID', 'StudyDate', 'StudyTime', 'StudyID', 'AccessionNumber',
  'ReferringPhysicianName', 'PositionReferenceIndicator',
)  # fmt: skip
# RT Plan and RT Ion Plan.
RTPLANS = ('1.2.840.10008.5.1.4.1.1.481.5', '1.2.840.10008.5.1.4.1.1.481.8')

_HEADER = (
  'SOPClassUID', 'SOPInstanceUID', 'SeriesInstanceUID', 'FrameOfReferenceUID',
  'PatientID', 'ImagePositionPatient', 'ReferencedStructureSetSequence',
  'ReferencedRTPlanSequence', 'ReferencedFrameOfReferenceSequence',
  'DoseSummationType',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Instance:
  """What a file says of itself and of others.

  Attributes:
    path: of the file.
    sop_class, uid, series, frames, patient_id: its own; a structure set may
      name several frames of reference.
    structure_sets, plans: UIDs that it refers to.
    images: UIDs of the series that a structure set was contoured on.
    summation: DoseSummationType of an RTDOSE.
    height_mm: z of a CT slice.
  """

  path: pathlib.Path
  sop_class: str
  uid: str
  series: str
  frames: frozenset[str]
  patient_id: str
  structure_sets: frozenset[str]
  plans: frozenset[str]
  images: frozenset[str]
  summation: str
  height_mm: float | None


@dataclasses.dataclass(frozen=True)
class Found:
  """A patient whose files belong together, yet to be read.

  Attributes:
    id: unique among those found together.
    structure_set: the RTSTRUCT.
    plans: RTDOSE files, a tuple a plan: one, or its beams; may be empty.
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


def find_patients(
  root: str | pathlib.Path,
  *,
  sum_beams: bool = False,
  dose_optional: bool = False,
) -> tuple[list[Found], list[Skipped]]:
  """Sorts all files below a folder into patients.

  Args:
    root: searched at any depth.
    sum_beams: accept plans that are stored as a dose a beam, and add these.
    dose_optional: find structure sets without a dose as well.

  Returns:
    The patients in the order of their ids, and what belongs to none.

  Raises:
    CohortError: if there is no such folder.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise errors.CohortError(f'{root} is no folder: set cohort.raw to one')
  instances, skipped = _scan(root)
  of_class = defaultdict(list)
  for instance in instances:
    of_class[instance.sop_class].append(instance)
  rtplans = {p.uid: p for c in RTPLANS for p in of_class[c]}
  sets = {s.uid: s for s in of_class[RTSTRUCT]}
  doses, notes, unfit = _by_owner(of_class[RTDOSE], sets, rtplans)
  skipped += unfit
  found = []
  for uid, structure_set in sets.items():
    plans, unfit = _plans(doses[uid], sum_beams)
    skipped += unfit
    if not plans and not dose_optional:
      skipped.append(
        Skipped(str(structure_set.path), 'no usable RTDOSE belongs to it')
      )
      continue
    slices, remarks = dicom_ct.choose(structure_set, of_class[CT])
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


def read_patient(
  found: Found,
  structures: Sequence[str],
  rows: Sequence[tuple[str, str]] = (),
) -> Case:
  """Reads a patient's structures; its doses are read when asked for.

  Args:
    found: see `find_patients`.
    structures: names of the cohort's structures.
    rows: the user's table of names, see `names.read_table`.

  Raises:
    CohortError: for a faulty file, which it names.
  """
  where = found.structure_set.path
  dataset = files.read(where)
  frame = _frame(found)
  rois = rtstruct.rois(dataset, where, frozenset({frame}))
  match = names_lib.match([roi.name for roi in rois], structures, rows)
  notes = [*found.notes, *names_lib.describe(match)]
  notes += [
    f'{dose.path.name}: the RTPLAN that it refers to is not here'
    for dose in itertools.chain(*found.plans)
    if dose.plans - found.rtplans.keys()
  ]
  contours = {
    name: rtstruct.contours(rois[index], where)
    for name, index in match.chosen.items()
  }
  heights = [one.height_mm for one in found.slices]
  occupancies, remarks = _occupancies(
    contours, contours_lib.slice_spacing(np.array(heights)) if heights else None
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
  shared = dict.fromkeys(_SHARED, '')
  for keyword in _SHARED:
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
  told = [prescription_gy(plan.path) for plan in _rtplans(found).values()]
  return max((gray for gray in told if gray is not None), default=None)


def prescription_gy(path: pathlib.Path) -> float | None:
  """The highest TargetPrescriptionDose of an RTPLAN; None if it has none."""
  dataset = files.read(path)
  doses = [
    float(files.numbers(item, 'TargetPrescriptionDose', path, 1)[0])
    for item in files.items(dataset, 'DoseReferenceSequence', path)
    if files.text(item, 'DoseReferenceType', path) == 'TARGET'
    and files.value(item, 'TargetPrescriptionDose', path) is not None
  ]
  positive = [dose for dose in doses if dose > 0]
  return max(positive) if positive else None


def _scan(root: pathlib.Path) -> tuple[list[Instance], list[Skipped]]:
  """Headers of all files that matter, each instance once."""
  instances: dict[str, Instance] = {}
  skipped = []
  others = 0
  for path in sorted(p for p in root.rglob('*') if p.is_file()):
    try:
      if not files.looks_like_dicom(path):
        others += 1
        continue
      instance = _instance(path)
    except OSError as error:
      skipped.append(Skipped(str(path), error.strerror or 'cannot be read'))
      continue
    except errors.CohortError as error:
      skipped.append(Skipped(str(path), str(error)))
      continue
    if instance is None:
      others += 1
    elif instance.uid in instances:
      first = instances[instance.uid].path
      skipped.append(Skipped(str(path), f'same SOPInstanceUID as {first}'))
    else:
      instances[instance.uid] = instance
  if others:
    skipped.append(
      Skipped(f'{others} files', 'neither CT, RTSTRUCT, RTDOSE nor RTPLAN')
    )
  return list(instances.values()), skipped


def _instance(path: pathlib.Path) -> Instance | None:
  """A file's header; None for a SOP class that is not used here."""
  dataset = files.read(path, _HEADER)
  sop_class = files.text(dataset, 'SOPClassUID', path)
  if sop_class not in (CT, RTDOSE, RTSTRUCT, *RTPLANS):
    if not sop_class:
      raise errors.CohortError(f'{path} has no SOPClassUID: truncated?')
    return None
  uid = files.text(dataset, 'SOPInstanceUID', path)
  if not uid:
    raise errors.CohortError(f'{path} has no SOPInstanceUID')
  frames = {files.text(dataset, 'FrameOfReferenceUID', path)}
  images = set()
  for item in files.items(dataset, 'ReferencedFrameOfReferenceSequence', path):
    frames.add(files.text(item, 'FrameOfReferenceUID', path))
    for study in files.items(item, 'RTReferencedStudySequence', path):
      for series in files.items(study, 'RTReferencedSeriesSequence', path):
        images.add(files.text(series, 'SeriesInstanceUID', path))
  position = None
  if sop_class == CT:
    position = files.numbers(dataset, 'ImagePositionPatient', path, 3)[2]
  return Instance(
    path=path,
    sop_class=sop_class,
    uid=uid,
    series=files.text(dataset, 'SeriesInstanceUID', path),
    frames=frozenset(frames - {''}),
    patient_id=files.text(dataset, 'PatientID', path),
    structure_sets=_references(dataset, 'ReferencedStructureSetSequence', path),
    plans=_references(dataset, 'ReferencedRTPlanSequence', path),
    images=frozenset(images - {''}),
    summation=files.text(dataset, 'DoseSummationType', path),
    height_mm=position,
  )


def _references(
  dataset: Any, keyword: str, path: pathlib.Path
) -> frozenset[str]:
  uids = {
    files.text(item, 'ReferencedSOPInstanceUID', path)
    for item in files.items(dataset, keyword, path)
  }
  return frozenset(uids - {''})


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
    raise errors.CohortError('has no FrameOfReferenceUID')
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
  if not owner.frames & dose.frames:
    raise errors.CohortError(
      f'its frame of reference is not that of {owner.path}: export the '
      'structures on the image that was planned on'
    )
  if owner.patient_id != dose.patient_id:
    raise errors.CohortError(f'its PatientID is not that of {owner.path}')
  return owner.uid, notes


def _plans(
  doses: Iterable[Instance], sum_beams: bool
) -> tuple[list[tuple[Instance, ...]], list[Skipped]]:
  """A structure set's doses by plan, and those that are no plan's."""
  plans: list[tuple[Instance, ...]] = []
  beams: dict[frozenset[str], list[Instance]] = defaultdict(list)
  skipped = []
  for dose in doses:
    if dose.summation in _WHOLE:
      plans.append((dose,))
    elif dose.summation == 'BEAM' and dose.plans:
      beams[dose.plans].append(dose)
    else:
      skipped.append(
        Skipped(
          str(dose.path),
          f'DoseSummationType is {dose.summation or "missing"!r}, wanted PLAN: '
          "export the plan's total dose",
        )
      )
  complete = {dose.plans for plan in plans for dose in plan}
  for of_plan, parts in beams.items():
    if sum_beams and of_plan not in complete:
      plans.append(tuple(parts))
      continue
    why = (
      'the dose of one beam; the total dose of its plan is there'
      if of_plan in complete
      else 'the dose of one beam: export the total dose, or set '
      'cohort.sum_beams'
    )
    skipped += [Skipped(str(part.path), why) for part in parts]
  return plans, skipped


def _occupancies(
  contours: Mapping[str, tuple[list[np.ndarray], list[str]]],
  slice_mm: float | None,
) -> tuple[dict[str, Occupancy], list[str]]:
  """The volumes of structures; notes on what was left out or filled in.

  Without a CT, slices are as far apart as most contours of all structures.
  """
  slice_mm = slice_mm or contours_lib.slice_spacing(
    np.array([c[0, 2] for polygons, _ in contours.values() for c in polygons])
  )
  occupancies: dict[str, Occupancy] = {}
  notes = []
  for name, (polygons, remarks) in contours.items():
    notes += [f'{name}: {remark}' for remark in remarks]
    if not polygons:
      notes.append(f'{name} left out: it has no contours')
      continue
    try:
      occupancies[name], remarks = contours_lib.occupancy(polygons, slice_mm)
      notes += [f'{name}: {remark}' for remark in remarks]
    except errors.CohortError as error:
      notes.append(f'{name} left out: {error}')
  return occupancies, notes


def _plan(doses: Sequence[Instance], rtplans: Mapping[str, Instance]) -> Plan:
  known = sorted(frozenset.union(*(d.plans for d in doses)) & rtplans.keys())
  if doses[0].summation == 'BEAM':
    _require_all_beams(doses, [rtplans[uid] for uid in known])
  prescribed = [prescription_gy(rtplans[uid].path) for uid in known]
  if doses[0].summation == 'PLAN_OVERVIEW':
    prescribed.append(_outlined_prescription(doses[0].path))
  told = [dose for dose in prescribed if dose is not None]
  return Plan(
    label=doses[0].path.name,
    parts=[functools.partial(rtdose.read_dose, dose.path) for dose in doses],
    prescription_gy=max(told) if told else None,
    uids=[dose.uid for dose in doses],
    rtplans={uid: rtplans[uid].sop_class for uid in known},
  )


def _outlined_prescription(path: pathlib.Path) -> float | None:
  """The highest prescription of a PlanOverviewSequence; None if it has none."""
  dataset = files.read(path, ('PlanOverviewSequence',))
  doses = [
    float(files.numbers(item, 'TotalPrescriptionDose', path, 1)[0])
    for overview in files.items(dataset, 'PlanOverviewSequence', path)
    for item in files.items(overview, 'PrescriptionOverviewSequence', path)
  ]
  return max((dose for dose in doses if dose > 0), default=None)


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
