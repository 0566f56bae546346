"""The description of a cohort's plans, and its picture."""

import dataclasses

from dvhflax.cohort.store import Cohort
from dvhflax.report import cohort as cohort_report
from dvhflax.report import figure


def test_metrics_of_a_known_cohort(cohort):
  lines = cohort_report.describe(cohort).splitlines()
  assert '8 patients, 26 plans' in lines[0]
  # Half of the fixture's targets get 80 Gy.
  d95 = next(line for line in lines if line.startswith('PTV D95'))
  assert d95.split()[2:] == ['80.0', '80.0', '80.0', '0.0']
  v50 = next(line for line in lines if line.startswith('rectum V50'))
  assert '(< 50%)' in v50


def test_picture_has_a_row_a_patient(cohort, tmp_path):
  drawn = cohort_report.plans(cohort, [0, 1, 2])
  assert len(drawn.axes) == 3 * 4
  figure.save(drawn, tmp_path / 'plans.png')
  assert (tmp_path / 'plans.png').read_bytes().startswith(b'\x89PNG')


def test_what_the_grid_cuts_off_is_said(cohort):
  """The fixture's body fills the grid from its lowest to its highest slice."""
  (line,) = (
    line
    for line in cohort_report.describe(cohort).splitlines()
    if line.startswith('body reaches')
  )
  assert 'in 8 of 8 patients' in line and 'the part within' in line
  described = cohort_report.describe(
    _with_provenance(cohort, {'outside_grid': {'body': 0.25}})
  )
  assert '25% of its volume on average, 25% at most, lie outside' in described
  assert 'PTV reaches' not in described


def _with_provenance(cohort, provenance):
  records = tuple(
    dataclasses.replace(record, provenance=provenance)
    for record in cohort.patients
  )
  metadata = dataclasses.replace(cohort.metadata, patients=records)
  return Cohort(cohort.path, metadata)
