"""From DICOM to DICOM: import, train, predict for a patient without a dose."""

import json
import types

import numpy as np
import pydicom
import pytest
import synthetic_dicom as synthetic

from dvhflax import config as config_lib
from dvhflax import errors, predict
from dvhflax.cohort.build import open_or_build
from dvhflax.io import dicom, dicom_headers, importing
from dvhflax.planning.simulate import simulate_patient
from dvhflax.session import Session
from dvhflax.train import train

OPTIONS = {
  'patient': None, 'dicom': None, 'nifti': None, 'names': None,
  'prescription_gy': None, 'cohort': None, 'anatomy_workdir': None,
  'wish': None, 'points': None, 'output': None, 'checkpoint': 'best',
  'who': None, 'grid': 'cohort', 'rtdose_bits': '32',
}  # fmt: skip


def make_config(raw, path):
  config = config_lib.default()
  config.batch_size = 2
  config.max_steps = 3
  config.cohort.source, config.cohort.plans = 'dicom', 0
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
  cohort = open_or_build(config)
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
  options = {**OPTIONS, 'workdir': workdir, 'dicom': str(new)}
  predict.run(
    types.SimpleNamespace(**options | {'points': 'rectum mean <= 40 Gy'})
  )
  output = tmp_path / 'run' / 'predictions' / 'new_1'
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
  predict.run(types.SimpleNamespace(**options | {'grid': 'source'}))
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
    predict.run(types.SimpleNamespace(**options))
