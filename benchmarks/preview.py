"""What a step of a tuning session costs beside the network.

python benchmarks/preview.py [X Y Z [PLANS]]

Masks are ellipsoids within a body, the network answers at once with a dose that
was drawn before, so that all that is measured is reading the dose: a preview,
as while a handle is dragged, with ten goals and the distance to the front of
PLANS plans, and a step that is kept.
"""

import sys
import time
from types import SimpleNamespace

import numpy as np

from dvhflax.dvh import DVHSpec, dvh_vectors
from dvhflax.normalisation import Normalisation
from dvhflax.patient import Patient
from dvhflax.sites import PROSTATE
from dvhflax.training.runs import Network
from dvhflax.tuning import front
from dvhflax.tuning.session import Session

SPEC = DVHSpec(points=32)
# Centres and half axes, in fractions of the grid.
ELLIPSOIDS = (
  ((0.5, 0.5, 0.5), (0.47, 0.38, 0.6)),  # body
  ((0.5, 0.38, 0.65), (0.1, 0.09, 0.18)),  # bladder
  ((0.5, 0.65, 0.5), (0.06, 0.07, 0.3)),  # rectum
  ((0.5, 0.5, 0.5), (0.09, 0.09, 0.14)),  # PTV
)
TRAINING, PATIENTS = 48, 60


def masks_on(grid):
  axes = np.ix_(*(np.linspace(0, 1, n) for n in grid))
  return np.stack(
    [
      sum(((u - c) / h) ** 2 for u, c, h in zip(axes, centre, half)) < 1
      for centre, half in ELLIPSOIDS
    ],
    axis=-1,
  ).astype(np.uint8)


def doses_on(grid, number, rng):
  axes = np.ix_(*(np.linspace(-1, 1, n) for n in grid))
  far = sum(4 * u**2 for u in axes)
  return [
    (np.exp(-far * rng.uniform(0.8, 1.2)) + 0.02 * rng.random(grid)).astype(
      np.float32
    )
    for _ in range(number)
  ]


def session(grid, plans):
  """Of a patient from outside; a cohort that is not on disk."""
  rng = np.random.default_rng(0)
  masks = masks_on(grid)
  drawn = doses_on(grid, 4, rng)
  curves = np.stack([dvh_vectors(dose, masks, SPEC) for dose in drawn])
  shift = rng.uniform(-0.05, 0.05, (PATIENTS, plans, 1, 1))
  cohort = SimpleNamespace(
    structures=PROSTATE.structures,
    grid=grid,
    dvh_spec=SPEC,
    normalisation=Normalisation('prescription'),
    dvh=np.clip(curves[0] + shift, 0, 1).astype(np.float32),
    valid=np.ones((PATIENTS, plans), bool),
    present=np.ones((PATIENTS, len(PROSTATE.structures)), bool),
    split=lambda name: np.arange(TRAINING),
  )
  answers = iter(range(1 << 62))
  network = Network(
    encode=lambda masks: None,
    # Another array each time, as a network gives.
    decode=lambda _, desired: drawn[next(answers) % len(drawn)].view(),
    mean_dvh=curves.mean(0),
    identity={'workdir': 'none'},
  )
  patient = Patient(
    'drawn', masks, masks.any((0, 1, 2)), (3.0, 3.0, 3.0),
    np.zeros((0, *grid), np.float32), np.zeros(0), 78.0, np.zeros((0, 0)), {},
  )  # fmt: skip
  return Session(network, cohort, patient)


def seconds(call, repeats=30):
  call()
  taken = []
  for _ in range(repeats):
    start = time.perf_counter()
    call()
    taken.append(time.perf_counter() - start)
  return float(np.median(taken)), float(np.quantile(taken, 0.95))


def main():
  sizes = [int(n) for n in sys.argv[1:]] or [128, 128, 64]
  grid, plans = tuple(sizes[:3]), (sizes[3:] or [30])[0]
  start = time.perf_counter()
  one = session(grid, plans)
  opened = time.perf_counter()
  one.first_dose()
  first = time.perf_counter()
  band = one.front
  print(f'open {opened - start:.3f} s (with the drawing of doses)')
  print(f'first dose {first - opened:.3f} s')
  print(f'front of {band.plans} {time.perf_counter() - first:.3f} s')
  goals = list(PROSTATE.templates[0].goals)
  points = 'rectum V60 <= 5%; bladder mean <= 20 Gy'
  answer = one.preview(points)
  parts = {
    'preview': lambda: one.preview(points),
    '  of it the bend': lambda: one._wish(points, None, None),
    '  of it the ranks': lambda: one._subject.voxels.rank(answer.dose),
    f'{len(goals)} goals of it': lambda: one.assess(goals, answer),
    'its distance to the front': lambda: band.compare(answer.dvh),
    'a step': lambda: one.tune(points),
  }
  one.assess(goals, answer)
  for name, call in parts.items():
    median, most = seconds(call)
    print(f'{name:28} {1e3 * median:7.2f} ms, 95% within {1e3 * most:.2f} ms')
  own = front.front_of(one.cohort, one.present, answer.dvh, 0)
  print(f'own front: {own.plans} plans')


if __name__ == '__main__':
  main()
