"""The network that comes with the package, on patients that come with it."""

import numpy as np
import pytest

import dvhflax
from dvhflax.tuning import wish

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def loaded():
  return dvhflax.load_network(dvhflax.pretrained('prostate'))


def test_it_answers_plans_of_the_patients(loaded):
  network, cohort = loaded
  assert cohort.metadata.excerpt
  for patient in cohort.metadata.excerpt.patients:
    session = dvhflax.Session(network, cohort, patient)
    first = session.first_dose()
    mean_gy = first.metrics['desired']['PTV']['mean']
    assert first.metrics['achieved']['PTV']['mean'] == pytest.approx(
      mean_gy, abs=2
    )
    plans = cohort.patients[cohort.index(patient)].plans
    for plan in (0, plans // 2, plans - 1):
      curves, reference = wish.from_plan(
        cohort, patient, plan, session.present, 78.0
      )
      step = session.tune(curves=curves, reference_gy=reference.gy)
      wanted, got = step.metrics['desired'], step.metrics['achieved']
      for structure, most_gy in (('bladder', 3), ('rectum', 3), ('PTV', 1.6)):
        off = got[structure]['mean'] - wanted[structure]['mean']
        assert abs(off) < most_gy, (patient, plan, structure)


def test_asking_less_of_the_rectum_gives_less(loaded):
  network, cohort = loaded
  session = dvhflax.Session(
    network, cohort, cohort.metadata.excerpt.patients[0]
  )
  session.first_dose()
  means = []
  for percent in (100, 90, 80, 70):
    base = session.steps[0]
    wanted = base.metrics['achieved']['rectum']['mean'] * percent / 100
    step = session.preview(f'rectum mean <= {wanted:.2f} Gy')
    rectum = session.masks[..., 2] > 0
    means.append(float(step.dose_gy[rectum].mean()))
  assert (np.diff(means) < 0).all()
