"""What DICOM files are and refer to, read from their headers.

The SOP class, the frame of reference and the referenced UIDs decide what a file
is and where it belongs, never its name, folder or Modality.
"""

import contextlib
import dataclasses
import pathlib
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.io.clutter import is_clutter
from dvhflax.io.dicom import files
from dvhflax.io.import_report import Skipped

CT = '1.2.840.10008.5.1.4.1.1.2'
# All slices in one file, and what was made from such.
_ENHANCED_CT = ('1.2.840.10008.5.1.4.1.1.2.1', '1.2.840.10008.5.1.4.1.1.2.2')
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
  'SOPClassUID', 'SOPInstanceUID', 'SeriesInstanceUID', 'StudyInstanceUID',
  'FrameOfReferenceUID', 'PatientID', 'ImageType', 'ImagePositionPatient',
  'ImageOrientationPatient', 'NumberOfFrames', 'Rows',
  'GridFrameOffsetVector',
  'ReferencedStructureSetSequence', 'ReferencedRTPlanSequence',
  'ReferencedFrameOfReferenceSequence', 'StructureSetROISequence',
  'DoseSummationType',
)  # fmt: skip
# A direction cosine along z of planes that are axial, but for rounding.
_AXIAL = 1 - 1e-3


@dataclasses.dataclass(frozen=True)
class Instance:
  """The header of a file.

  Attributes:
    path: of the file.
    sop_class, uid, series, study, frames, patient_id: its own; a structure set
      may name several frames of reference.
    structure_sets, plans: UIDs that it refers to.
    images: UIDs of the series that a structure set was contoured on.
    summation: DoseSummationType of an RTDOSE.
    groups, beams: numbers of the fraction groups, and pairs of these and of
      the beams, that an RTDOSE is of; none if it does not tell.
    planar: whether an RTDOSE has one plane only.
    planes: of a dose that has a file a plane: all of these, from low to high.
    height_mm: z of a CT slice, or of the plane of a planar RTDOSE.
    localizer: whether a CT image is a scout view.
    axial: whether a CT image is axial; True if it does not tell.
  """

  path: pathlib.Path
  sop_class: str
  uid: str
  series: str
  study: str
  frames: frozenset[str]
  patient_id: str
  structure_sets: frozenset[str]
  plans: frozenset[str]
  images: frozenset[str]
  summation: str
  groups: frozenset[int]
  beams: frozenset[tuple[int, int]]
  planar: bool
  planes: tuple['Instance', ...]
  height_mm: float | None
  localizer: bool
  axial: bool


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
    if is_clutter(path, root):
      continue
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
  if not sop_class:
    # A DICOMDIR has none in its dataset.
    meta = getattr(dataset, 'file_meta', None) or {}
    sop_class = files.text(meta, 'MediaStorageSOPClassUID', path)
  if sop_class not in (CT, RTDOSE, RTSTRUCT, *RTPLANS):
    if not sop_class:
      raise errors.CohortError(f'{path} has no SOPClassUID: truncated?')
    if sop_class in _ENHANCED_CT:
      raise errors.CohortError(
        f'{path} is an Enhanced CT: export it as CT Image Storage, a file a '
        'slice'
      )
    return None
  uid = files.text(dataset, 'SOPInstanceUID', path)
  if not uid:
    raise errors.CohortError(f'{path} has no SOPInstanceUID')
  groups, beams = _delivered(dataset, path)
  planar = sop_class == RTDOSE and _is_planar(dataset, path)
  position = None
  if sop_class == CT or planar:
    position = files.numbers(dataset, 'ImagePositionPatient', path, 3)[2]
  return Instance(
    path=path,
    sop_class=sop_class,
    uid=uid,
    series=files.text(dataset, 'SeriesInstanceUID', path),
    study=files.text(dataset, 'StudyInstanceUID', path),
    frames=_frames(dataset, path),
    patient_id=files.text(dataset, 'PatientID', path),
    structure_sets=_references(dataset, 'ReferencedStructureSetSequence', path),
    plans=_references(dataset, 'ReferencedRTPlanSequence', path),
    images=_images(dataset, path),
    summation=files.code(dataset, 'DoseSummationType', path),
    groups=groups,
    beams=beams,
    planar=planar,
    planes=(),
    height_mm=position,
    localizer=sop_class == CT and _is_localizer(dataset, path),
    axial=sop_class != CT or _is_axial(dataset, path),
  )


def _frames(dataset: Any, path: pathlib.Path) -> frozenset[str]:
  """Frames of reference of a file; of structures, those that contours lie in.

  What a set was contoured in need not be told, and may be more than contours
  lie in; where each region lies is told for sure (PS3.3 C.8.8.5).
  """
  images = [
    dataset,
    *files.items(dataset, 'ReferencedFrameOfReferenceSequence', path),
  ]
  told = {files.text(one, 'FrameOfReferenceUID', path) for one in images} - {''}
  contours = {
    files.text(item, 'ReferencedFrameOfReferenceUID', path)
    for item in files.items(dataset, 'StructureSetROISequence', path)
  } - {''}
  return frozenset(told & contours or told or contours)


def _images(dataset: Any, path: pathlib.Path) -> frozenset[str]:
  """Series that structures were contoured on."""
  images = {
    files.text(series, 'SeriesInstanceUID', path)
    for item in files.items(dataset, 'ReferencedFrameOfReferenceSequence', path)
    for study in files.items(item, 'RTReferencedStudySequence', path)
    for series in files.items(study, 'RTReferencedSeriesSequence', path)
  }
  return frozenset(images - {''})


def _delivered(
  dataset: Any, path: pathlib.Path
) -> tuple[frozenset[int], frozenset[tuple[int, int]]]:
  """Fraction groups and beams that a dose is of, as far as it tells."""
  groups, beams = set(), set()
  # Missing numbers are reported where they are needed.
  with contextlib.suppress(errors.CohortError):
    for plan in files.items(dataset, 'ReferencedRTPlanSequence', path):
      for group in files.items(plan, 'ReferencedFractionGroupSequence', path):
        number = files.whole(group, 'ReferencedFractionGroupNumber', path)
        groups.add(number)
        beams |= {
          (number, files.whole(beam, 'ReferencedBeamNumber', path))
          for beam in files.items(group, 'ReferencedBeamSequence', path)
        }
  return frozenset(groups), frozenset(beams)


def _is_planar(dataset: Any, path: pathlib.Path) -> bool:
  """Whether a dose has one plane; one of DVHs or points alone has none."""
  if files.value(dataset, 'Rows', path) is None:
    return False
  if files.value(dataset, 'NumberOfFrames', path) is None:
    # One of many planes that lacks their number is faulty.
    offsets = files.value(dataset, 'GridFrameOffsetVector', path)
    return offsets is None or np.size(offsets) < 2
  return files.whole(dataset, 'NumberOfFrames', path) == 1


def _is_localizer(dataset: Any, path: pathlib.Path) -> bool:
  return 'LOCALIZER' in files.code(dataset, 'ImageType', path)


def _is_axial(dataset: Any, path: pathlib.Path) -> bool:
  try:
    turn = files.numbers(dataset, 'ImageOrientationPatient', path, 6)
  except errors.CohortError:
    return True
  return bool(abs(turn[0] * turn[4] - turn[1] * turn[3]) > _AXIAL)


def _references(
  dataset: Any, keyword: str, path: pathlib.Path
) -> frozenset[str]:
  uids = {
    files.text(item, 'ReferencedSOPInstanceUID', path)
    for item in files.items(dataset, keyword, path)
  }
  return frozenset(uids - {''})
