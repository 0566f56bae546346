"""The input pipeline alone, a cohort of noise; see run.py.

python benchmarks/feeding.py device|memory|store B X Y Z
"""

import functools
import os
import tempfile

import jax
from measuring import answer
import numpy as np

from dvhflax import parallel
from dvhflax.cohort import feed
from dvhflax.cohort.sampler import Sampler
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.writer import CohortWriter
from dvhflax.dvh import DVHSpec
from dvhflax.patient import Patient, Structure

NAMES = {'body': 'body', 'bladder': 'oar', 'rectum': 'oar', 'PTV': 'target'}
PATIENTS, PLANS = 6, 10


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


def pipeline(placement, batch, *grid):
  """A batch, from the draw to masks, wish and dose on the device."""
  folder = tempfile.TemporaryDirectory()
  cohort = _cohort(os.path.join(folder.name, 'noise'), grid)
  sampler = Sampler(cohort, 'train', seed=0, own_wish_share=0.0)
  source = feed.Source(cohort, sampler.patients, placement)
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


if __name__ == '__main__':
  answer(
    {
      name: functools.partial(pipeline, name)
      for name in ('device', 'memory', 'store')
    }
  )
