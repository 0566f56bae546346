"""What DICOM files say of themselves and of each other, by their headers.

What a file is and what it belongs to is told by its SOP class, its frame of
reference and the UIDs that it refers to, never by its name, its folder or its
Modality.
"""

import dataclasses
import pathlib
from typing import Any

from dvhflax import errors
from dvhflax.io import dicom_files as files
from dvhflax.io.import_report import Skipped

CT = '1.2.840.10008.5.1.4.1.1.2'
RTDOSE = '1.2.840.10008.5.1.4.1.1.481.2'
RTSTRUCT = '1.2.840.10008.5.1.4.1.1.481.3'
# RT Plan and RT Ion Plan.
RTPLANS = ('1.2.840.10008.5.1.4.1.1.481.5', '1.2.840.10008.5.1.4.1.1.481.8')

# What an RTDOSE repeats of the patient and study that it belongs to, but for
# their UIDs.
SHARED = (
  'PatientName', 'PatientID', 'PatientBirthDate', 'PatientSex', 'StudyDate',
  'StudyTime', 'StudyID', 'AccessionNumber', 'ReferringPhysicianName',
  'PositionReferenceIndicator',
)  # fmt: skip
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


def scan(root: pathlib.Path) -> tuple[list[Instance], list[Skipped]]:
  """Headers of all files that matter, each instance once.

  Args:
    root: searched at any depth.

  Returns:
    The headers, and what was passed over.
  """
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
