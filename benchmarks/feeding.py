"""The input pipeline, alone and under updates, a cohort of noise; see run.py.

python benchmarks/feeding.py samples-PLACE|updates-PLACE B X Y Z

PLACE, of the cohort, is `device`, `memory` or `store`.
"""

import functools
import os
import tempfile

import jax
import jax.numpy as jnp
from measuring import answer
import numpy as np
import optax

from dvhflax.cohort.store import Cohort
from dvhflax.cohort.writer import CohortWriter
from dvhflax.dvh import DVHSpec
from dvhflax.models.unet import UNet
from dvhflax.patient import Patient, Structure
from dvhflax.training import feed, parallel
from dvhflax.training.sampler import Sampler
from dvhflax.training.step import create_state, make_train_step

NAMES = {'body': 'body', 'bladder': 'oar', 'rectum': 'oar', 'PTV': 'target'}
PATIENTS, PLANS = 6, 10
UPDATES, READ_AHEAD = 16, 4


def _cohort(path, grid):
  writer = CohortWriter(
    path,
    structures=[Structure(name, role) for name, role in NAMES.items()],
    grid=grid,
    dvh=DVHSpec(),
    max_plans=PLANS,
    patient_ids=[str(i) for i in range(PATIENTS)],
    splits=['train'] * (PATIENTS - 2) + ['validation', 'test'],
    provenance={'source': 'noise'},
  )
  for i in range(PATIENTS):
    rng = np.random.default_rng(i)
    patient = Patient(
      id=str(i),
      masks=(rng.random((*grid, len(NAMES))) < 0.2).astype(np.uint8),
      present=np.ones(len(NAMES), bool),
      spacing_mm=(3.0, 3.0, 3.0),
      dose=rng.random((PLANS, *grid), np.float32),
      reference_gy=np.full(PLANS, 78.0),
      prescription_gy=78.0,
      plan_weights=np.zeros((PLANS, 0)),
      provenance={},
    )
    writer.write(i, patient)
  writer.finish()
  return Cohort.open(path)


def _source(placement, grid):
  folder = tempfile.TemporaryDirectory()
  cohort = _cohort(os.path.join(folder.name, 'noise'), grid)
  sampler = Sampler(cohort, 'train', seed=0, own_wish_share=0.0)
  return folder, sampler, feed.Source(cohort, sampler.patients, placement)


def samples(placement, batch, *grid):
  """A batch, from the draw to masks, wish and dose on the device."""
  folder, sampler, source = _source(placement, grid)
  steps = sampler.steps_per_epoch(batch)
  unpack = jax.jit(feed.unpack)
  step = 0

  def call(_keep=folder):
    nonlocal step
    made = source.batch(sampler, sampler.draw(step % steps, batch))
    made = jax.device_put(made, parallel.replicated())
    jax.block_until_ready(unpack(source.cohort, made))
    step += 1

  return call


def updates(placement, batch, *grid):
  """16 updates of the paper's network in bfloat16, read ahead as in training.

  The device is waited for at their end alone.
  """
  folder, sampler, source = _source(placement, grid)
  shape = (len(NAMES), DVHSpec().points)
  model = UNet(
    grid=grid,
    dvh_shape=shape,
    dtype=jnp.bfloat16,
    axis_name=parallel.AXIS,
  )
  tx = optax.adam(1e-3)
  statistics = {
    'mean': np.zeros(shape, np.float32),
    'spread': np.ones(shape, np.float32),
  }
  state = parallel.replicate(
    lambda key: create_state(model, tx, statistics, key), jax.random.key(0)
  )
  step = make_train_step(model, tx, 1000)

  def call(_keep=folder):
    nonlocal state
    batches = feed.Feed(
      lambda number: sampler.draw(number, batch),
      lambda draw: parallel.shard(source.batch(sampler, feed.local(draw))),
      range(UPDATES),
      READ_AHEAD,
    )
    for _, fed in batches:
      state, loss = step(state, source.cohort, fed, jax.random.key(1))
    jax.block_until_ready((state, loss))

  return call


if __name__ == '__main__':
  answer(
    {
      f'{case.__name__}-{place}': functools.partial(case, place)
      for case in (samples, updates)
      for place in ('device', 'memory', 'store')
    }
  )
