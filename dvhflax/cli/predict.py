"""Predicts the dose of a patient for a wish.

The patient is one of the cohort or your own. Writes the dose (NumPy, RTDOSE,
NIfTI), its metrics and DVHs, a picture and an audit trail. Without --wish and
--points it is the first dose: of the anatomy-only network, if --anatomy_workdir
names one or the run has one within (model.prior='first_dose'), else for the
mean DVH of the training plans. For research, not for clinical use.

examples:
  dvhflax predict --network=prostate --patient=sim-0045
  dvhflax predict --workdir=runs/small --patient=sim-0001 \\
    --points="rectum V70 <= 10%; bladder mean <= 30 Gy"
  dvhflax predict --workdir=runs/small --dicom=FOLDER
"""

from absl import flags

from dvhflax import errors


def define() -> None:
  flags.DEFINE_string('workdir', None, 'A training run, its URL, or a bundle.')
  flags.DEFINE_string(
    'network', None, 'Name of a network that comes with dvhflax, in its place.'
  )
  flags.DEFINE_string(
    'patient', None, 'Id of a patient, of the cohort unless a folder is given.'
  )
  flags.DEFINE_string('dicom', None, 'Folder of your own patients, DICOM-RT.')
  flags.DEFINE_string('nifti', None, 'Folder of your own patients, NIfTI.')
  flags.DEFINE_string(
    'names', None, 'JSON: patterns for the names of their structures.'
  )
  flags.DEFINE_float(
    'prescription_gy', None, 'Their prescription, where the RTPLAN is missing.'
  )
  flags.DEFINE_string('cohort', None, 'The cohort store, if it moved.')
  flags.DEFINE_string(
    'anatomy_workdir', None, 'An anatomy-only run, which gives the first dose.'
  )
  flags.DEFINE_string('wish', None, 'CSV or JSON of curves, or plan:ID/NUMBER.')
  flags.DEFINE_string('points', None, "Such as 'rectum V70 <= 10%'; see above.")
  flags.DEFINE_string(
    'output',
    None,
    'Folder; none: WORKDIR/predictions/PATIENT, of a bundle or a URL '
    'here, predictions/NAME/PATIENT.',
  )
  flags.DEFINE_string(
    'checkpoint', 'best', '`best`, `latest`, or the number of a saved step.'
  )
  flags.DEFINE_string('who', None, 'A name for the audit trail.')
  flags.DEFINE_enum(
    'grid',
    'cohort',
    ['cohort', 'source'],
    "Grid of RTDOSE and NIfTI; source: that of the patient's own dose.",
  )
  flags.DEFINE_enum(
    'rtdose_bits', '32', ['16', '32'], 'Bits a voxel of the RTDOSE.'
  )


def main() -> None:
  from dvhflax.evaluation.predict import predict_all
  from dvhflax.report.prediction import describe
  from dvhflax.training.pretrained import pretrained

  values = flags.FLAGS
  if values.network and values.workdir:
    raise errors.UserError('--network and --workdir: give one of the two')
  for done in predict_all(
    pretrained(values.network) if values.network else values.workdir,
    patient=values.patient,
    dicom=values.dicom,
    nifti=values.nifti,
    names=values.names,
    prescription_gy=values.prescription_gy,
    cohort=values.cohort,
    anatomy_workdir=values.anatomy_workdir,
    checkpoint=values.checkpoint,
    wished=values.wish,
    points=values.points,
    who=values.who,
    output=values.output,
    grid=values.grid,
    rtdose_bits=int(values.rtdose_bits),
  ):
    print(
      f'{describe(done.session, done.step)}\n'
      f'written to {errors.plain(done.folder, 1000)}'
    )
