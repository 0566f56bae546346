"""Finds the deliverable dose that is closest to a prediction.

example:
  dvhflax mimic --cohort=cohorts/prostate_small --patient=sim-0001 \\
    --dose=runs/small/predictions/sim-0001/dose.npz --output=mimicked.npz
"""

from absl import flags

from dvhflax import errors
from dvhflax.cli import program


def define() -> None:
  program.define_config(
    None, 'Its planning protocol is used; none: that of the plans.'
  )
  flags.DEFINE_string('cohort', None, 'A cohort store.')
  flags.DEFINE_string('patient', None, 'Id of a patient of it.')
  flags.DEFINE_string(
    'dose', None, 'The dose.npz that `dvhflax predict` wrote.'
  )
  flags.DEFINE_integer('plan', None, 'Mimic this plan of the patient instead.')
  flags.DEFINE_string('output', None, 'File for dose and fluences, .npz.')


def main() -> None:
  from dvhflax import config as config_lib
  from dvhflax.cohort.store import Cohort
  from dvhflax.evaluation import mimic

  values = flags.FLAGS
  if not values.cohort or not values.patient:
    raise errors.UserError('say whose dose: --cohort, --patient')
  protocol = None
  if values.config is not None:
    protocol = config_lib.protocol(values.config)
  cohort = Cohort.open(values.cohort)
  found = mimic.mimic_patient(
    cohort,
    values.patient,
    dose=values.dose,
    plan=values.plan,
    protocol=protocol,
  )
  print(mimic.describe(found))
  if values.output:
    record = cohort.patients[cohort.index(values.patient)]
    mimic.write(values.output, found, record.spacing_mm, record.prescription_gy)
    print(f'written to {values.output}')
