"""Labels among few of a patient's plans, and how far they are off: the floor.

The label of a wish is the nearest of a patient's N plans, equation (4) of Ma et
al. 2021. With a small N it is far from the point of the Pareto front that it
stands for, and no network comes closer to it than that.
"""

import numpy as np

from dvhflax.cohort.store import Cohort
from dvhflax.evaluation.dose_metrics import PlanMetrics
from dvhflax.planning import pareto
from dvhflax.planning.trade_offs import TradeOffs
from dvhflax.projection import project
from dvhflax.report.sample_errors import SampleErrors
from dvhflax.sites.protocol import Protocol
from dvhflax.training.sampler import Samples


def spread_plans(cohort: Cohort, patient: int, count: int) -> np.ndarray:
  """Plans that stand for all of a patient's, chosen as the planner chooses.

  They are the medians of `pareto.choose`, by the L1 distance of DVH vectors.
  The anchor plans, which planned patients begin with, are among them.

  Args:
    cohort: of the patient.
    patient: its place.
    count: how many; a patient may have fewer.

  Returns:
    `[count]` numbers of plans, or all of them.
  """
  record = cohort.patients[patient]
  if record.plans <= count:
    return np.arange(record.plans)
  present = cohort.present[patient]
  curves = cohort.dvh[patient][: record.plans, present]
  fixed = 0
  described = record.provenance.get('protocol')
  if isinstance(described, dict):
    names = [s.name for s, has in zip(cohort.structures, present) if has]
    fixed = len(TradeOffs.of(Protocol.from_dict(described), names).anchors())
  return pareto.choose(pareto.distances(curves, curves), count, fixed)


def labels_among(cohort: Cohort, samples: Samples, count: int) -> np.ndarray:
  """Equation (4) with `count` of each patient's plans in place of all.

  Args:
    cohort: of the samples.
    samples: `[M]`.
    count: see `spread_plans`.

  Returns:
    `[M]` numbers of plans.
  """
  chosen = np.zeros((len(cohort.patients), count), int)
  valid = np.zeros(chosen.shape, bool)
  for p in np.unique(samples.patients):
    plans = spread_plans(cohort, p, count)
    chosen[p, : len(plans)], valid[p, : len(plans)] = plans, True
  of_samples = chosen[samples.patients]
  # What is not wished for takes no part in the distance.
  wished = samples.desired_dvh.any(-1) & cohort.present[samples.patients]
  curves = cohort.dvh[samples.patients[:, None], of_samples]
  curves = curves * wished[:, None, :, None]
  desired = samples.desired_dvh * wished[..., None]
  number = len(desired)
  nearest = np.asarray(
    project(
      desired.reshape(number, -1),
      curves.reshape(number, count, -1),
      valid[samples.patients],
    )
  )
  return of_samples[np.arange(number), nearest]


def floor(
  cohort: Cohort, samples: Samples, labels: np.ndarray, plans: PlanMetrics
) -> SampleErrors:
  """How far other labels of the samples are from their own.

  Args:
    cohort: of the samples.
    samples: `[M]`.
    labels: `[M]`, those of `labels_among`.
    plans: of the cohort.

  Returns:
    Mean and maximum dose of `labels` minus those of `samples.labels`.
  """
  off: list[list[np.ndarray]] = []
  for p, few, dense in zip(samples.patients, labels, samples.labels):
    one, other = plans.of(p, few), plans.of(p, dense)
    of_one, of_other = cohort.reference(p, few), cohort.reference(p, dense)
    off.append(
      [
        100 * (one.mean - other.mean),
        100 * (one.max - other.max),
        of_one.to_gy(one.mean) - of_other.to_gy(other.mean),
        of_one.to_gy(one.max) - of_other.to_gy(other.max),
      ]
    )
  mean, top, mean_gy, max_gy = np.moveaxis(np.array(off), 1, 0)
  return SampleErrors(mean, top, None, mean_gy, max_gy)


def relabelled(errors: SampleErrors, off: SampleErrors) -> SampleErrors:
  """Errors against other labels, which are `off` from those of `errors`."""

  def plus(
    one: np.ndarray | None, other: np.ndarray | None
  ) -> np.ndarray | None:
    return None if one is None or other is None else one + other

  return SampleErrors(
    errors.mean_error + off.mean_error,
    errors.max_error + off.max_error,
    errors.dvh_fidelity,
    plus(errors.mean_error_gy, off.mean_error_gy),
    plus(errors.max_error_gy, off.max_error_gy),
  )


def std_over_floor(network: SampleErrors, off: SampleErrors) -> np.ndarray:
  """The errors' standard deviation over the floor's.

  Returns:
    `[S, 2]` of mean and maximum dose; NaN where the floor has none.
  """
  over = np.full((network.mean_error.shape[1], 2), np.nan)
  for i, (own, least) in enumerate(
    (
      (network.mean_error, off.mean_error),
      (network.max_error, off.max_error),
    )
  ):
    for s in range(len(over)):
      has = ~np.isnan(own[:, s])
      if has.any() and (spread := least[has, s].std()) > 0:
        over[s, i] = own[has, s].std() / spread
  return over
