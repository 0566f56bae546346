"""Excerpts of a store: the same cohort, with few of its arrays."""

import os

from conftest import SPLITS, make_patient, write_cohort
import numpy as np
import pytest

from dvhflax import errors
from dvhflax.cohort.excerpt import write_excerpt
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.validate import validate_cohort
from dvhflax.tuning import plan_metrics


@pytest.fixture
def excerpt(cohort, tmp_path) -> Cohort:
  write_excerpt(cohort, str(tmp_path / 'excerpt'), [7, 6], plans=2)
  return Cohort.open(tmp_path / 'excerpt')


def test_it_is_the_same_cohort(cohort, excerpt):
  assert excerpt.identity == cohort.identity
  assert excerpt.patients == cohort.patients
  assert excerpt.normalisation == cohort.normalisation
  np.testing.assert_array_equal(excerpt.dvh, cohort.dvh)
  np.testing.assert_array_equal(excerpt.valid, cohort.valid)
  reach, whole = (
    plan_metrics.reach_of(c, c.present[6]) for c in (excerpt, cohort)
  )
  np.testing.assert_array_equal(reach.usual, whole.usual)
  for p in (6, 7):
    np.testing.assert_array_equal(excerpt.masks(p), cohort.masks(p))
    for n in (0, 1):
      np.testing.assert_array_equal(excerpt.dose(p, n), cohort.dose(p, n))


def test_what_it_lacks_is_never_taken_for_zeros(excerpt):
  there = r'excerpt of a cohort.*2 doses each, of p7, p6$'
  for call in (
    lambda: excerpt.masks(5),
    lambda: excerpt.dose(5, 0),
    lambda: excerpt.dose(6, 2),
    lambda: excerpt.doses(6),
    lambda: excerpt.read([6, 5], [0, 0]),
  ):
    with pytest.raises(errors.CohortError, match=there):
      call()
  with pytest.raises(errors.CohortError, match=r'there are p7, p6$'):
    excerpt.index('p8')
  assert excerpt.reference(5, 0).gy > 0  # of a record, which is there


def test_it_is_validated_as_far_as_it_goes(excerpt):
  assert validate_cohort(excerpt.path) == []
  # The other patient's masks, whose checksum is that of neither damage.
  os.replace(
    f'{excerpt.path}/masks/c/7/0/0/0/0', f'{excerpt.path}/masks/c/6/0/0/0/0'
  )
  faults = validate_cohort(excerpt.path)
  assert any('p7' in fault for fault in faults)


def test_what_cannot_be_given_away(tmp_path):
  patients = [make_patient(i) for i in range(8)]
  write_cohort(tmp_path / 'ct', patients, SPLITS, ct=True)
  with pytest.raises(errors.CohortError, match='has CTs'):
    write_excerpt(Cohort.open(tmp_path / 'ct'), str(tmp_path / 'x'), [6])
  assert not (tmp_path / 'x').exists()
