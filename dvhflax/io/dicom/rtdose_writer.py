"""Writes a dose as an RTDOSE file: RT Dose Storage, DICOM PS3.3 A.18.

What an RTDOSE repeats of its patient, study and frame of reference is taken
from the structure set that the patient was imported from. A patient who did
not come from DICOM has an id alone; the UIDs then follow from it and from the
masks, so that all doses of one patient share them.

By C.8.8.3 a dose whose DoseSummationType is PLAN must refer to an RTPLAN. Where
there is none to refer to it is PLAN_OVERVIEW, which is for doses that have no
RTPLAN, and tells the prescription.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
import hashlib
import os
import re
from typing import Any
import uuid

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds, validate_value

import dvhflax
from dvhflax import dose_volume, errors, files
from dvhflax.io import placement
from dvhflax.io.dicom import files as dicom_files
from dvhflax.io.dicom.headers import RTDOSE, RTSTRUCT, SHARED
from dvhflax.io.resample import MOST_GY, Dose
from dvhflax.patient import Structure

BITS = (16, 32)
# Widths of a DVH's bins in Gy; the finest with so few bins is taken.
_WIDTHS_GY, _MOST_BINS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5), 2000
_LONGEST = 64  # of a value representation LO
_IS = range(-(2**31), 2**31)
# Leading zeros, which are not allowed, are common.
_UID = re.compile(r'[0-9.]{1,64}')


@dataclasses.dataclass(frozen=True)
class Subject:
  """Whom a dose is for.

  Attributes:
    attributes: of the patient, the study and the frame of reference, by DICOM
      keyword.
    prescription_gy: of the (highest) target.
    structure_set: SOPInstanceUID of the RTSTRUCT, None without one.
    roi_numbers: by the names of the cohort's structures.
    rtplan: SOPClassUID and SOPInstanceUID of the RTPLAN, None without one.
  """

  attributes: Mapping[str, str]
  prescription_gy: float
  structure_set: str | None = None
  roi_numbers: Mapping[str, int] = dataclasses.field(default_factory=dict)
  rtplan: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Label:
  """What a dose is.

  Attributes:
    series: SeriesDescription, at most 64 characters.
    comment: DoseComment, at most 64 characters.
    details: ImageComments.
  """

  series: str
  comment: str
  details: str


@dataclasses.dataclass(frozen=True)
class RoiDvh:
  """A structure's cumulative DVH.

  Attributes:
    roi_number: of the structure set.
    bin_gy: width of a bin.
    volumes_cc: `[N]` volume that receives the dose at a bin's start or more.
    min_gy, max_gy, mean_gy: of the structure.
  """

  roi_number: int
  bin_gy: float
  volumes_cc: np.ndarray
  min_gy: float
  max_gy: float
  mean_gy: float


def subject_of(
  patient: str,
  masks: np.ndarray,
  prescription_gy: float,
  provenance: Mapping[str, Any],
  plan: int | None = None,
) -> Subject:
  """Whom a dose of a cohort's or of an imported patient is for.

  Args:
    patient: id.
    masks: `[X, Y, Z, S]`.
    prescription_gy: of the (highest) target.
    provenance: of the patient.
    plan: number of the patient's plan that the dose is of; None for a
      predicted dose, which refers to the structure set's RTPLAN if there is
      just one.
  """
  attributes = {'PatientID': patient, **provenance.get('dicom', {})}
  for keyword in ('StudyInstanceUID', 'FrameOfReferenceUID'):
    if not _UID.fullmatch(attributes.get(keyword, '')):
      attributes[keyword] = _lasting_uid(keyword, patient, masks)
  structure_set = provenance.get('structure_set', '')
  if plan is None:
    owner = provenance
  else:
    # A computed plan has no RTPLAN.
    owner = {} if 'protocol' in provenance else provenance['plans'][plan]
  rtplans = [
    (kind, uid)
    for uid, kind in owner.get('rtplans', {}).items()
    if _UID.fullmatch(uid)
  ]
  return Subject(
    attributes,
    prescription_gy,
    structure_set if _UID.fullmatch(structure_set) else None,
    {n: i for n, i in provenance.get('roi_numbers', {}).items() if i in _IS},
    rtplans[0] if len(rtplans) == 1 else None,
  )


def dvhs(
  dose_gy: np.ndarray,
  masks: np.ndarray,
  structures: Sequence[Structure],
  spacing_mm: tuple[float, float, float],
  roi_numbers: Mapping[str, int],
) -> list[RoiDvh]:
  """DVHs of the structures that a structure set numbers.

  Args:
    dose_gy: `[X, Y, Z]` Gy.
    masks: `[X, Y, Z, S]`, 0 or 1.
    structures: `[S]`.
    spacing_mm: voxel size.
    roi_numbers: by name.

  Raises:
    CohortError: for a dose that is no number or larger than any dose.
  """
  _check(dose_gy)
  voxel_cc = float(np.prod(spacing_mm)) / 1000
  found = []
  for channel, structure in enumerate(structures):
    inside = np.maximum(dose_gy[masks[..., channel] > 0], 0)
    if structure.name not in roi_numbers or not inside.size:
      continue
    top = float(inside.max())
    bin_gy = next(w for w in _WIDTHS_GY if top <= w * _MOST_BINS)
    starts = bin_gy * np.arange(int(top / bin_gy) + 2)
    shares = dose_volume.volume_fraction_at_dose(inside, starts)
    found.append(
      RoiDvh(
        roi_numbers[structure.name],
        bin_gy,
        shares.astype(np.float64) * inside.size * voxel_cc,
        float(inside.min()),
        top,
        float(inside.mean(dtype=np.float64)),
      )
    )
  return found


def write_dose(
  path: str | os.PathLike[str],
  dose: Dose,
  subject: Subject,
  label: Label,
  curves: Sequence[RoiDvh] = (),
  *,
  bits: int = 32,
) -> None:
  """Writes a dose, whole or not at all.

  Args:
    path: of the file, which is replaced.
    dose: on axes that are evenly spaced in x and y; what is negative is
      written as 0.
    subject: whom it is for.
    label: what it is.
    curves: DVHs; left out without a structure set, whose ROIs they are of.
    bits: 16 or 32 a voxel. The dose is rounded to the largest dose divided by
      2^bits - 1.

  Raises:
    CohortError: for a dose that is no number or larger than any dose, or that
      another number of bits is asked for.
  """
  if bits not in BITS:
    raise errors.CohortError(f'{path}: a dose has 16 or 32 bits, not {bits}')
  _check(dose.values)
  dataset = Dataset()
  _describe(dataset, subject, label)
  _place(dataset, dose)
  _store(dataset, dose.values, bits)
  _refer(dataset, subject)
  if subject.structure_set and curves:
    dataset.DVHSequence = [_dvh_item(curve) for curve in curves]
  meta = FileMetaDataset()
  meta.TransferSyntaxUID = ExplicitVRLittleEndian
  meta.MediaStorageSOPClassUID = dataset.SOPClassUID
  meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
  with files.replacing(path) as aside, dicom_files.quiet():
    whole = FileDataset(aside, dataset, file_meta=meta, preamble=b'\0' * 128)
    whole.save_as(aside, enforce_file_format=True)


def _check(dose_gy: np.ndarray) -> None:
  if not np.isfinite(dose_gy).all():
    raise errors.CohortError('a dose that is not finite cannot be written')
  top = float(dose_gy.max())
  if top > MOST_GY:
    raise errors.CohortError(f'a dose of {top:.4g} Gy cannot be written')


def _describe(dataset: Dataset, subject: Subject, label: Label) -> None:
  """Patient, study, series, frame of reference, equipment, SOP common."""
  now = datetime.datetime.now()
  date, time = now.strftime('%Y%m%d'), now.strftime('%H%M%S')
  dataset.SpecificCharacterSet = 'ISO_IR 192'
  dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
  dataset.SOPClassUID = RTDOSE
  dataset.SOPInstanceUID = generate_uid(None)
  for keyword in SHARED:
    setattr(dataset, keyword, _valid(keyword, subject.attributes))
  with dicom_files.quiet():  # of leading zeros
    for keyword in ('StudyInstanceUID', 'FrameOfReferenceUID'):
      setattr(dataset, keyword, subject.attributes[keyword])
  dataset.Modality = 'RTDOSE'
  dataset.SeriesInstanceUID = generate_uid(None)
  dataset.SeriesNumber = 1
  dataset.SeriesDate, dataset.SeriesTime = date, time
  dataset.SeriesDescription = label.series[:_LONGEST]
  dataset.OperatorsName = ''
  dataset.Manufacturer = dataset.ManufacturerModelName = 'dvhflax'
  dataset.SoftwareVersions = dvhflax.__version__
  dataset.InstanceNumber = 1
  dataset.ContentDate, dataset.ContentTime = date, time
  dataset.DoseComment = label.comment[:_LONGEST]
  dataset.ImageComments = label.details


def _place(dataset: Dataset, dose: Dose) -> None:
  """Image plane and frames: axial planes, from inferior to superior."""
  x_mm, y_mm, z_mm = placement.spacing(dose.axes)
  x, y, z = dose.axes
  dataset.ImagePositionPatient = _decimals([x[0], y[0], z[0]])
  dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
  dataset.PixelSpacing = _decimals([y_mm, x_mm])
  dataset.SliceThickness = _decimals([z_mm])
  dataset.GridFrameOffsetVector = _decimals(z - z[0])
  dataset.FrameIncrementPointer = pydicom.tag.Tag('GridFrameOffsetVector')


def _store(dataset: Dataset, values: np.ndarray, bits: int) -> None:
  """Pixels and their scaling."""
  highest = 2**bits - 1
  top = max(float(values.max()), 0.0)
  # A dose of 0 everywhere needs a scaling all the same.
  text = format_number_as_ds(top / highest if top else 1.0)
  stored = np.rint(values.transpose(2, 1, 0).astype(np.float64) / float(text))
  stored = stored.clip(0, highest).astype(f'<u{bits // 8}')
  dataset.SamplesPerPixel = 1
  dataset.PhotometricInterpretation = 'MONOCHROME2'
  dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape
  dataset.BitsAllocated = dataset.BitsStored = bits
  dataset.HighBit = bits - 1
  dataset.PixelRepresentation = 0
  dataset.DoseUnits = 'GY'
  dataset.DoseType = 'PHYSICAL'
  dataset.DoseGridScaling = text
  dataset.add_new('PixelData', 'OW', stored.tobytes())


def _refer(dataset: Dataset, subject: Subject) -> None:
  """The RTPLAN, or what stands for it, and the structure set."""
  if subject.structure_set:
    dataset.ReferencedStructureSetSequence = [
      _reference(RTSTRUCT, subject.structure_set)
    ]
  if subject.rtplan:
    dataset.DoseSummationType = 'PLAN'
    dataset.ReferencedRTPlanSequence = [_reference(*subject.rtplan)]
    return
  dataset.DoseSummationType = 'PLAN_OVERVIEW'
  prescription = Dataset()
  prescription.TotalPrescriptionDose = subject.prescription_gy
  prescription.EntityLongLabel = 'target'
  overview = Dataset()
  overview.PlanOverviewIndex = 1
  overview.RTPlanLabel = 'dvhflax'
  overview.PrescriptionOverviewSequence = [prescription]
  overview.TreatmentSite = ''
  overview.TreatmentSiteCodeSequence = []
  if subject.structure_set:
    overview.ReferencedStructureSetSequence = [
      _reference(RTSTRUCT, subject.structure_set)
    ]
  dataset.PlanOverviewSequence = [overview]


def _reference(sop_class: str, uid: str) -> Dataset:
  item = Dataset()
  item.ReferencedSOPClassUID = sop_class
  with dicom_files.quiet():  # of leading zeros
    item.ReferencedSOPInstanceUID = uid
  return item


def _dvh_item(curve: RoiDvh) -> Dataset:
  """An item of the DVHSequence (PS3.3 C.8.8.4)."""
  roi = Dataset()
  roi.ReferencedROINumber = curve.roi_number
  roi.DVHROIContributionType = 'INCLUDED'
  item = Dataset()
  item.DVHReferencedROISequence = [roi]
  item.DVHType = 'CUMULATIVE'
  item.DoseUnits = 'GY'
  item.DoseType = 'PHYSICAL'
  item.DVHDoseScaling = 1
  item.DVHVolumeUnits = 'CM3'
  item.DVHNumberOfBins = len(curve.volumes_cc)
  width = f'{curve.bin_gy:.10g}'
  # Short numbers: a value has at most 65,534 bytes.
  item.DVHData = [
    text for volume in curve.volumes_cc for text in (width, f'{volume:.7g}')
  ]
  item.DVHMinimumDose = f'{curve.min_gy:.8g}'
  item.DVHMaximumDose = f'{curve.max_gy:.8g}'
  item.DVHMeanDose = f'{curve.mean_gy:.8g}'
  return item


def _decimals(numbers: Sequence[float] | np.ndarray) -> Any:
  """Decimal strings of at most 16 characters."""
  texts = [format_number_as_ds(round(float(n), 9)) for n in numbers]
  return texts if len(texts) > 1 else texts[0]


def _valid(keyword: str, attributes: Mapping[str, str]) -> str:
  """An attribute of the source's, '' where it is absent or breaks its VR."""
  value = attributes.get(keyword, '')
  vr = pydicom.datadict.dictionary_VR(keyword)
  try:
    validate_value(vr, value, pydicom.config.RAISE)
  except ValueError:
    return ''
  return value


def _lasting_uid(keyword: str, patient: str, masks: np.ndarray) -> str:
  """A UID that is the same whenever it is asked for."""
  digest = hashlib.sha256(np.ascontiguousarray(masks).tobytes()).hexdigest()
  name = f'dvhflax {keyword} {patient} {digest}'
  return f'2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}'
