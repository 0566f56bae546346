"""How well a network obeys: measures of answers to a patient's own plans.

Each test patient's own plans are the wishes, so that each wish can be met and
its right answer is known. All functions are of arrays; `own_wishes` predicts.
Doses are in %, of whatever they are fractions of; see docs/obedience.md.
"""

import dataclasses
from typing import Any

import numpy as np

from dvhflax.evaluation.dose_metrics import LEVELS
from dvhflax.report.sample_errors import statistics

# All in %. Wishes differ in a structure if their mean doses there do by this.
DIFFERENT = 1.0
# They do not differ if their mean doses there do by less than this.
SAME = 0.3
# A standard deviation of the wished values below which no slope is fitted.
HARDLY = 0.2
# What doses that are kept as float16 are rounded by: a dose that dominates is
# lower by more than this.
LOWER = 0.05
# Coverage that is lower by no more than this is no worse.
COVERAGE_TOLERANCE = 0.1
# A prediction is beyond the front that is better than a plan by more than this.
BEYOND = 0.5


@dataclasses.dataclass(frozen=True)
class Answers:
  """What M wishes asked for and what was predicted, over P patients.

  Attributes:
    patients: `[M]` any number a patient.
    wished_mean, achieved_mean: `[M, S]` mean doses in %; NaN where a structure
      is absent, here and below.
    wished_max, achieved_max: `[M, S]` maximum doses in %.
    wished_volume, achieved_volume: `[M, S, L]` % of the volume that receives
      `LEVELS` or more.
    from_plans: `[M]` distance of the predicted DVH to the nearest of the
      patient's plans, the mean absolute difference of an element.
    from_wish: `[M]` likewise to the wish.
    dominated, beyond: `[M]` see `shares`.
    between_plans: `[P]` distance of a plan to the nearest other one, the mean
      over a patient's plans; NaN where there is one.
    plans_dominated, plans_beyond: `[P]` shares of a patient's plans that are
      dominated by, or beyond, another one.
  """

  patients: np.ndarray
  wished_mean: np.ndarray
  achieved_mean: np.ndarray
  wished_max: np.ndarray
  achieved_max: np.ndarray
  wished_volume: np.ndarray
  achieved_volume: np.ndarray
  from_plans: np.ndarray
  from_wish: np.ndarray
  dominated: np.ndarray
  beyond: np.ndarray
  between_plans: np.ndarray
  plans_dominated: np.ndarray
  plans_beyond: np.ndarray


def spread(values: np.ndarray, patients: np.ndarray) -> float:
  """Standard deviation of `[M]` values about each patient's mean."""
  has = ~np.isnan(values)
  if not has.any():
    return float('nan')
  return float(_centred(values[has], patients[has]).std())


def slope(
  wished: np.ndarray, achieved: np.ndarray, patients: np.ndarray
) -> float:
  """Least-squares slope of achieved on wished values within patients.

  Each patient's means are taken off first, so that what patients differ in
  does not count.

  Args:
    wished, achieved: `[M]` in %.
    patients: `[M]`.

  Returns:
    1 is ideal, 0 the slope of a network that ignores the wish; NaN where the
    wished values vary by less than `HARDLY`.
  """
  has = ~np.isnan(wished)
  if not spread(wished, patients) >= HARDLY:
    return float('nan')
  x = _centred(wished[has], patients[has])
  y = _centred(achieved[has], patients[has])
  return float(x @ y / (x @ x))


def right_order(
  wished: np.ndarray, achieved: np.ndarray, patients: np.ndarray
) -> tuple[float, int]:
  """How often the higher of two wishes gets the higher dose.

  Args:
    wished, achieved: `[M]` mean doses of a structure in %.
    patients: `[M]`; only wishes of one patient are compared.

  Returns:
    Share of the pairs that differ by `DIFFERENT` or more, NaN without one, and
    the number of these pairs. Equal answers are not in order.
  """
  asked, found = (
    _pairs(x[:, None], patients)[:, 0] for x in (wished, achieved)
  )
  counts = np.abs(asked) >= DIFFERENT
  right = asked[counts] * found[counts] > 0
  return _mean(right), int(counts.sum())


def cross_talk(
  wished: np.ndarray, achieved: np.ndarray, patients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """How far a structure moves when two wishes differ in others only.

  Pairs of wishes of one patient count whose mean doses differ by less than
  `SAME` in the structure, and by `DIFFERENT` or more in another one.

  Args:
    wished, achieved: `[M, S]` mean doses in %.
    patients: `[M]`.

  Returns:
    `[S]` mean absolute change beyond the wished one, in %, NaN without a pair;
    `[S]` numbers of pairs.
  """
  asked, found = _pairs(wished, patients), _pairs(achieved, patients)
  differ = np.abs(asked) >= DIFFERENT
  moved = np.full(wished.shape[1], np.nan)
  pairs = np.zeros(wished.shape[1], int)
  for s in range(wished.shape[1]):
    others = np.delete(differ, s, axis=1).any(1)
    counts = others & (np.abs(asked[:, s]) < SAME)
    moved[s] = _mean(np.abs(found[counts, s] - asked[counts, s]))
    pairs[s] = counts.sum()
  return moved, pairs


def shares(
  doses: np.ndarray,
  coverage: np.ndarray,
  others: np.ndarray,
  others_coverage: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Which doses another one beats, and which beat another one.

  Args:
    doses: `[M, O]` mean doses of the organs at risk and the body in %, less is
      better.
    coverage: `[M, C]` of the target in %, more is better; lower by up to
      `COVERAGE_TOLERANCE` is no worse.
    others, others_coverage: `[N, O]` and `[N, C]`, to compare with.

  Returns:
    `[M]` bool, dominated: some other is lower by more than `LOWER` in every
    organ, its coverage no worse. `[M]` bool, beyond: the dose is no higher than
    some other in any organ, lower by more than `BEYOND` in one, and its
    coverage no worse.
  """
  less = others[None] - doses[:, None]
  covered = others_coverage[None] - coverage[:, None]
  dominated = (less < -LOWER).all(-1) & (covered >= -COVERAGE_TOLERANCE).all(-1)
  beyond = (
    (less >= 0).all(-1)
    & (less > BEYOND).any(-1)
    & (covered <= COVERAGE_TOLERANCE).all(-1)
  )
  return dominated.any(1), beyond.any(1)


def summary(answers: Answers, structures: list[str]) -> dict[str, Any]:
  """All measures, JSON-serialisable; None for what has no value.

  Returns:
    `wishes`, `patients`; `structures`: by name `slope` (of the mean dose and
    the volumes), `wished_spread` of the same, `right_order` and `order_pairs`,
    `cross_talk` and `cross_talk_pairs`, errors of `mean_dose` and `max_dose`,
    wished minus achieved; `front`: distances and shares.
  """
  moved, pairs = cross_talk(
    answers.wished_mean, answers.achieved_mean, answers.patients
  )
  rows: dict[str, Any] = {}
  for s, name in enumerate(structures):
    varied = {
      'mean_dose': (answers.wished_mean[:, s], answers.achieved_mean[:, s])
    }
    for k, level in enumerate(LEVELS):
      varied[f'V{100 * level:g}%'] = (
        answers.wished_volume[:, s, k],
        answers.achieved_volume[:, s, k],
      )
    order, order_pairs = right_order(*varied['mean_dose'], answers.patients)
    rows[name] = {
      'slope': {
        what: _number(slope(*values, answers.patients))
        for what, values in varied.items()
      },
      'wished_spread': {
        what: _number(spread(wished, answers.patients))
        for what, (wished, _) in varied.items()
      },
      'right_order': _number(order),
      'order_pairs': order_pairs,
      'cross_talk': _number(moved[s]),
      'cross_talk_pairs': int(pairs[s]),
    }
    for what, wished, achieved in (
      ('mean_dose', answers.wished_mean, answers.achieved_mean),
      ('max_dose', answers.wished_max, answers.achieved_max),
    ):
      values = dataclasses.asdict(statistics((wished - achieved)[:, s]))
      rows[name][what] = {k: _number(v) for k, v in values.items()}
  several = ~np.isnan(answers.between_plans)
  return {
    'wishes': len(answers.patients),
    'patients': len(np.unique(answers.patients)),
    'structures': rows,
    'front': {
      'from_plans': _number(_mean_of_patients(answers.from_plans, answers)),
      'from_wish': _number(_mean_of_patients(answers.from_wish, answers)),
      'between_plans': _number(_mean(answers.between_plans[several])),
      'dominated': _number(_mean_of_patients(answers.dominated, answers)),
      'beyond': _number(_mean_of_patients(answers.beyond, answers)),
      'plans_dominated': _number(_mean(answers.plans_dominated)),
      'plans_beyond': _number(_mean(answers.plans_beyond)),
    },
  }


def _centred(values: np.ndarray, patients: np.ndarray) -> np.ndarray:
  _, owner = np.unique(patients, return_inverse=True)
  means = np.bincount(owner, values) / np.bincount(owner)
  return values - means[owner]


def _pairs(values: np.ndarray, patients: np.ndarray) -> np.ndarray:
  """`[Q, S]` differences of `[M, S]` values over the pairs of each patient."""
  found = []
  for p in np.unique(patients):
    own = values[patients == p]
    one, other = np.triu_indices(len(own), 1)
    found.append(own[one] - own[other])
  return np.concatenate(found)


def _mean(values: np.ndarray) -> float:
  return float(values.mean()) if values.size else float('nan')


def _mean_of_patients(values: np.ndarray, answers: Answers) -> float:
  """Of patients that count alike, however many plans they have."""
  return float(
    np.mean(
      [
        values[answers.patients == p].mean()
        for p in np.unique(answers.patients)
      ]
    )
  )


def _number(value: float) -> float | None:
  return value if np.isfinite(value) else None
