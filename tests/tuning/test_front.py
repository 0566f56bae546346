"""What can be had: a patient's own plans, or those of similar patients."""

import dataclasses

from conftest import GRID, STRUCTURES, make_patient
import numpy as np
import pytest
from toy_network import exact, outsider, toy_session

from dvhflax.cohort.store import Cohort
from dvhflax.cohort.writer import CohortWriter
from dvhflax.dvh import DVHSpec, dvh_vectors
from dvhflax.normalisation import Normalisation
from dvhflax.projection import project
from dvhflax.tuning.front import front_of

NAMES = ('body', 'rectum', 'PTV')


def test_own_plans_are_in_their_front(cohort):
  front = toy_session(cohort, 'p7').front
  assert front.kind == 'own' and front.plans == 4
  for plan in range(4):
    curves = cohort.dvh[7, plan]
    found = front.compare(curves)
    assert found.distance == 0 and found.plan == plan
    assert found.in_reach and found.in_the_way is None
    assert found.share == dict.fromkeys(NAMES, 0.0)


@pytest.mark.parametrize('kind', ['volume_at_dose', 'dose_at_volume'])
def test_the_band_has_the_gy_of_plans_with_different_references(tmp_path, kind):
  """One 1.0 is 70 Gy, the other 90 Gy; 78 Gy are prescribed."""
  spec = DVHSpec(kind, 400, 1.6)
  made = [
    dataclasses.replace(make_patient(n, plans=3), reference_gy=references)
    for n, references in enumerate(np.array([[70, 80, 90]] * 2, float))
  ]
  writer = CohortWriter(
    str(tmp_path / 'cohort'),
    structures=STRUCTURES,
    grid=GRID,
    dvh=spec,
    max_plans=3,
    patient_ids=[patient.id for patient in made],
    splits=['train', 'test'],
    provenance={'source': 'test'},
    normalisation=Normalisation('target_mean'),
  )
  for n, patient in enumerate(made):
    writer.write(n, patient)
  assert writer.finish()
  cohort = Cohort.open(tmp_path / 'cohort')
  for place in (1, None):  # its own plans, and those of a similar patient
    of = 1 if place else 0
    front = front_of(cohort, cohort.present[of], cohort.dvh[of, 0], place)
    assert front.plans == 3
    curves = np.array(
      [
        dvh_vectors(
          cohort.reference(of, plan).to_gy(cohort.dose(of, plan)) / 78,
          cohort.masks(of),
          spec,
        )
        for plan in range(3)
      ]
    )
    apart = [
      np.abs(front.low - curves.min(0)), np.abs(front.high - curves.max(0)),
    ]  # fmt: skip
    # Steps between levels alone are drawn otherwise.
    assert np.mean(apart) < 0.004 and np.median(apart) < 1e-3
    ptv = [spec.curve(one[2]).mean_dose * 78 for one in (front.low, front.high)]
    assert ptv == pytest.approx([70, 90], abs=0.5)


def test_the_distance_is_that_of_equation_4(cohort):
  session = toy_session(cohort, 'p7')
  rng = np.random.default_rng(0)
  flat = session.front.dvh.reshape(1, 4, -1)
  for _ in range(10):
    wish = rng.random(cohort.dvh[0, 0].shape, np.float32)
    found = session.front.compare(wish)
    nearest = int(project(wish.reshape(1, -1), flat, np.ones((1, 4), bool))[0])
    assert found.plan == nearest
    apart = np.abs(wish - session.front.dvh[nearest]).sum(-1)
    assert found.distance == pytest.approx(apart.sum(), rel=1e-5)
    assert list(found.share.values()) == pytest.approx(
      list(apart / apart.sum()), rel=1e-4
    )


@pytest.mark.parametrize('structure', range(3))
def test_the_structure_in_the_way_is_the_one_that_was_moved(cohort, structure):
  front = toy_session(cohort, 'p7').front
  wish = cohort.dvh[7, 2].copy()
  wish[structure, 1:] = 0  # not even the target has it so low
  found = front.compare(wish)
  assert not found.in_reach and found.in_the_way == NAMES[structure]
  assert max(found.share, key=found.share.get) == NAMES[structure]
  assert sum(found.share.values()) == pytest.approx(1)


def test_curves_between_two_plans_are_in_reach(cohort):
  front = toy_session(cohort, 'p7').front
  found = front.compare((cohort.dvh[7, 1] + cohort.dvh[7, 2]) / 2)
  assert 0 < found.distance <= front.usual and found.in_the_way is None


def test_a_structure_without_a_wish_does_not_count(cohort):
  front = toy_session(cohort, 'p7').front
  wish = cohort.dvh[7, 2].copy()
  wish[1] = 0
  found = front.compare(wish)
  assert found.distance == 0 and set(found.share) == {'body', 'PTV'}
  nothing = front.compare(np.zeros_like(wish))
  assert nothing.distance is None and nothing.in_the_way is None


def test_a_patient_from_outside_has_the_front_of_similar_ones(cohort):
  session = toy_session(cohort, outsider())
  front = session.front
  assert front.kind == 'similar'
  train = set(cohort.split('train'))
  assert set(front.owners) <= train
  # p1 lacks the rectum.
  assert set(front.owners) == train - {1}
  assert front.plans == cohort.valid[sorted(train - {1})].sum()
  for p in sorted(train - {1}):
    for plan in np.flatnonzero(cohort.valid[p]):
      assert front.compare(cohort.dvh[p, plan]).distance == 0


def test_a_patient_without_a_structure_is_like_those_with_and_without(cohort):
  front = toy_session(cohort, outsider(lacking=(1,))).front
  assert set(front.owners) == set(cohort.split('train'))
  assert not front.low[1].any() and not front.high[1].any()


def test_the_most_similar_ones_are_taken(cohort, monkeypatch):
  monkeypatch.setattr('dvhflax.tuning.front._SIMILAR_PATIENTS', 1)
  present = cohort.present[0]
  for p in (0, 2, 3, 4):
    mean = cohort.dvh[p][cohort.valid[p]].mean(0)
    front = front_of(cohort, present, mean)
    assert set(front.owners) == {p}
    # Its own plans are not those of another.
    assert p not in front_of(few_plans(cohort), present, mean, p).owners[:-2]


def few_plans(cohort):
  """The same, but that all have two plans only."""
  fewer = exact(cohort)
  fewer.valid = cohort.valid & (np.arange(cohort.valid.shape[1]) < 2)
  return fewer


def test_few_plans_are_no_front_of_their_own_but_a_part(cohort):
  fewer = few_plans(cohort)
  front = front_of(fewer, cohort.present[7], cohort.dvh[7, 0], 7)
  assert front.kind == 'similar'
  assert list(front.owners[-2:]) == [7, 7]
  assert front.compare(cohort.dvh[7, 1]).distance == 0


def test_a_cohort_without_a_similar_patient(cohort):
  """None of the training patients has the structures."""
  lacking = exact(cohort)
  lacking.present = np.zeros_like(cohort.present)
  front = front_of(lacking, cohort.present[0], cohort.dvh[0, 0])
  assert front.plans == 0
  found = front.compare(cohort.dvh[0, 0])
  assert found.distance is None and not found.in_reach
  assert dataclasses.asdict(found)['share'] == {}


def test_the_front_does_not_depend_on_when_it_is_asked_for(cohort):
  one, other = (toy_session(cohort, outsider()) for _ in range(2))
  early = one.front
  other.tune('rectum mean <= 30 Gy')
  np.testing.assert_array_equal(early.dvh, other.front.dvh)
  before = toy_session(cohort, outsider(), first=False).front
  np.testing.assert_array_equal(early.dvh, before.dvh)
