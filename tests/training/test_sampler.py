"""Samples: the same for the same step, projected as equation (4) says."""

import dataclasses

import jax
import numpy as np
import pytest

from dvhflax import errors
from dvhflax.training import feed, resident
from dvhflax.training.sampler import Sampler


def make(cohort, own=0.0, **options):
  return Sampler(cohort, 'train', seed=3, own_wish_share=own, **options)


def fixed(sampler, wishes):
  return sampler.samples(sampler.fixed(wishes))


def test_an_epoch_meets_every_plan_once(cohort):
  sampler = make(cohort)
  assert sampler.samples_per_epoch == 3 + 2 + 3 + 4 + 3
  seen = np.concatenate(
    [sampler.draw(s, 1).patients for s in range(sampler.samples_per_epoch)]
  )
  assert np.bincount(seen).tolist() == [3, 2, 3, 4, 3]


def test_steps_are_reproducible_and_differ(cohort):
  one, again = make(cohort).draw(7, 4), make(cohort).draw(7, 4)
  jax.tree.map(np.testing.assert_array_equal, one, again)
  other = make(cohort).draw(8, 4)
  assert not np.array_equal(one.wish_plans, other.wish_plans)


def test_labels_are_the_nearest_plans(cohort):
  samples = fixed(make(cohort), 20)
  for i, p in enumerate(samples.patients):
    wish = samples.desired_dvh[i]
    wished = wish.any(-1)
    distance = [
      np.abs(cohort.dvh[p, n] - wish)[wished].sum()
      for n in range(cohort.patients[p].plans)
    ]
    assert distance[samples.labels[i]] <= min(distance) + 1e-5
    assert cohort.valid[p, samples.labels[i]]


def test_wishes_stay_in_their_split(cohort):
  samples = Sampler(cohort, 'test', seed=0, own_wish_share=0.0).fixed(30)
  assert set(samples.wish_patients) <= set(cohort.split('test'))


def test_own_wish_is_its_own_label(cohort):
  samples = fixed(make(cohort, own=1.0), 10)
  np.testing.assert_array_equal(samples.wish_patients, samples.patients)
  # Plans that differ only in an absent structure have the same DVHs.
  np.testing.assert_array_equal(
    cohort.dvh[samples.patients, samples.labels],
    cohort.dvh[samples.patients, samples.wish_plans],
  )


def test_absent_structure_is_not_wished(cohort):
  samples = fixed(make(cohort), 20)
  lacking = (samples.patients == 1) | (samples.wish_patients == 1)
  assert lacking.any()
  assert not samples.desired_dvh[lacking, 1].any()


def prepare(masks, spacing_mm):
  """In place of a network's: where voxels are, in mm."""
  side = np.arange(masks.shape[0])[:, None, None] * spacing_mm[0]
  return {'ways': ({'side': side + np.zeros(masks.shape[:3], np.float32)},)}


def test_every_placement_feeds_the_same(cohort):
  sampler = make(cohort, mirrored_share=0.5)

  def run(placement):
    source = feed.Source(cohort, sampler.patients, placement, prepare)
    batches = feed.Feed(
      lambda step: sampler.draw(step, 2),
      lambda draw: source.batch(sampler, draw),
      range(2, 7),
      read_ahead=3,
    )
    return [feed.unpack(source.cohort, batch) for _, batch in batches]

  device, *others = map(run, ('device', 'memory', 'store'))
  assert len(device) == 5
  firsts = {float(x) for b in device for x in side(b)[:, 0, 0, 0]}
  assert len(firsts) == 2 and 0.0 in firsts  # whole and mirrored
  for other in others:
    jax.tree.map(np.testing.assert_array_equal, device, other)


def side(batch):
  return np.asarray(batch['prepared']['ways'][0]['side'])


def test_mirrored_patients_are_taken_left_for_right(cohort):
  sampler = make(cohort)
  source = feed.Source(cohort, sampler.patients, 'device')
  draw = sampler.draw(0, 3)
  whole = feed.unpack(source.cohort, draw)
  mirrored = feed.unpack(
    source.cohort,
    dataclasses.replace(draw, mirrored=np.array([True, False, True])),
  )
  for name in ('masks', 'dose'):
    a, b = np.asarray(whole[name]), np.asarray(mirrored[name])
    np.testing.assert_array_equal(a[[0, 2], ::-1], b[[0, 2]])
    np.testing.assert_array_equal(a[1], b[1])


def test_auto_takes_the_first_that_is_large_enough(cohort, monkeypatch):
  free = {'_free_on_device': 1e9, '_free_on_host': 1e9}
  for name in free:
    monkeypatch.setattr(feed, name, lambda name=name: free[name])
  patients = cohort.split('train')
  assert feed.resolve('auto', cohort, patients) == 'device'
  free['_free_on_device'] = 10
  assert feed.resolve('auto', cohort, patients) == 'memory'
  free['_free_on_host'] = 10
  assert feed.resolve('auto', cohort, patients) == 'store'


def test_a_wish_without_a_label_never_gets_the_plan_of_another(cohort):
  """-1 would be the last plan of the patient before."""
  sampler = make(cohort)
  places = resident.read(cohort, sampler.patients)
  draw = sampler.draw(0, 3)
  assert np.isfinite(resident.look_up(places, draw)['dose']).all()
  draw.desired_dvh[1, 0, 0] = np.nan
  looked_up = resident.look_up(places, draw)
  lost = np.isnan(looked_up['dose']).all((1, 2, 3))
  assert lost.tolist() == [False, True, False]
  # Nor does one who is not there.
  draw = dataclasses.replace(draw, patients=cohort.split('test')[[0, 1, 1]])
  assert np.isnan(resident.look_up(places, draw)['dose']).all()


def test_wishes_without_a_label_are_refused(cohort):
  sampler = make(cohort)
  draw = sampler.draw(0, 3)
  draw.desired_dvh[1, 0, 0] = np.nan
  with pytest.raises(errors.CohortError, match='no plan for a wish'):
    sampler.samples(draw)
  cohort.dvh = cohort.dvh.copy()
  cohort.dvh[draw.wish_patients[1], draw.wish_plans[1]] = np.nan
  with pytest.raises(errors.CohortError, match='DVH that is not finite'):
    make(cohort)
