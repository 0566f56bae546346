"""Predicts the dose of a patient of a cohort, for a wish.

  python -m dvhflax.predict --workdir=runs/small --patient=patient_0031 \\
    --points="rectum V70 <= 10%; bladder mean <= 30 Gy"

Without `--wish` and `--points` it is the first dose, see `session`. For
research, not for clinical use.
"""

import csv
import importlib.util
import json
import os

from absl import flags
import numpy as np

from dvhflax import cli, errors, wish
from dvhflax.report import files
from dvhflax.session import Session, Step

_USE = 'a prediction for research, not for clinical use'


def predict(session: Session, wished: str | None, points: str | None) -> Step:
  """The dose for a wish as the command line gives it.

  Args:
    session: a new one.
    wished: a file of curves, or `plan:PATIENT/NUMBER`.
    points: in clinicians' notation, parted by semicolons; they bend the curves
      of `wished`, or else the DVH of the first dose.

  Raises:
    WishError: a wish that cannot be, or cannot be read.
  """
  if wished is None:
    step = session.first_dose()
    return session.tune(points) if points else step
  if wished.startswith('plan:'):
    patient, _, number = wished.removeprefix('plan:').rpartition('/')
    if not number.isdecimal():
      raise errors.WishError(f'{wished!r}: write plan:PATIENT/NUMBER')
    curves = wish.from_plan(
      session.cohort, patient, int(number), session.present
    )
    return session.tune(points or (), curves=curves)
  given = wish.read_curves(wished, session.record.prescription_gy)
  return session.tune(points or (), curves=given)


def describe(session: Session, step: Step) -> str:
  """The metrics, achieved beside desired; doses in Gy, volumes in %."""
  desired = step.metrics.get('desired', {})
  lines = [_USE, f'{"":24}{"desired":>9}{"achieved":>10}']
  for structure, row in step.metrics['achieved'].items():
    for name, value in row.items():
      wanted = desired.get(structure, {}).get(name)
      text = '-' if wanted is None else f'{wanted:.2f}'
      lines.append(f'{structure + " " + name:24}{text:>9}{value:10.2f}')
  for point in step.metrics['points']:
    verdict = 'met' if point['met'] else 'not met'
    achieved = f'{point["achieved"]:.1f} {point["unit"]}'
    lines.append(f'{point["asked"]}: achieved {achieved}, {verdict}')
  reach = step.metrics.get('reach', {})
  if reach.get('farther_than') is not None and reach['distance'] is not None:
    lines.append(
      f'the wish is {reach["distance"]:.2f} from the nearest training plan; '
      f'training plans of different patients: median '
      f'{reach["usual_median"]:.2f}, 95th percentile {reach["usual_95"]:.2f}'
    )
  return '\n'.join(lines)


def write(session: Session, step: Step, output: str) -> None:
  """Writes dose, metrics, DVHs, picture and audit trail to a folder."""
  from dvhflax.report import figure as figures
  from dvhflax.report.sheet import sheet

  os.makedirs(output, exist_ok=True)
  record, cohort = session.record, session.cohort

  def path(name):
    return os.path.join(output, name)

  with files.replacing(path('dose.npz')) as aside:
    np.savez_compressed(
      aside,
      dose=step.dose,
      spacing_mm=record.spacing_mm,
      prescription_gy=record.prescription_gy,
      use=_USE,
    )
  if importlib.util.find_spec('nibabel'):
    _write_nifti(path('dose.nii.gz'), session, step)
  numbers = {
    'use': _USE,
    'patient': record.id,
    'prescription_gy': record.prescription_gy,
    'checkpoint': session.identity,
    **step.metrics,
  }
  files.write_text(path('metrics.json'), json.dumps(numbers, indent=2) + '\n')
  _write_dvh(path('dvh.csv'), session, step)
  figures.save(
    sheet(
      record.id,
      step.dose,
      session.masks,
      step.desired_dvh,
      cohort.structures,
      record.spacing_mm,
      cohort.dvh_spec,
    ),
    path('sheet.png'),
  )
  session.save(path('trail.json'))


def _write_nifti(path: str, session: Session, step: Step) -> None:
  """Dose in Gy; the store's axes run to left, posterior, superior."""
  import nibabel

  affine = np.diag([*session.record.spacing_mm, 1.0]) * [-1, -1, 1, 1]
  dose = step.dose * np.float32(session.record.prescription_gy)
  image = nibabel.Nifti1Image(dose, affine)
  image.header.set_xyzt_units('mm')
  image.header['descrip'] = _USE.encode()
  with files.replacing(path) as aside:
    # The suffix tells nibabel to compress.
    whole = aside.with_name(f'.{os.getpid()}.nii.gz')
    nibabel.save(image, whole)
    os.replace(whole, aside)


def _write_dvh(path: str, session: Session, step: Step) -> None:
  """Columns structure, dose, volume (or as `DVHSpec` has it), both curves."""
  cohort = session.cohort
  level, value = 'dose', 'volume'
  if cohort.dvh_spec.kind == 'dose_at_volume':
    level, value = value, level
  levels = cohort.dvh_spec.levels
  with files.replacing(path) as aside, open(aside, 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['structure', level, f'desired_{value}', value])
    for s, structure in enumerate(cohort.structures):
      if not step.dvh[s].any():
        continue
      desired = step.desired_dvh
      wished = desired is not None and desired[s].any()
      for k, one in enumerate(levels):
        text = f'{desired[s, k]:.6f}' if wished and desired is not None else ''
        writer.writerow(
          [structure.name, f'{one:.6f}', text, f'{step.dvh[s, k]:.6f}']
        )


def main(_):
  values = flags.FLAGS
  if not values.workdir or not values.patient:
    raise errors.UserError(
      'say which run and which patient: --workdir, --patient'
    )
  session = Session.open(
    values.workdir,
    values.patient,
    cohort_path=values.cohort,
    anatomy_workdir=values.anatomy_workdir,
    which=values.checkpoint,
    who=values.who,
  )
  step = predict(session, values.wish, values.points)
  output = values.output or os.path.join(
    values.workdir, 'predictions', values.patient
  )
  write(session, step, output)
  print(f'{describe(session, step)}\nwritten to {output}')


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A training run.')
  flags.DEFINE_string('patient', None, 'Id of a patient of the cohort.')
  flags.DEFINE_string('cohort', None, 'The cohort store, if it moved.')
  flags.DEFINE_string('anatomy_workdir', None, 'Gives the first dose.')
  flags.DEFINE_string('wish', None, 'CSV or JSON of curves, or plan:ID/NUMBER.')
  flags.DEFINE_string('points', None, "As 'rectum V70 <= 10%; PTV D95 >= 95%'.")
  flags.DEFINE_string('output', None, 'Folder; WORKDIR/predictions/PATIENT.')
  flags.DEFINE_string('checkpoint', 'best', '`best`, `latest` or a saved step.')
  flags.DEFINE_string('who', None, 'A name for the audit trail.')
  cli.run(main)
