"""Desired DVHs from files and plans."""

import json

import numpy as np
import pytest

from dvhflax.dvh import DVHSpec
from dvhflax.errors import CohortError, WishError
from dvhflax.normalisation import Normalisation
from dvhflax.patient import Structure
from dvhflax.tuning import wish, wish_file

STRUCTURES = (Structure('rectum', 'oar'), Structure('PTV', 'target'))
PRESENT = np.array([True, True])
SPEC = DVHSpec(points=13)


def curves_of(path, prescription_gy, kind='prescription'):
  return wish.in_fractions(
    wish_file.read_curves(str(path), prescription_gy),
    STRUCTURES,
    Normalisation(kind),
    prescription_gy,
  )


def test_curves_in_gy_are_counted_in_the_mean_of_their_target(tmp_path):
  path = tmp_path / 'wish.csv'
  path.write_text(
    'structure,dose_gy,volume\nrectum,0,1\nrectum,80,0\nPTV,80,1\nPTV,88,0\n'
  )
  curves, reference = curves_of(path, 78.0, 'target_mean')
  assert reference.gy == pytest.approx(84) and reference.prescription_gy == 78
  assert curves['PTV'].mean_dose == pytest.approx(1)
  np.testing.assert_allclose(curves['rectum'].dose, [0, 80 / 84])
  with pytest.raises(WishError, match='one of a target'):
    wish.in_fractions(
      {'rectum': wish_file.read_curves(str(path), 78.0)['rectum']},
      STRUCTURES,
      Normalisation('target_mean'),
      78.0,
    )


def test_csv_and_json_of_one_curve_give_one_vector(tmp_path):
  table, listed = tmp_path / 'wish.csv', tmp_path / 'wish.json'
  table.write_text(
    'structure,dose_gy,volume\nrectum,0,1\nrectum,80,0\nPTV,80,1\nPTV,88,0\n'
  )
  listed.write_text(
    json.dumps(
      [
        {'structure': 'PTV', 'dose': [1.0, 1.1], 'volume': [1, 0]},
        {'structure': 'rectum', 'dose': [0, 1.0], 'volume': [1, 0]},
      ]
    )
  )
  expected = np.clip(1 - SPEC.levels, 0, 1)
  vectors = [
    wish.from_curves(curves_of(path, 80.0)[0], STRUCTURES, PRESENT, SPEC)
    for path in (table, listed)
  ]
  np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
  np.testing.assert_allclose(vectors[0][0], expected, atol=1e-6)


def test_dose_at_volume():
  curve = wish.Curve(np.array([0.2, 0.4, 1.0]), np.array([1, 0.5, 0]))
  spec = DVHSpec('dose_at_volume', 3)
  curves = {'rectum': curve, 'PTV': curve}
  vectors = wish.from_curves(curves, STRUCTURES, PRESENT, spec)
  np.testing.assert_allclose(vectors[0], [0.2, 0.4, 1.0])
  wish.check(vectors, STRUCTURES, PRESENT, spec)
  with pytest.raises(WishError, match='rises'):
    wish.check(vectors[:, ::-1], STRUCTURES, PRESENT, spec)


@pytest.mark.parametrize(
  'rows, reason',
  [
    ('rectum,0,1\nrectum,.5,.2\nrectum,.6,.3', 'rises from volume 0.2 to 0.3'),
    ('rectum,0,1\nrectum,1,-.5', r'leaves \[0, 1\]'),
    ('rectum,0,.9\nrectum,1,0', 'begins at volume 0.9'),
    ('rectum,0,1\nrectum,1,x', 'not a list of numbers'),
    ('rectum,0,1\nrectum,1,0', 'no curve of PTV'),
    ('rectum,0,1\nrectum,1,.5\nPTV,0,1\nPTV,1,0', 'carry it on to 0'),
    ('colon,0,1\ncolon,1,0', 'no such structure'),
  ],
)
def test_what_is_no_wish_is_refused(rows, reason, tmp_path):
  path = tmp_path / 'wish.csv'
  path.write_text(f'structure,dose,volume\n{rows}\n')
  with pytest.raises(WishError, match=reason):
    curves = wish_file.read_curves(str(path), 78.0)
    wish.from_curves(curves, STRUCTURES, PRESENT, SPEC)


def test_another_plan(cohort):
  present = cohort.present[0]
  vector, reference = wish.from_plan(cohort, 'p2', 1, present, 60.0)
  # As much of the prescription as in the plan.
  own = cohort.patients[2]
  assert reference.gy == pytest.approx(60 / 78 * own.reference_gy[1])
  assert reference.prescription_gy == 60
  np.testing.assert_array_equal(vector, cohort.dvh[2, 1])
  assert not wish.from_plan(cohort, 'p1', 0, present, 60.0)[0][1].any()
  with pytest.raises(WishError, match='p2 has no plan 9'):
    wish.from_plan(cohort, 'p2', 9, present, 60.0)
  with pytest.raises(CohortError, match="no patient 'x'; there are p0"):
    wish.from_plan(cohort, 'x', 0, present, 60.0)
