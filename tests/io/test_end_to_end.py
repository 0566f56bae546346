"""From DICOM to DICOM: import, train, predict for a patient without a dose."""

import json

import numpy as np
import pydicom
import pytest
import synthetic_dicom as synthetic

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.validate import validate_cohort
from dvhflax.evaluation.predict import predict_all
from dvhflax.io import importing
from dvhflax.io.dicom import headers as dicom_headers
from dvhflax.io.dicom import reader as dicom
from dvhflax.sources.build import build_cohort, open_or_build_cohort
from dvhflax.sources.simulated import simulate_patient
from dvhflax.training.train import train
from dvhflax.tuning.session import Session


def make_config(raw, path):
  config = config_lib.default()
  config.batch_size = 2
  config.max_steps = 3
  config.cohort.source, config.cohort.plans = 'dicom', 0
  config.cohort.normalisation = 'prescription'
  config.cohort.raw = str(raw)
  config.cohort.path = str(path)
  config.cohort.grid = (16, 16, 8)
  config.cohort.spacing_mm = (16.0, 12.0, 12.0)
  config.cohort.validation_patients = 1
  config.cohort.test_patients = 1
  config.cohort.dvh_points = 16
  config.model.base_channels = 4
  config.model.max_channels = 8
  config.model.norm = 'group'
  config.model.conditioning = 'film'
  config.data.validation_wishes = 1
  return config


@pytest.mark.slow
def test_from_dicom_to_dicom(tmp_path):
  simulated = simulate_patient(
    0, 0, grid=(32, 32, 16), spacing_mm=(12.0, 9.0, 9.0), plans=10
  )
  for n in range(3):
    synthetic.write_simulated(
      tmp_path / 'in' / f'{n}', simulated, name=f'p{n}', prefix=f'1.2.{n}'
    )
  config = make_config(tmp_path / 'in', tmp_path / 'cohort')
  cohort = open_or_build_cohort(config)
  assert [record.plans for record in cohort.patients] == [10, 10, 10]
  workdir = str(tmp_path / 'run')
  train(config, cohort, workdir)

  new = synthetic.write_simulated(
    tmp_path / 'new', simulated, name='new/1', prefix='1.2.9'
  )
  for path in new.iterdir():
    if pydicom.dcmread(path, specific_tags=['SOPClassUID']).SOPClassUID == (
      dicom_headers.RTDOSE
    ):
      path.unlink()
  options = {'workdir': workdir, 'dicom': str(new)}
  (made,) = predict_all(**options, points='rectum mean <= 40 Gy')
  (output,) = (tmp_path / 'run' / 'predictions').iterdir()
  assert output.name.startswith('new_1~') and made.folder == str(output)
  with np.load(output / 'dose.npz') as stored:
    predicted = np.maximum(stored['dose'], 0)
    prescription_gy = float(stored['prescription_gy'])
  assert prescription_gy == pytest.approx(simulated.prescription_gy)
  assert 'nothing' not in (output / 'import.txt').read_text()
  with open(output / 'metrics.json') as file:
    assert json.load(file)['patient'] == 'new/1'

  # Read back beside the structures, it is the dose that was predicted.
  (output / 'dose.dcm').rename(new / 'dose.dcm')
  (found,), _ = dicom.find_patients(new)
  settings = importing.Settings(
    cohort.structures, cohort.grid, (16.0, 12.0, 12.0)
  )
  names = [s.name for s in cohort.structures]
  patient, entry = importing.assemble(
    dicom.read_patient(found, names), settings
  )
  assert entry['plans'][0]['label'] == 'dose.dcm'
  assert entry['plans'][0]['prescription_from'] == 'plan'
  assert patient.reference_gy == pytest.approx([prescription_gy])
  np.testing.assert_allclose(patient.dose[0], predicted, atol=2e-6)
  np.testing.assert_array_equal(patient.masks, cohort.masks(0))

  # And again on the grid of that dose, with the trail to replay.
  list(predict_all(**options, grid='source'))
  first = pydicom.dcmread(output / 'dose.dcm')
  dose = pydicom.dcmread(new / 'dose.dcm')
  assert first.GridFrameOffsetVector == dose.GridFrameOffsetVector
  assert first.ImagePositionPatient == dose.ImagePositionPatient
  assert 'not for clinical use' in dose.DoseComment
  replayed = Session.open(workdir, patient).replay(output / 'trail.json')
  assert len(replayed) == 1

  options['names'] = str(tmp_path / 'names.json')
  (tmp_path / 'names.json').write_text('{"rectum": ["colon"]}')
  structures = pydicom.dcmread(new / '000')
  structures.StructureSetROISequence[2].ROIName = 'Gut'
  structures.save_as(new / '000')
  with pytest.raises(
    errors.UserError, match=r'lacks rectum, which every.*unmapped: Gut'
  ):
    list(predict_all(**options))


@pytest.mark.slow
def test_a_ct_from_dicom_to_plans(tmp_path):
  """Of three patients, one whose CT is one slice and one without."""
  slices = list(synthetic.ct(synthetic.phantom()))
  for n, count in enumerate((len(slices), 1, 0)):
    folder = tmp_path / 'in' / f'{n}'
    synthetic.write_patient(folder, patient=f'p{n}', prefix=f'1.2.{n}')
    for i, one in enumerate(slices[:count]):
      one.PatientID = f'p{n}'
      one.FrameOfReferenceUID = f'1.2.{n}.5'
      one.SOPInstanceUID = f'1.2.{n}.9.{i}'
      one.SeriesInstanceUID = f'1.2.{n}.9'
      synthetic.save(one, folder / 'ct' / f'{i}')
  config = make_config(tmp_path / 'in', tmp_path / 'clinical')
  config.cohort.grid, config.cohort.spacing_mm = (32, 32, 16), (4.0, 4.0, 8.0)
  config.cohort.ct = True
  assert build_cohort(config) and not validate_cohort(config.cohort.path)
  clinical = Cohort.open(config.cohort.path)
  scanned, one_slice, without = (clinical.ct(i) for i in range(3))
  assert one_slice is None and without is None
  # The lung, to the patient's right.
  assert scanned[8, 16, 8] == -800 and scanned[16, 16, 8] == 0
  report = (tmp_path / 'clinical.import.txt').read_text()
  assert report.count('the only slice of its series') == 1

  config.cohort.plans, config.cohort.replace_plans = 2, True
  config.planning.beamlet_mm, config.planning.gap = 10.0, 0.5
  config.cohort.path = str(tmp_path / 'planned')
  assert build_cohort(config) and not validate_cohort(config.cohort.path)
  planned = Cohort.open(config.cohort.path)
  # The same anatomies: two of water, one with a lung.
  np.testing.assert_array_equal(planned.doses(1), planned.doses(2))
  assert np.abs(planned.doses(0) - planned.doses(1)).max() > 0.01
  np.testing.assert_array_equal(planned.ct(0), scanned)

  # The plans of a store's patients pass through the CTs that it has, and these
  # stay with them.
  config.cohort.source, config.cohort.ct = 'store', False
  config.cohort.raw = str(tmp_path / 'clinical')
  config.cohort.path = str(tmp_path / 'again')
  assert build_cohort(config) and not validate_cohort(config.cohort.path)
  again = Cohort.open(config.cohort.path)
  for i in range(3):
    np.testing.assert_array_equal(again.doses(i), planned.doses(i))
  np.testing.assert_array_equal(again.ct(0), scanned)
  assert again.ct(1) is None
