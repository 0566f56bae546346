"""Table 1 shows what it was given."""

import csv

import numpy as np

from dvhflax.report import sample_errors, table


def results():
  network = sample_errors.SampleErrors(
    np.array([[1.0, np.nan], [-3.0, np.nan]]), np.zeros((2, 2))
  )
  baseline = sample_errors.SampleErrors(
    np.array([[6.0, np.nan], [-6.0, np.nan]]), np.zeros((2, 2))
  )
  return {'network': network, 'baseline': baseline}


def test_numbers_ratio_and_paper():
  text = table.table1(results(), ['rectum', 'PTV'], table.PAPER_TABLE1)
  assert '-1.00 ± 2.00' in text and '2.00 ± 1.00' in text
  assert '3.00' in text and '+0.54 ± 4.83' in text
  numbers = table.summary(results(), ['rectum', 'PTV'])
  rectum = numbers['baseline']['structures']['rectum']['mean_dose']
  assert rectum['ratio'] == 3 and rectum['absolute_mean'] == 6
  ptv = numbers['network']['structures']['PTV']['mean_dose']
  assert ptv['mean'] is None


def test_csv_has_a_row_a_network_and_sample(tmp_path):
  samples = [
    sample_errors.Sample('a', 'b', 1, False, 2),
    sample_errors.Sample('a', 'a', 0, True, 1),
  ]
  path = tmp_path / 'samples.csv'
  sample_errors.write_samples_csv(path, results(), ['rectum', 'PTV'], samples)
  with open(path, newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 4
  assert float(rows[3]['mean_error_rectum']) == -6
  assert [row['bent'] for row in rows] == ['False', 'True'] * 2
