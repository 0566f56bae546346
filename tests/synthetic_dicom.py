"""Writes DICOM-RT files of analytic shapes, for tests."""

import functools
import io

import contourpy
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dvhflax.io.dicom import headers as dicom_headers

FRAME = '1.2.3.4.5'
STRUCTURE_SET = '1.2.3.4.6'
PLAN = '1.2.3.4.7'


def circle(radius, z, *, centre=(0.0, 0.0), points=200):
  """`[N, 3]` contour in mm."""
  angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
  x, y = centre
  return np.stack(
    [
      x + radius * np.cos(angle),
      y + radius * np.sin(angle),
      np.full(points, z),
    ],
    1,
  )


def heights(spacing, half):
  """Slice positions of a shape from -half to half, half a slice from its
  ends."""
  count = round(2 * half / spacing)
  return (np.arange(count) - (count - 1) / 2) * spacing


def sphere(radius, spacing, **options):
  return [
    circle(np.sqrt(radius**2 - z**2), z, **options)
    for z in heights(spacing, radius)
  ]


def cylinder(radius, half, spacing, **options):
  return [circle(radius, z, **options) for z in heights(spacing, half)]


def cone(radius, half, spacing, **options):
  """Radius `radius` at -half, 0 at half."""
  return [
    circle(radius * (half - z) / (2 * half), z, **options)
    for z in heights(spacing, half)
  ]


def _base(sop_class, uid, patient, frame):
  dataset = Dataset()
  dataset.file_meta = FileMetaDataset()
  dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
  dataset.file_meta.MediaStorageSOPClassUID = sop_class
  dataset.file_meta.MediaStorageSOPInstanceUID = uid
  dataset.SOPClassUID = sop_class
  dataset.SOPInstanceUID = uid
  dataset.StudyInstanceUID = f'{frame}.1'
  dataset.SeriesInstanceUID = f'{uid}.1'
  dataset.PatientID = patient
  dataset.FrameOfReferenceUID = frame
  # On purpose: nothing may go by it.
  dataset.Modality = 'OT'
  return dataset


def _item(**values):
  item = Dataset()
  for keyword, value in values.items():
    setattr(item, keyword, value)
  return item


def save(dataset, path):
  path.parent.mkdir(parents=True, exist_ok=True)
  dataset.save_as(path, enforce_file_format=True)
  return path


def structure_set(
  structures, *, uid=STRUCTURE_SET, patient='anna', frame=FRAME
):
  """An RTSTRUCT of `{name: [contour, ...]}`."""
  dataset = _base(dicom_headers.RTSTRUCT, uid, patient, frame)
  del dataset.FrameOfReferenceUID
  dataset.ReferencedFrameOfReferenceSequence = [
    _item(FrameOfReferenceUID=frame)
  ]
  dataset.StructureSetROISequence = [
    _item(ROINumber=i, ReferencedFrameOfReferenceUID=frame, ROIName=name)
    for i, name in enumerate(structures, 1)
  ]
  dataset.ROIContourSequence = [
    _item(
      ReferencedROINumber=i,
      ContourSequence=[
        _item(
          ContourGeometricType='CLOSED_PLANAR',
          NumberOfContourPoints=len(contour),
          ContourData=[f'{v:.5f}' for v in np.ravel(contour)],
        )
        for contour in contours
      ],
    )
    for i, contours in enumerate(structures.values(), 1)
  ]
  return dataset


def dose(
  values,
  *,
  origin=(-60.0, -60.0, -60.0),
  spacing=(3.0, 3.0, 3.0),
  uid='1.2.3.4.8',
  patient='anna',
  frame=FRAME,
  refers_to=STRUCTURE_SET,
  plan=PLAN,
  absolute_offsets=False,
  bits=32,
  **attributes,
):
  """An RTDOSE of `[X, Y, Z]` Gy."""
  dataset = _base(dicom_headers.RTDOSE, uid, patient, frame)
  scaling = max(float(values.max()), 1e-3) / (2**bits - 2)
  stored = np.rint(values.transpose(2, 1, 0).astype(np.float64) / scaling)
  dataset.PixelData = stored.astype(f'<u{bits // 8}').tobytes()
  dataset['PixelData'].VR = 'OW'
  dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape
  dataset.BitsAllocated = dataset.BitsStored = bits
  dataset.HighBit = bits - 1
  dataset.PixelRepresentation = 0
  dataset.SamplesPerPixel = 1
  dataset.PhotometricInterpretation = 'MONOCHROME2'
  dataset.DoseGridScaling = f'{scaling:.10g}'
  dataset.DoseUnits = 'GY'
  dataset.DoseType = 'PHYSICAL'
  dataset.DoseSummationType = 'PLAN'
  dataset.ImagePositionPatient = list(origin)
  dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
  dataset.PixelSpacing = [spacing[1], spacing[0]]
  offsets = np.arange(stored.shape[0]) * spacing[2]
  offsets += origin[2] if absolute_offsets else 0
  dataset.GridFrameOffsetVector = offsets.tolist()
  if refers_to:
    dataset.ReferencedStructureSetSequence = [
      _item(ReferencedSOPInstanceUID=refers_to)
    ]
  if plan:
    dataset.ReferencedRTPlanSequence = [_item(ReferencedSOPInstanceUID=plan)]
  for keyword, value in attributes.items():
    setattr(dataset, keyword, value)
  return dataset


def plan(
  prescription_gy,
  *,
  uid=PLAN,
  patient='anna',
  beams=2,
  refers_to=STRUCTURE_SET,
  groups=None,
  imaging=(),
):
  """An RTPLAN with a target's prescription and a lesser point's.

  Args:
    groups: `{fraction group: (fractions, numbers of beams)}`; by default one of
      `beams` beams that are not listed.
    imaging: numbers of beams that image only.
  """
  dataset = _base(dicom_headers.RTPLANS[0], uid, patient, FRAME)
  dataset.DoseReferenceSequence = [
    _item(DoseReferenceType='TARGET', TargetPrescriptionDose=value)
    for value in (prescription_gy / 2, prescription_gy)
  ] + [_item(DoseReferenceType='ORGAN_AT_RISK')]
  dataset.FractionGroupSequence = [_item(NumberOfBeams=beams)]
  if groups:
    dataset.FractionGroupSequence = [
      _item(
        FractionGroupNumber=number,
        NumberOfFractionsPlanned=fractions,
        NumberOfBeams=len(listed),
        ReferencedBeamSequence=[
          _item(ReferencedBeamNumber=beam) for beam in listed
        ],
      )
      for number, (fractions, listed) in groups.items()
    ]
    dataset.BeamSequence = [
      _item(
        BeamNumber=beam,
        TreatmentDeliveryType='SETUP' if beam in imaging else 'TREATMENT',
      )
      for _, listed in groups.values()
      for beam in listed
    ]
  dataset.ReferencedStructureSetSequence = [
    _item(ReferencedSOPInstanceUID=refers_to)
  ]
  return dataset


def refer_to_part(dataset, group, *beams):
  """Lets a dose refer to a fraction group, or to beams, of its plan."""
  dataset.ReferencedRTPlanSequence[0].ReferencedFractionGroupSequence = [
    _item(
      ReferencedFractionGroupNumber=group,
      ReferencedBeamSequence=[
        _item(ReferencedBeamNumber=beam) for beam in beams
      ],
    )
  ]
  return dataset


def refer_to_series(dataset, series):
  """Lets a structure set refer to the CT that it was contoured on."""
  frame = dataset.ReferencedFrameOfReferenceSequence[0]
  frame.RTReferencedStudySequence = [
    _item(RTReferencedSeriesSequence=[_item(SeriesInstanceUID=series)])
  ]
  return dataset


def ct_slices(
  spacing, count, *, patient='anna', frame=FRAME, prefix='1.2.3.4.9'
):
  for i in range(count):
    dataset = _base(dicom_headers.CT, f'{prefix}.{i}', patient, frame)
    dataset.SeriesInstanceUID = prefix
    dataset.ImagePositionPatient = [0.0, 0.0, (i - count / 2) * spacing]
    yield dataset


def ct(
  values,
  *,
  origin=(-60.0, -60.0, -60.0),
  spacing=(3.0, 3.0, 3.0),
  series='1.2.3.4.9',
  patient='anna',
  frame=FRAME,
  slope=1.0,
  intercept=-1024.0,
  signed=False,
  **attributes,
):
  """The slices of a CT of `[X, Y, Z]` HU, from low to high."""
  stored = np.rint((np.asarray(values, np.float64) - intercept) / slope)
  stored = stored.astype('<i2' if signed else '<u2')
  for i in range(stored.shape[2]):
    dataset = _base(dicom_headers.CT, f'{series}.{i + 1}', patient, frame)
    dataset.SeriesInstanceUID = series
    dataset.Columns, dataset.Rows = stored.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(signed)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = 'MONOCHROME2'
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.RescaleType = 'HU'
    dataset.ImagePositionPatient = [*origin[:2], origin[2] + i * spacing[2]]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [spacing[1], spacing[0]]
    dataset.PixelData = stored[:, :, i].T.tobytes()
    dataset['PixelData'].VR = 'OW'
    for keyword, value in attributes.items():
      setattr(dataset, keyword, value)
    yield dataset


def phantom(shape=(41, 41, 41), spacing=3.0):
  """`[X, Y, Z]` HU of the body of `patient_files`: water of radius 55 mm, a
  lung in it and a couch below."""
  x, y = (spacing * (np.arange(n) - (n - 1) / 2) for n in shape[:2])
  r = np.hypot(x[:, None], y)
  hu = np.where(r <= 55, 0, -1000)
  hu[np.hypot(x[:, None] + 30, y) < 12] = -800
  hu[:, y > 58] = 200
  return np.broadcast_to(hu[..., None], shape).astype(np.int16)


def gradient(shape=(41, 41, 41), *, top=60.0, spacing=3.0, axis=0):
  """`[X, Y, Z]` Gy, linear from 0 to `top` along an axis."""
  ramp = np.linspace(0, top, shape[axis])
  sizes = [1, 1, 1]
  sizes[axis] = -1
  return np.broadcast_to(ramp.reshape(sizes), shape).astype(np.float32)


@functools.cache
def patient_files(patient, prefix, plans):
  """`{name: content}` of a pelvis of cylinders and spheres with doses that
  fall off from the PTV; the names tell nothing."""
  frame, uid = f'{prefix}.5', f'{prefix}.6'
  structures = {
    'BODY': cylinder(55, 54, 3.0, points=48),
    'Bladder': sphere(14, 3.0, centre=(0, -26), points=48),
    'Rectum': cylinder(9, 30, 3.0, centre=(0, 28), points=48),
    'PTV_78': sphere(15, 3.0, points=48),
    'CouchSurface': cylinder(5, 30, 3.0, centre=(0, 50), points=4),
  }
  datasets = {
    'a': structure_set(structures, uid=uid, patient=patient, frame=frame),
    'z': plan(78.0, uid=f'{prefix}.7', patient=patient, refers_to=uid),
  }
  x = np.arange(41) * 3.0 - 60
  distance = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x**2)
  for n in range(plans):
    datasets[f'dose{n}'] = dose(
      80 / (1 + np.exp((distance - 20) / (4 + n))),
      uid=f'{prefix}.8.{n}',
      patient=patient,
      frame=frame,
      refers_to=uid,
      plan=f'{prefix}.7',
    )
  contents = {}
  for name, dataset in datasets.items():
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    contents[name] = file.getvalue()
  return contents


def write_patient(folder, *, patient='anna', prefix='1.2.3.4', plans=1):
  """Writes `patient_files` to a folder, which it returns."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in patient_files(patient, prefix, plans).items():
    (folder / name).write_bytes(content)
  return folder


def write_simulated(folder, patient, *, name, prefix):
  """Writes a simulated patient, all plans, as CT, RTSTRUCT, RTDOSE, RTPLAN.

  The middle of its grid lies at the origin; contours follow the edges between
  voxels.
  """
  frame, uid = f'{prefix}.5', f'{prefix}.6'
  axes = [
    (np.arange(n) - (n - 1) / 2) * step
    for n, step in zip(patient.masks.shape, patient.spacing_mm)
  ]
  structures = {
    label: _contours(patient.masks[..., s], axes)
    for s, label in enumerate(('BODY', 'Bladder', 'Rectum', 'PTV'))
  }
  datasets = [
    structure_set(structures, uid=uid, patient=name, frame=frame),
    plan(
      patient.prescription_gy, uid=f'{prefix}.7', patient=name, refers_to=uid
    ),
  ]
  datasets += [
    dose(
      fractions * np.float32(gray),
      origin=[axis[0] for axis in axes],
      spacing=patient.spacing_mm,
      uid=f'{prefix}.8.{n}',
      patient=name,
      frame=frame,
      refers_to=uid,
      plan=f'{prefix}.7',
    )
    for n, (fractions, gray) in enumerate(
      zip(patient.dose, patient.reference_gy)
    )
  ]
  slices = ct_slices(
    patient.spacing_mm[2],
    len(axes[2]),
    patient=name,
    frame=frame,
    prefix=f'{prefix}.9',
  )
  for i, dataset in enumerate([*datasets, *slices]):
    save(dataset, folder / f'{i:03d}')
  return folder


def _contours(mask, axes):
  """Contours of a `[X, Y, Z]` mask on its slices, in mm."""
  x, y, heights_mm = axes
  found = []
  for plane, z in zip(np.moveaxis(mask, 2, 0), heights_mm):
    padded = np.pad(plane, 1).astype(float)
    lines = contourpy.contour_generator(z=padded.T).lines(0.5)
    for line in lines:
      # A closed line ends where it begins.
      column, row = line[:-1].T
      points = [
        x[0] + (column - 1) * (x[1] - x[0]),
        y[0] + (row - 1) * (y[1] - y[0]),
        np.full(len(column), z),
      ]
      found.append(np.stack(points, 1))
  return found
