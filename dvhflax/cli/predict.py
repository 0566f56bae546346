"""Predicts the dose of a patient of the cohort, or of one's own, for a wish.

  dvhflax predict --workdir=runs/small --patient=patient_0031 \\
    --points="rectum V70 <= 10%; bladder mean <= 30 Gy"
  dvhflax predict --workdir=runs/small --dicom=FOLDER

Without `--wish` and `--points` it is the first dose, see `session`. For
research, not for clinical use.
"""

from collections.abc import Sequence
import csv
import importlib.util
import os
from typing import Any

from absl import flags

from dvhflax import errors, files
from dvhflax.cli import folder_names
from dvhflax.cli import program as cli
from dvhflax.cohort.store import Cohort
from dvhflax.io import import_report, placement
from dvhflax.normalisation import DoseReference
from dvhflax.training.runs import Network, load_networks
from dvhflax.tuning import dose_file, wish
from dvhflax.tuning.external import ExternalPatients
from dvhflax.tuning.session import Session, Step
from dvhflax.tuning.trail import USE

GRIDS = ('cohort', 'source')


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
    curves, reference = wish.from_plan(
      session.cohort,
      patient,
      int(number),
      session.present,
      session.record.prescription_gy,
    )
    return session.tune(points or (), curves=curves, reference_gy=reference.gy)
  given = wish.read_curves(wished, session.record.prescription_gy)
  return session.tune(points or (), curves=given)


def describe(session: Session, step: Step) -> str:
  """The metrics, achieved beside desired; doses in Gy, volumes in %."""
  desired = step.metrics.get('desired', {})
  lines = [USE, _in_words(step.reference)]
  lines.append(f'{"":24}{"desired":>9}{"achieved":>10}')
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
  if step.metrics['cut_off']:
    lines.append(
      f'{", ".join(step.metrics["cut_off"])}: cut off by the sides of the '
      'grid; figures are of the part within'
    )
  # Names come from files: a terminal is not to obey them.
  return '\n'.join(errors.plain(line, 1000) for line in lines)


def _in_words(reference: DoseReference) -> str:
  return (
    f'Doses in Gy, volumes in %; prescription {reference.prescription_gy:g} '
    f'Gy; 1.0 of the prediction is {reference.gy:.2f} Gy: {reference.origin}'
  )


def write(
  session: Session,
  step: Step,
  output: str,
  *,
  grid: str = 'cohort',
  rtdose_bits: int = 32,
) -> None:
  """Writes dose, metrics, DVHs, picture and audit trail to a folder.

  Args:
    session: of the dose.
    step: the dose.
    output: path of the folder.
    grid: of the RTDOSE and the NIfTI: the `cohort`'s, on which the dose is
      predicted, or the `source`'s, that the patient's own dose came on.
    rtdose_bits: 16 or 32 a voxel.

  Raises:
    ConfigError: for another grid.
    CohortError: if the source's grid is not known.
  """
  from dvhflax.report import figure as figures
  from dvhflax.report.sheet import sheet

  record, cohort = session.record, session.cohort

  def path(name):
    return os.path.join(output, name)

  placed = _placed(session, step, grid)
  os.makedirs(output, exist_ok=True)
  if importlib.util.find_spec('nibabel'):
    placement.write_nifti(path('dose.nii.gz'), placed, USE)
  if importlib.util.find_spec('pydicom'):
    _write_rtdose(path('dose.dcm'), session, step, placed, rtdose_bits)
  dose_file.write(path('dose.npz'), session, step)
  numbers = {
    'use': USE,
    'patient': record.id,
    'checkpoint': session.identity,
    **step.metrics,
  }
  files.write_json(path('metrics.json'), numbers)
  _write_dvh(path('dvh.csv'), session, step)
  figures.save(
    sheet(
      record.id,
      step,
      session.masks,
      cohort.structures,
      record.spacing_mm,
      cohort.dvh_spec,
    ),
    path('sheet.png'),
  )
  session.save(path('trail.json'))


def _placed(session: Session, step: Step, grid: str) -> placement.Dose:
  """The dose in Gy where it lies in the patient."""
  if grid not in GRIDS:
    raise errors.ConfigError(f'a grid {grid!r}: use one of {", ".join(GRIDS)}')
  record = session.record
  dose = placement.on_cohort_grid(
    step.dose_gy, record.spacing_mm, record.provenance
  )
  if grid == 'source':
    dose = placement.on_source_grid(dose, record.id, record.provenance)
  return dose


def _write_rtdose(
  path: str, session: Session, step: Step, placed: placement.Dose, bits: int
) -> None:
  from dvhflax.io.dicom import rtdose_writer

  record = session.record
  subject = rtdose_writer.subject_of(
    record.id, session.masks, record.prescription_gy, record.provenance
  )
  anatomy_only = step.desired_dvh is None
  network = session.identity['anatomy' if anatomy_only else 'network']
  asked = '; '.join(point['asked'] for point in step.metrics['points'])
  label = rtdose_writer.Label(
    series='dvhflax: predicted dose, research only',
    comment=USE.capitalize(),
    details=f'{USE.capitalize()}. Run {network["workdir"]}, step '
    f'{network["step"]}, weights {network["weights_sha256"]}. Asked for: '
    f'{asked or "no points"}. {_in_words(step.reference)}.',
  )
  curves = rtdose_writer.dvhs(
    step.dose_gy,
    session.masks,
    session.cohort.structures,
    record.spacing_mm,
    subject.roi_numbers,
  )
  rtdose_writer.write_dose(path, placed, subject, label, curves, bits=bits)


def _write_dvh(path: str, session: Session, step: Step) -> None:
  """Columns structure, dose, volume (or as `DVHSpec` has it), both curves.

  `dose` is in fractions of what 1.0 of the cohort stands for, as a wish has it;
  `gy` the same in Gy of the achieved dose.
  """
  cohort = session.cohort
  level, value = 'dose', 'volume'
  if cohort.dvh_spec.kind == 'dose_at_volume':
    level, value = value, level
  levels = cohort.dvh_spec.levels
  with files.replacing(path) as aside, open(aside, 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['structure', level, f'desired_{value}', value, 'gy'])
    for s, structure in enumerate(cohort.structures):
      if not step.dvh[s].any():
        continue
      desired = step.desired_dvh
      wished = desired is not None and desired[s].any()
      doses_gy = step.reference.to_gy(cohort.dvh_spec.curve(step.dvh[s]).dose)
      for k, (one, dose_gy) in enumerate(zip(levels, doses_gy)):
        text = f'{desired[s, k]:.6f}' if wished and desired is not None else ''
        row = [structure.name, f'{one:.6f}', text, f'{step.dvh[s, k]:.6f}']
        writer.writerow([*row, f'{dose_gy:.4f}'])


def run(values: flags.FlagValues) -> None:
  """Predicts for the patients that the command line names.

  One who cannot be predicted for does not stop the others.

  Raises:
    UserError: what is missing, or who could not be predicted for and why.
  """
  newcomers, network, cohort, anatomy = _load(values)
  names = [values.patient] if values.patient else newcomers.ids
  failures = []
  for name in names:
    output = values.output or os.path.join(values.workdir, 'predictions')
    if len(names) > 1 or not values.output:
      output = os.path.join(output, _folder_name(name, names, output))
    try:
      patient, entry = newcomers.read(name) if newcomers else (name, None)
      session = Session(network, cohort, patient, anatomy, values.who)
      step = predict(session, values.wish, values.points)
      write(
        session,
        step,
        output,
        grid=values.grid,
        rtdose_bits=int(values.rtdose_bits),
      )
    except errors.UserError as error:
      failures.append(str(error))
      continue
    if entry:
      files.write_text(
        os.path.join(output, 'import.txt'),
        import_report.report_text([entry], newcomers.skipped),
      )
    print(
      f'{describe(session, step)}\nwritten to {errors.plain(str(output), 1000)}'
    )
  if failures:
    raise errors.UserError('; '.join(failures))


def _load(
  values: flags.FlagValues,
) -> tuple[Any, Network, Cohort, Network | None]:
  """Patients from outside, if any (else None); network, cohort, anatomy's."""
  folders = {'dicom': values.dicom, 'nifti': values.nifti}
  given = {source: folder for source, folder in folders.items() if folder}
  if not values.workdir or len(given) > 1 or not (given or values.patient):
    raise errors.UserError(
      'say which run, --workdir, and whom to predict for: --patient of its '
      'cohort, or a folder, --dicom or --nifti'
    )
  if not given and (values.names or values.prescription_gy is not None):
    raise errors.UserError(
      '--names and --prescription_gy are for patients of --dicom or --nifti; '
      f'{values.patient} is one of the cohort, which knows both'
    )
  loaded = load_networks(
    values.workdir, values.checkpoint, values.cohort, values.anatomy_workdir
  )
  newcomers = None
  for source, folder in given.items():
    newcomers = ExternalPatients(
      source,
      folder,
      loaded[1],
      prescription_gy=values.prescription_gy,
      names=values.names,
    )
  return newcomers, *loaded


def _folder_name(patient: str, others: Sequence[str], output: str) -> str:
  """Of a patient, beside those of others; see `folder_names`."""
  return folder_names.folder_name(patient, others, output)


def main(_):
  run(flags.FLAGS)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A training run.')
  flags.DEFINE_string(
    'patient', None, 'Id of a patient, of the cohort unless a folder is given.'
  )
  flags.DEFINE_string('dicom', None, 'Folder of own patients, DICOM-RT.')
  flags.DEFINE_string('nifti', None, 'Folder of own patients, NIfTI.')
  flags.DEFINE_string('names', None, 'JSON: patterns of their structures.')
  flags.DEFINE_float('prescription_gy', None, 'Theirs, without an RTPLAN.')
  flags.DEFINE_string('cohort', None, 'The cohort store, if it moved.')
  flags.DEFINE_string('anatomy_workdir', None, 'Gives the first dose.')
  flags.DEFINE_string('wish', None, 'CSV or JSON of curves, or plan:ID/NUMBER.')
  flags.DEFINE_string('points', None, "As 'rectum V70 <= 10%; PTV D95 >= 95%'.")
  flags.DEFINE_string('output', None, 'Folder; WORKDIR/predictions/PATIENT.')
  flags.DEFINE_string('checkpoint', 'best', '`best`, `latest` or a saved step.')
  flags.DEFINE_string('who', None, 'A name for the audit trail.')
  flags.DEFINE_enum(
    'grid', 'cohort', GRIDS, "Of RTDOSE and NIfTI; source: the patient's own."
  )
  flags.DEFINE_enum('rtdose_bits', '32', ['16', '32'], 'A voxel.')
  cli.run(main)
