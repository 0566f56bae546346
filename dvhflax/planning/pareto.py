"""Chooses plans that cover a patient's Pareto front.

Evenly spread weights do not give evenly spread plans: most of a weight's range
may change nothing. So many candidates are planned coarsely, and a subset is
chosen so that no candidate's DVH is far from a chosen one: the medians of the
k-median problem, starting with the anchor plans, by greedy choice (Cornuejols,
Fisher and Nemhauser 1977) and then by alternation between the nearest median
and the best median (Maranzana 1964).
"""

import heapq

import numpy as np
from scipy.spatial.distance import cdist

# Alternations end when nothing changes, which takes fewer.
_MOST_SWEEPS = 30


def distances(curves: np.ndarray, others: np.ndarray) -> np.ndarray:
  """`[C, D]` L1 distances of DVH vectors `[C, ...]` and `[D, ...]`."""
  return cdist(
    curves.reshape(len(curves), -1),
    others.reshape(len(others), -1),
    'cityblock',
  )


def choose(distance: np.ndarray, count: int, fixed: int) -> np.ndarray:
  """Candidates with a small distance from the others to the nearest of them.

  Args:
    distance: `[C, C]` between candidates.
    count: how many to choose, at most C.
    fixed: the first `fixed` candidates are always chosen.

  Returns:
    `[count]` indices, the fixed ones first.
  """
  chosen = list(range(min(fixed, count)))
  nearest = distance[:, chosen].min(1, initial=np.inf)
  # Before any is chosen, distances count as just above the farthest pair.
  nearest = np.minimum(nearest, distance.max(initial=0) + 1)
  # What a candidate would gain only shrinks as others are chosen.
  gains = [
    (-np.maximum(nearest - distance[i], 0).sum(), i)
    for i in range(len(chosen), len(distance))
  ]
  heapq.heapify(gains)
  while len(chosen) < count:
    _, best = heapq.heappop(gains)
    gain = np.maximum(nearest - distance[best], 0).sum()
    if gains and -gain > gains[0][0]:
      heapq.heappush(gains, (-gain, best))
      continue
    chosen.append(best)
    nearest = np.minimum(nearest, distance[best])
  return _alternate(distance, np.array(chosen), fixed)


def _alternate(
  distance: np.ndarray, chosen: np.ndarray, fixed: int
) -> np.ndarray:
  for _ in range(_MOST_SWEEPS):
    owner = distance[:, chosen].argmin(1)
    better = chosen.copy()
    for k in range(fixed, len(chosen)):
      members = np.flatnonzero(owner == k)
      if len(members):
        within = distance[np.ix_(members, members)]
        better[k] = members[within.sum(0).argmin()]
    if (better == chosen).all():
      break
    chosen = better
  return chosen


def coverage(curves: np.ndarray, fresh: np.ndarray) -> tuple[float, float]:
  """How far fresh plans are from the nearest of a set, by DVH vectors.

  Args:
    curves: `[N, ...]` of the set.
    fresh: `[M, ...]` of plans that the set was not made from.

  Returns:
    Mean and 95th percentile of the L1 distance.
  """
  nearest = distances(fresh, curves).min(1)
  return float(nearest.mean()), float(np.quantile(nearest, 0.95))
