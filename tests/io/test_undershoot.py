"""Doses slightly below zero: one rule for files of every kind."""

import numpy as np
import pytest
import synthetic_dicom as synthetic

from dvhflax import errors
from dvhflax.io.dicom import rtdose
from dvhflax.io.undershoot import without_undershoot


def signed(least_gy):
  """An RTDOSE of up to 60 Gy that may hold negative values."""
  values = synthetic.gradient()
  values[0, 0, :3] = least_gy
  dataset = synthetic.dose(values, PixelRepresentation=1)
  stored = np.rint(values.transpose(2, 1, 0) / (60 / 2**30))
  dataset.DoseGridScaling = f'{60 / 2**30:.10g}'
  dataset.PixelData = stored.astype('<i4').tobytes()
  return dataset


def test_a_signed_rtdose(tmp_path):
  synthetic.save(signed(-0.4), tmp_path / 'dose.dcm')
  read = rtdose.read_dose(tmp_path / 'dose.dcm')
  assert read.values.min() == 0 and read.values.max() == pytest.approx(60)
  (note,) = read.notes
  assert note == (
    'dose.dcm: 3 voxels of down to -0.4 Gy, beside a maximum of 60 Gy, are '
    'taken as 0'
  )
  synthetic.save(signed(-1.3), tmp_path / 'dose.dcm')
  with pytest.raises(errors.CohortError, match=r'a dose is negative, -1\.3 Gy'):
    rtdose.read_dose(tmp_path / 'dose.dcm')


@pytest.mark.parametrize(
  'least, notes', [(0.0, 0), (-0.009, 0), (-0.011, 1), (-1.99, 1)]
)
def test_shares_of_the_maximum(tmp_path, least, notes):
  values = np.array([least, 5.0, 100.0], np.float32)
  clipped, found = without_undershoot(values, tmp_path / 'dose.nii')
  assert clipped.tolist() == [0, 5, 100] and len(found) == notes


@pytest.mark.parametrize('values', [[-2.01, 100.0], [-1e-9, 0.0], [-3.0, -1.0]])
def test_what_no_interpolation_makes(tmp_path, values):
  with pytest.raises(errors.CohortError, match='negative'):
    without_undershoot(np.array(values), tmp_path / 'dose.nii')
