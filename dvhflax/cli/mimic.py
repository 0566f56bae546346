"""Dose mimicking on the command line."""

import json
import os

from absl import flags
from ml_collections import config_flags
import numpy as np

from dvhflax import config as config_lib
from dvhflax import errors, files
from dvhflax.cli import program as cli
from dvhflax.cohort.store import Cohort
from dvhflax.normalisation import DoseReference
from dvhflax.patient import named_masks
from dvhflax.planning.density import density_of
from dvhflax.planning.mimic import mimic
from dvhflax.sites.protocol import Protocol
from dvhflax.tuning import dose_file


def _given(cohort: Cohort, index: int) -> np.ndarray:
  """`[X, Y, Z]` Gy of the dose that the command line names."""
  values, record = flags.FLAGS, cohort.patients[index]
  if (values.dose is None) == (values.plan is None):
    raise errors.UserError('say which dose: --dose=FILE.npz, or --plan=NUMBER')
  if values.plan is not None:
    if not 0 <= values.plan < record.plans:
      raise errors.UserError(
        f'--plan={values.plan}: {record.id} has plans 0 to {record.plans - 1}'
      )
    dose = cohort.dose(index, values.plan)
    return cohort.reference(index, values.plan).to_gy(dose)
  return dose_file.read(values.dose, cohort.masks(index))


def _protocol(provenance) -> Protocol:
  """That of the configuration, if one is given, or of the patient's plans."""
  if flags.FLAGS.config is not None:
    return config_lib.protocol(flags.FLAGS.config)
  if not isinstance(provenance.get('protocol'), dict):
    raise errors.UserError(
      'the plans of this patient have no protocol: give a configuration with '
      'one, --config=configs/openkbp.py'
    )
  return Protocol.from_dict(provenance['protocol'])


def main(_):
  values = flags.FLAGS
  if not values.cohort or not values.patient:
    raise errors.UserError('say whose dose: --cohort, --patient')
  cohort = Cohort.open(values.cohort)
  index = cohort.index(values.patient)
  record = cohort.patients[index]
  protocol = _protocol(record.provenance)
  masks = named_masks(cohort.structures, cohort.masks(index),
                      cohort.present[index])  # fmt: skip
  done = mimic(
    _given(cohort, index),
    masks,
    record.spacing_mm,
    protocol,
    density_of(masks['body'], cohort.ct(index)),
    record.prescription_gy,
  )
  print('in % of the prescription   mean  mean absolute  largest')
  for name, row in done.difference.items():
    print(
      f'{name:24}{row["mean"]:+7.2f}{row["mean_absolute"]:15.2f}'
      f'{row["largest"]:9.2f}'
    )
  if not values.output:
    return
  os.makedirs(os.path.dirname(os.path.abspath(values.output)), exist_ok=True)
  prescribed = DoseReference.of_prescription(record.prescription_gy)
  beams = done.model.beamlets
  maps = np.zeros(beams.open.size, np.float32)
  maps[beams.active[beams.active >= 0]] = done.fluence[beams.active >= 0]
  with files.replacing(values.output) as aside, open(aside, 'wb') as file:
    np.savez_compressed(
      file,
      dose=prescribed.to_fraction(done.dose_gy),
      **prescribed.to_json(),
      spacing_mm=record.spacing_mm,
      fluence=maps.reshape(beams.open.shape),
      gantry_degrees=np.degrees(beams.angles),
      beamlet_mm=beams.width_mm,
      difference=json.dumps(done.difference),
    )
  print(f'written to {values.output}')


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', None)
  flags.DEFINE_string('cohort', None, 'A cohort store.')
  flags.DEFINE_string('patient', None, 'Id of a patient of it.')
  flags.DEFINE_string('dose', None, 'What dvhflax.cli.predict wrote, dose.npz.')
  flags.DEFINE_integer('plan', None, 'Mimic this plan of the patient.')
  flags.DEFINE_string('output', None, 'File for dose and fluences, .npz.')
  cli.run(main)
