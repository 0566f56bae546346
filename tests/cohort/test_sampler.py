"""Samples: the same for the same step, projected as equation (4) says."""

import jax
import numpy as np

from dvhflax.cohort.sampler import Reader, Sampler, feed


def make(cohort, own=0.0):
  return Sampler(cohort, 'train', seed=3, own_wish_share=own)


def test_an_epoch_meets_every_plan_once(cohort):
  sampler = make(cohort)
  assert sampler.samples_per_epoch == 3 + 2 + 3 + 4 + 3
  seen = np.concatenate(
    [sampler.at(s, 1).patients for s in range(sampler.samples_per_epoch)]
  )
  assert np.bincount(seen).tolist() == [3, 2, 3, 4, 3]


def test_steps_are_reproducible_and_differ(cohort):
  one, again = make(cohort).at(7, 4), make(cohort).at(7, 4)
  np.testing.assert_array_equal(one.patients, again.patients)
  np.testing.assert_array_equal(one.desired_dvh, again.desired_dvh)
  other = make(cohort).at(8, 4)
  assert not np.array_equal(one.desired_dvh, other.desired_dvh)


def test_labels_are_the_nearest_plans(cohort):
  samples = make(cohort).fixed(20)
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
  samples = make(cohort, own=1.0).fixed(10)
  np.testing.assert_array_equal(samples.wish_patients, samples.patients)
  # Plans that differ only in an absent structure have the same DVHs.
  np.testing.assert_array_equal(
    cohort.dvh[samples.patients, samples.labels],
    cohort.dvh[samples.patients, samples.wish_plans],
  )


def test_absent_structure_is_not_wished(cohort):
  samples = make(cohort).fixed(20)
  lacking = (samples.patients == 1) | (samples.wish_patients == 1)
  assert lacking.any()
  assert not samples.desired_dvh[lacking, 1].any()


def test_feed_from_memory_equals_feed_from_store(cohort):
  sampler = make(cohort)

  def run(in_memory):
    reader = Reader(cohort, sampler.patients, in_memory)
    return list(
      feed(
        sampler, reader, range(2, 7), batch_size=2, local=slice(0, 2),
        place=lambda batch: batch, read_ahead=3,
      )
    )  # fmt: skip

  memory, store = run(True), run(False)
  assert len(memory) == 5
  for (s, a), (t, b) in zip(memory, store):
    np.testing.assert_array_equal(s.labels, t.labels)
    jax.tree.map(np.testing.assert_array_equal, a, b)
