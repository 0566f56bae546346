"""How well sets of plans cover a patient's Pareto front.

python benchmarks/planning_coverage.py [--patients=3] [--figure=FILE]

For sets of N plans: the L1 distance, per structure and DVH level, of fresh
plans of random weights to the nearest plan of the set, mean and 95th
percentile; beside it that of N random weightings. Simulated patients, 64x64x32.
And what half the iterations would change.
"""

import argparse

import jax.numpy as jnp
import numpy as np

from dvhflax.dvh import DVHSpec, dvh_vectors
from dvhflax.planning import fluence as fluence_lib
from dvhflax.planning import pareto
from dvhflax.planning.planner import Model, cover
from dvhflax.planning.trade_offs import TradeOffs
from dvhflax.sites.prostate import PROTOCOL
from dvhflax.sources.anatomy import sample_anatomy

GRID, SPACING = (64, 64, 32), (7.5, 5.0, 6.0)
SETS, FRESH = (10, 30, 100, 300), 100
SPEC = DVHSpec('volume_at_dose', 32, 1.2)
SEEN = ('PTV', 'rectum', 'bladder')


def solved(model, weights, start):
  """`[N, X, Y, Z]` doses in fractions of the prescription."""
  solution = fluence_lib.solve(
    model.problem,
    jnp.asarray(weights, jnp.float32),
    start,
    gap=PROTOCOL.gap,
    most_iterations=PROTOCOL.most_iterations,
  )
  return scaled(model, solution.fluence), solution.iterations


def scaled(model, fluence):
  """As plans are scaled, in fractions of the prescription."""
  return model.scaled_gy(fluence) / PROTOCOL.prescription_gy


def curves(dose, masks):
  """`[N, S, K]` DVHs of `[N, X, Y, Z]`."""
  stack = np.stack([masks[name] for name in SEEN], -1)
  return np.stack([dvh_vectors(one, stack, SPEC) for one in dose])


def measure(index):
  """A patient: coverage by (kind, N), change by half the iterations, means."""
  rng = np.random.default_rng([7, index])
  masks = sample_anatomy(np.random.default_rng([0, index]), GRID, SPACING).masks
  model = Model.of(masks, SPACING, PROTOCOL)
  trade_offs = TradeOffs.of(PROTOCOL, list(masks))

  def random(plans):
    weights = trade_offs.weights(rng.random((plans, len(trade_offs.axes))))
    return curves(solved(model, weights, model.flat(plans))[0], masks)

  fresh = random(FRESH)
  found, means = {}, {}
  for plans in SETS:
    dose, _ = solved(model, *cover(model, list(masks), plans))
    found['chosen', plans] = pareto.coverage(curves(dose, masks), fresh)
    found['random', plans] = pareto.coverage(random(plans), fresh)
    means[plans] = [
      PROTOCOL.prescription_gy * dose[:, masks[s] > 0].mean(1) for s in SEEN[1:]
    ]
  return found, halved(model, masks), means


def halved(model, masks):
  """Largest change of D98 to D2 of any structure, % of the prescription."""
  weights, start = cover(model, list(masks), 10)
  dose, iterations = solved(model, weights, start)
  half = fluence_lib.approach(
    model.problem, jnp.asarray(weights, jnp.float32), start, iterations // 2
  )
  half = scaled(model, half)
  share = np.linspace(0.02, 0.98, 49)
  change = [
    np.quantile(d[:, masks[s] > 0], share, axis=1)
    for d in (dose, half)
    for s in SEEN
  ]
  pairs = zip(change[:3], change[3:])
  return 100 * max(np.abs(a - b).max() for a, b in pairs), iterations


def draw(path, means):
  """Rectum and bladder means of one patient's sets."""
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(
    1, len(SETS), figsize=(12, 3.2), sharex=True, sharey=True, squeeze=False
  )
  for axis, plans in zip(axes[0], SETS):
    axis.plot(*means[plans], 'o', markersize=5 if plans < 50 else 2)
    axis.set(title=f'{plans} plans', xlabel='rectum mean, Gy')
    axis.grid(alpha=0.3)
  axes[0][0].set(ylabel='bladder mean, Gy')
  figure.tight_layout()
  figure.savefig(path, dpi=110)


def main() -> None:
  """Prints the tables."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--patients', type=int, default=3)
  parser.add_argument('--figure')
  options = parser.parse_args()
  results = [measure(index) for index in range(options.patients)]
  print('| plans | mean | 95th percentile | random: mean | 95th percentile |')
  print('| ---: | ---: | ---: | ---: | ---: |')
  for plans in SETS:
    row = [
      np.mean([found[kind, plans][k] for found, _, _ in results])
      for kind in ('chosen', 'random')
      for k in (0, 1)
    ]
    print(f'| {plans} | ' + ' | '.join(f'{v:.3f}' for v in row) + ' |')
  for index, (_, (change, iterations), _) in enumerate(results):
    print(
      f'patient {index}: half of {iterations} iterations changes DVH points by '
      f'up to {change:.2f}% of the prescription'
    )
  if options.figure:
    draw(options.figure, results[0][2])


if __name__ == '__main__':
  main()
