"""Sorts DICOM-RT files into patients.

A patient is a structure set with the doses and the CT that belong to it;
several plans are that patient's Pareto set.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import pathlib

from dvhflax import errors
from dvhflax.io.dicom_headers import (
  CT,
  RTDOSE,
  RTPLANS,
  RTSTRUCT,
  Instance,
  scan,
)
from dvhflax.io.import_report import Skipped
from dvhflax.io.importing import numbered

# DoseSummationType of a whole plan: an RTPLAN's, or one that is outlined only.
_WHOLE = ('PLAN', 'PLAN_OVERVIEW')


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
  instances, skipped = scan(root)
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
    slices, remarks = _slices(structure_set, of_class[CT])
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


def _slices(
  structure_set: Instance, slices: Iterable[Instance]
) -> tuple[list[Instance], list[str]]:
  """The slices of the CT that structures were contoured on.

  Returns:
    Those of the series that the structure set refers to, else of that of most
    slices in its frame of reference, from low to high; a note if there was a
    choice.
  """
  series: dict[str, list[Instance]] = {}
  for one in slices:
    if one.frames & structure_set.frames and one.height_mm is not None:
      series.setdefault(one.series, []).append(one)
  if not series:
    return [], []
  named = [uid for uid in series if uid in structure_set.images]
  best = max(named or series, key=lambda uid: len(series[uid]))
  notes = []
  if len(named or series) > 1:
    notes = [
      f'{len(named or series)} CTs share the frame of reference of the '
      f'structures; that of most slices is taken, series {best}'
    ]
  return sorted(series[best], key=lambda one: one.height_mm or 0.0), notes
