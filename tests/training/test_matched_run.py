"""Training with a matched dose: a first network within, resumed, mirrored."""

import dataclasses
import functools
import os

from conftest import make_matched_config
import jax
import numpy as np
import pytest

from dvhflax.models import build
from dvhflax.training import feed, first_dose, history
from dvhflax.training import runs as networks
from dvhflax.training.sampler import Sampler
from dvhflax.training.train import train


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
def test_it_trains_with_the_first_network_as_it_is(matched_run):
  _, variables, _, _, step = networks.restore(matched_run, 'latest')
  assert step == 4
  within = first_dose.workdir_of(matched_run)
  assert history.read(within)[-1]['step'] == 4
  alone = networks.restore(within)[1]
  kept = variables['first_dose']['network']
  assert_same(kept['params'], alone['params'])
  assert_same(kept['batch_stats'], alone['batch_stats'])
  # The dose's layer begins at 0.
  for params in (variables['params'], kept['params']):
    assert np.abs(params['dose']['kernel']).max() > 0


@pytest.mark.slow
def test_a_run_in_two_parts_equals_one(
  matched_run, cohort, cohort_path, tmp_path
):
  config, workdir = make_matched_config(cohort_path), str(tmp_path)
  config.max_steps = 2
  train(config, cohort, workdir)
  of_first = os.path.join(first_dose.workdir_of(workdir), 'history.csv')
  written = os.stat(of_first).st_mtime_ns
  config.max_steps = 4
  state = train(config, cohort, workdir)
  whole = networks.restore(matched_run, 'latest')[1]
  assert int(state.step) == 4
  assert_same(jax.device_get(state.model), jax.device_get(whole))
  # The first network is not trained again.
  assert os.stat(of_first).st_mtime_ns == written


@pytest.fixture(scope='module')
def prepare(matched_run):
  """Of the run's network, as the training has it."""
  model, variables, _, _, _ = networks.restore(matched_run, 'latest')
  constants = {k: v for k, v in variables.items() if k != 'params'}
  return functools.partial(build.prepare(model), constants)


def test_every_placement_feeds_what_is_prepared(cohort, prepare):
  sampler = Sampler(
    cohort, 'train', seed=0, own_wish_share=0.5, mirrored_share=0.5
  )
  draw = sampler.draw(0, 6)
  assert 0 < draw.mirrored.sum() < 6
  whole = dataclasses.replace(draw, mirrored=np.zeros(6, bool))

  def fed(placement, draw):
    source = feed.Source(cohort, sampler.patients, placement, prepare)
    batch = feed.unpack(source.cohort, source.batch(sampler, draw))
    return jax.device_get(batch)

  device, *others = (fed(p, draw) for p in ('device', 'memory', 'store'))
  for other in others:
    assert_same(device, other)
  plain = fed('store', whole)
  assert set(plain['prepared']) == {'open_fields', 'ways'}
  for name in ('masks', 'dose', 'prepared'):
    for x, y in zip(
      jax.tree.leaves(plain[name]), jax.tree.leaves(device[name]), strict=True
    ):
      flipped = np.where(
        draw.mirrored.reshape(-1, *[1] * (x.ndim - 1)), x[:, ::-1], x
      )
      np.testing.assert_array_equal(y, flipped)
  # Each sample has its own patient's.
  for row, patient in enumerate(draw.patients):
    alone = prepare(cohort.masks(int(patient)), np.float32([3, 3, 5]))
    mine = jax.tree.map(lambda x, row=row: x[row], plain['prepared'])
    assert_same(mine, jax.device_get(alone))
