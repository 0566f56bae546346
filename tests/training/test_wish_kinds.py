"""Wishes of other patients, of the patient's own plans, and bent ones."""

import conftest
import jax
import numpy as np
import pytest

from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.dvh import DVHSpec
from dvhflax.training import feed
from dvhflax.training.checkpoint import Checkpoints
from dvhflax.training.sampler import Sampler
from dvhflax.training.setup import set_up


def make(cohort, own=0.0, bent=0.0, **options):
  return Sampler(
    cohort,
    'train',
    seed=3,
    own_wish_share=own,
    bent_wish_share=bent,
    **options,
  )


def test_without_bent_wishes_the_draws_are_those_of_before(cohort):
  """Recorded before there were any; a resumed run must go on with them."""
  draw = make(cohort, own=0.5, mirrored_share=0.5).draw(2, 5)
  assert draw.patients.tolist() == [2, 4, 2, 1, 3]
  assert draw.wish_patients.tolist() == [2, 4, 0, 3, 3]
  assert draw.wish_plans.tolist() == [0, 0, 0, 2, 1]
  assert draw.mirrored.tolist() == [False, False, True, False, True]
  assert not draw.bent.any()


def test_bending_moves_no_other_chance(cohort):
  """The same patients and the same mirrored ones, and the same plans."""
  plain = make(cohort, own=0.6, mirrored_share=0.5).draw(1, 6)
  mixed = make(cohort, own=0.3, bent=0.3, mirrored_share=0.5).draw(1, 6)
  assert mixed.bent.any() and not mixed.bent.all()
  for name in ('patients', 'wish_patients', 'wish_plans', 'mirrored'):
    np.testing.assert_array_equal(getattr(plain, name), getattr(mixed, name))
  same = ~mixed.bent
  np.testing.assert_array_equal(
    plain.desired_dvh[same], mixed.desired_dvh[same]
  )


def test_the_same_step_has_the_same_wishes(cohort):
  one, again, later = (
    make(cohort, bent=0.5).draw(step, 6) for step in (1, 1, 0)
  )
  jax.tree.map(np.testing.assert_array_equal, one, again)
  assert not np.array_equal(one.desired_dvh, later.desired_dvh)
  one, again = (make(cohort, bent=0.5).fixed(4) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, one, again)


@pytest.mark.parametrize('own, bent', [(0.3, 0.2), (0.0, 0.5), (0.4, 0.6)])
def test_shares_are_met(cohort, own, bent):
  draw = make(cohort, own, bent).fixed(160)
  number = len(draw.patients)
  # Four standard deviations.
  close = {'abs': 4 * np.sqrt(0.25 / number)}
  assert draw.bent.mean() == pytest.approx(bent, **close)
  same = draw.patients == draw.wish_patients
  assert same[draw.bent].all()
  # Any patient's may be the patient's own by chance.
  plans = cohort.valid.sum(1)
  chance = (plans[draw.patients] / plans[cohort.split('train')].sum()).mean()
  expected = own + bent + (1 - own - bent) * chance
  assert same.mean() == pytest.approx(expected, **close)


@pytest.mark.parametrize('kind', ['volume_at_dose', 'dose_at_volume'])
def test_bent_wishes_of_a_cohort(kind, tmp_path, monkeypatch):
  """Valid DVHs, other than the plan's, that every placement feeds alike."""
  monkeypatch.setattr(conftest, 'SPEC', DVHSpec(kind, 16))
  cohort = Cohort.open(conftest.make_tiny_cohort(tmp_path / 'cohort'))
  sampler = make(cohort, bent=0.7, mirrored_share=0.5)
  samples = sampler.samples(sampler.fixed(20))
  sign = 1 if kind == 'dose_at_volume' else -1
  for i, (p, n) in enumerate(zip(samples.patients, samples.wish_plans)):
    wish = samples.desired_dvh[i]
    if samples.bent[i]:
      assert np.abs(wish - cohort.dvh[p, n]).max() > 1e-6
      assert (sign * np.diff(wish) >= 0).all() and wish.min() >= 0
      assert (wish.any(1) == cohort.present[p]).all()
    # Equation (4), over the structures that both patients have.
    both = cohort.present[p] & cohort.present[samples.wish_patients[i]]
    assert not wish[~both].any()
    plans = cohort.dvh[p][cohort.valid[p]].astype(np.float64)
    distance = np.abs(plans - wish)[:, both].sum((1, 2))
    assert distance[samples.labels[i]] <= distance.min() + 1e-5
  lacking = samples.bent & ~cohort.present[samples.patients].all(1)
  assert lacking.any()

  def run(placement):
    source = feed.Source(cohort, sampler.patients, placement)
    unpack = jax.jit(feed.unpack)
    draws = [sampler.draw(step, 3) for step in range(3)]
    return [unpack(source.cohort, source.batch(sampler, d)) for d in draws]

  device, *others = map(run, ('device', 'memory', 'store'))
  for other in others:
    jax.tree.map(np.testing.assert_array_equal, device, other)


def test_a_plan_that_cannot_be_bent_is_named(cohort):
  cohort.dvh = cohort.dvh.copy()
  cohort.dvh[:, :, 1:] = 0
  assert not make(cohort, own=1.0).draw(0, 3).bent.any()
  with pytest.raises(errors.CohortError, match=r'p\d, plan \d: no random'):
    make(cohort, bent=1.0).draw(0, 3)


def test_validation_has_shares_of_its_own(config, cohort, tmp_path):
  config.data.bent_wish_share = 1.0
  config.data.validation_own_wish_share = 1.0
  workdir = str(tmp_path)
  run = set_up(config, cohort, workdir, Checkpoints(workdir, create=True))
  assert run.sampler.fixed(3).bent.all()
  held_out = run.validation.fixed(3)
  assert not held_out.bent.any()
  np.testing.assert_array_equal(held_out.patients, held_out.wish_patients)
