"""A predicted dose in words, and as a folder of files.

For research, not for clinical use: every file says so.
"""

import csv
import importlib.util
import os

import numpy as np

from dvhflax import errors, files
from dvhflax.io import placement
from dvhflax.io.resample import Dose
from dvhflax.normalisation import DoseReference
from dvhflax.report import figure as figures
from dvhflax.report.sheet import sheet
from dvhflax.tuning import dose_file
from dvhflax.tuning.session import Session
from dvhflax.tuning.steps import Step
from dvhflax.tuning.trail import USE

GRIDS = ('cohort', 'source')


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
  record, cohort = session.record, session.cohort

  def path(name: str) -> str:
    return os.path.join(output, name)

  placed = _placed(session, step, grid)
  os.makedirs(output, exist_ok=True)
  if importlib.util.find_spec('nibabel'):
    placement.write_nifti(path('dose.nii.gz'), placed, USE)
  if importlib.util.find_spec('pydicom'):
    write_rtdose(path('dose.dcm'), session, step, placed, rtdose_bits)
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


def _placed(session: Session, step: Step, grid: str) -> Dose:
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


def write_rtdose(
  path: str, session: Session, step: Step, placed: Dose, bits: int
) -> None:
  """Writes a predicted dose as RTDOSE.

  Args:
    path: of the file.
    session: of the dose.
    step: the dose.
    placed: the same in Gy, where it lies in the patient.
    bits: 16 or 32 a voxel.
  """
  from dvhflax.io.dicom import rtdose_writer

  record = session.record
  subject = rtdose_writer.subject_of(
    record.id, session.masks, record.prescription_gy, record.provenance
  )
  network = session.identity['network']
  if step.desired_dvh is None:
    # The network within one is part of its weights.
    network = session.identity['anatomy'] or network
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


def write_other_rtdose(
  path: str,
  session: Session,
  dose_gy: np.ndarray,
  placed: Dose,
  what: str,
  plan: int | None = None,
) -> None:
  """Writes a dose that no network predicted as RTDOSE of 32 bits.

  Args:
    path: of the file.
    session: of the patient.
    dose_gy: `[X, Y, Z]` on the cohort's grid.
    placed: the same where it lies in the patient.
    what: it is, in a few words.
    plan: number of the patient's plan that it is of; None for none.
  """
  from dvhflax.io.dicom import rtdose_writer

  record, facts = session.record, session.record.provenance
  if 'protocol' not in facts and plan not in range(len(facts.get('plans', ()))):
    plan = None  # of which nothing is known
  subject = rtdose_writer.subject_of(
    record.id, session.masks, record.prescription_gy, facts, plan
  )
  use = 'for research, not for clinical use'
  label = rtdose_writer.Label(
    series=f'dvhflax: {what}, research only',
    comment=f'{what.capitalize()}, {use}',
    details=f'{what.capitalize()}, {use}.',
  )
  curves = rtdose_writer.dvhs(
    dose_gy,
    session.masks,
    session.cohort.structures,
    record.spacing_mm,
    subject.roi_numbers,
  )
  rtdose_writer.write_dose(path, placed, subject, label, curves)


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
