"""Equation (4) in dvhflax, scipy and torch; see run.py.

python benchmarks/projection.py dvhflax|scipy|torch B N

One set of N plans for B wishes.
"""

from measuring import answer
import numpy as np

ELEMENTS = 128


def _inputs(wishes, plans):
  rng = np.random.default_rng(0)
  desired = rng.random((wishes, ELEMENTS), np.float32)
  return desired, rng.random((plans, ELEMENTS), np.float32)


def dvhflax(wishes, plans):
  import jax.numpy as jnp

  from dvhflax.projection import project

  desired, pareto = map(jnp.asarray, _inputs(wishes, plans))
  pareto, valid = pareto[None], jnp.ones((1, plans), bool)
  return lambda: project(desired, pareto, valid).block_until_ready()


def scipy(wishes, plans):
  from scipy.spatial.distance import cdist

  desired, pareto = _inputs(wishes, plans)
  return lambda: cdist(desired, pareto, 'cityblock').argmin(1)


def torch(wishes, plans):
  import torch

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  desired, pareto = (
    torch.from_numpy(x).to(device) for x in _inputs(wishes, plans)
  )

  def call():
    nearest = torch.cdist(desired, pareto, p=1).argmin(1)
    if device == 'cuda':
      torch.cuda.synchronize()
    return nearest

  return call


if __name__ == '__main__':
  answer({f.__name__: f for f in (dvhflax, scipy, torch)})
