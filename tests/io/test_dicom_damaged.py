"""Damaged DICOM files: an error that tells, or a result, no more."""

import contextlib
import pathlib
import random
import resource
import tempfile
from unittest import mock
import warnings

from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import guard
import numpy as np
import pydicom
import pytest
import synthetic_dicom as synthetic

from dvhflax import errors
from dvhflax.io import importing
from dvhflax.io.contours import stack as contours
from dvhflax.io.dicom import files
from dvhflax.io.dicom import reader as dicom
from dvhflax.patient import Structure

NAMES = ('body', 'bladder', 'rectum', 'PTV')
SETTINGS = importing.Settings(
  tuple(map(Structure.from_name, NAMES)), (32, 32, 16), (4.0, 4.0, 6.0)
)

KEYWORDS = (
  'PixelSpacing', 'ImagePositionPatient', 'ImageOrientationPatient', 'Rows',
  'Columns', 'NumberOfFrames', 'GridFrameOffsetVector', 'DoseGridScaling',
  'DoseUnits', 'DoseSummationType', 'SOPInstanceUID', 'SOPClassUID',
  'FrameOfReferenceUID', 'PatientID', 'BitsAllocated', 'PixelData',
  'ReferencedStructureSetSequence', 'ROIContourSequence', 'ROINumber',
  'StructureSetROISequence', 'ReferencedFrameOfReferenceSequence',
  'DoseReferenceSequence', 'SamplesPerPixel', 'PixelRepresentation',
  'ReferencedRTPlanSequence', 'FractionGroupSequence', 'ImageType',
)  # fmt: skip
VALUES = (None, '', 'x', 'nan', b'\xff\xff', 0, -1, 65535, [], [1, 2], 1e30)


def mutate(path, seed):
  """Damages a file: its bytes, its length, or a value and its VR."""
  rng = random.Random(seed)
  content = bytearray(path.read_bytes())
  kind = rng.choice(('truncate', 'bytes', 'insert', 'value', 'value'))
  if kind == 'truncate':
    del content[rng.randrange(len(content)) :]
  elif kind == 'bytes':
    # Mostly among the attributes, which lie in front of the pixels.
    for _ in range(rng.randint(1, 20)):
      end = min(len(content), rng.choice((400, 2000, len(content))))
      content[rng.randrange(end)] = rng.randrange(256)
  elif kind == 'insert':
    place = rng.randrange(min(len(content), 4000))
    content[place:place] = rng.randbytes(rng.randint(1, 40))
  else:
    dataset = pydicom.dcmread(path)
    keyword = rng.choice(KEYWORDS)
    vr = rng.choice(('DS', 'LO', 'UN', 'SQ', 'US', 'OB', 'IS'))
    value = rng.choice(VALUES)
    # Not every value can be written; other seeds damage the bytes.
    with contextlib.suppress(Exception), warnings.catch_warnings():
      warnings.simplefilter('ignore')
      dataset.add_new(keyword, vr, value)
      dataset.save_as(path)
    return
  path.write_bytes(content)


def check_mutations(root, seed):
  """A damaged patient beside a sound one: an error or a result, no more."""
  synthetic.write_patient(root / 'good', patient='good', prefix='1.2.8')
  bad = synthetic.write_patient(root / 'bad', patient='bad', prefix='1.2.7')
  rng = random.Random(seed)
  mutate(bad / rng.choice(('a', 'dose0', 'z')), seed)
  dose_optional = bool(seed % 2)
  found, skipped = dicom.find_patients(root, dose_optional=dose_optional)
  assert all(isinstance(one.why, str) and one.why for one in skipped)
  imported = []
  for one in found:
    try:
      patient, _ = importing.assemble(
        dicom.read_patient(one, NAMES), SETTINGS, dose_optional=dose_optional
      )
    except errors.CohortError as error:
      assert '\n' not in str(error)
      continue
    assert np.isfinite(patient.dose).all()
    assert patient.dose.min(initial=0) >= 0 and patient.prescription_gy > 0
    imported.append(one.id)
  assert 'good' in imported


def test_a_length_that_is_claimed_is_not_allocated(tmp_path):
  dataset = synthetic.structure_set({'BODY': synthetic.cylinder(5, 6, 3.0)})
  dataset.ROIContourSequence = []
  path = synthetic.save(dataset, tmp_path / 'a')
  content = path.read_bytes()
  # A type of image, said to be of 3.9 GiB, in front of all.
  claim = b'\x08\0\x08\0UN\0\0\xf0\xff\xff\xf0'
  place = content.index(b'\x08\0\x16\0UI')
  path.write_bytes(content[:place] + claim + content[place:])
  limits = resource.getrlimit(resource.RLIMIT_AS)
  guard.limit_memory(2**30)
  try:
    for only in (None, ('ImageType', 'PatientID')):
      with pytest.raises(errors.CohortError, match='truncated'):
        files.read(path, only)
  finally:
    resource.setrlimit(resource.RLIMIT_AS, limits)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32))
@mock.patch.object(contours, 'PIXELS', 24)
def test_mutated_files(seed):
  with tempfile.TemporaryDirectory() as root:
    check_mutations(pathlib.Path(root), seed)


@pytest.mark.slow
@settings(deadline=None, max_examples=1000)
@given(seed=st.integers(0, 2**32))
@mock.patch.object(contours, 'PIXELS', 24)
def test_many_mutated_files(seed):
  with tempfile.TemporaryDirectory() as root:
    check_mutations(pathlib.Path(root), seed)
