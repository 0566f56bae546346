"""What is trained on at a step: patient, desired DVH, projected label.

Everything follows from (seed, step): no iterator has a position to save, and
a run that resumes meets the samples it would have met.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np

from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.projection import project
from dvhflax.wishes.random_bend import bend_at_random

_SIDE = re.compile('left|right', re.IGNORECASE)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draw:
  """What chance decides of a batch: places in the cohort, and the wishes.

  Attributes:
    patients: `[B]` index of the patient.
    wish_patients: `[B]` index of the patient whose plan's DVH is desired.
    wish_plans: `[B]` index of that plan.
    bent: `[B]` bool, whether that DVH is bent through random points; the plan
      is then one of the patient's own.
    mirrored: `[B]` bool, whether the patient is taken left for right.
    desired_dvh: `[B, S, K]`; zeros where either patient lacks a structure.
  """

  patients: np.ndarray
  wish_patients: np.ndarray
  wish_plans: np.ndarray
  bent: np.ndarray
  mirrored: np.ndarray
  desired_dvh: np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples(Draw):
  """A draw with its labels.

  Attributes:
    labels: `[B]` index of the patient's own plan nearest to the wish.
  """

  labels: np.ndarray


@jax.jit
def nearest_plans(
  draw: Draw, dvh: jax.Array, valid: jax.Array, present: jax.Array
) -> jax.Array:
  """Equation (4) for the wishes of a draw.

  A structure that either patient lacks is not wished for, and takes no part
  in the distance.

  Args:
    draw: of B samples.
    dvh: `[P, N, S, K]` of the cohort.
    valid: `[P, N]`.
    present: `[P, S]`.

  Returns:
    `[B]` plan indices.
  """
  both = present[draw.patients] & present[draw.wish_patients]
  pareto = dvh[draw.patients] * both[:, None, :, None]
  batch, plans = pareto.shape[:2]
  return project(
    jnp.asarray(draw.desired_dvh).reshape(batch, -1),
    pareto.reshape(batch, plans, -1),
    valid[draw.patients],
  )


class Sampler:
  """Draws the samples of one split."""

  def __init__(
    self,
    cohort: Cohort,
    split: str,
    *,
    seed: int,
    own_wish_share: float,
    bent_wish_share: float = 0.0,
    mirrored_share: float = 0.0,
  ):
    """Args: see `config/defaults.py`; `split` as in the cohort's metadata.

    Raises:
      ConfigError: if mirrored patients would have their left for their right.
      CohortError: if a patient of the split has no plan, or a plan whose DVH is
        not finite: no wish has a label then.
    """
    sides = [s.name for s in cohort.structures if _SIDE.search(s.name)]
    if mirrored_share and sides:
      raise errors.ConfigError(
        f'data.mirrored_share={mirrored_share}: {sides[0]} has a side; use 0'
      )
    self._cohort = cohort
    self._seed = seed
    self._own_wish_share = own_wish_share
    self._bent_wish_share = bent_wish_share
    self._mirrored_share = mirrored_share
    self.patients = cohort.split(split)
    # One row (patient, plan) for every plan of the split.
    self._plans = np.argwhere(cohort.valid)
    self._plans = self._plans[np.isin(self._plans[:, 0], self.patients)]
    for p in self.patients:
      curves = cohort.dvh[p][cohort.valid[p]]
      if not len(curves) or not np.isfinite(curves).all():
        raise errors.CohortError(
          f'{cohort.path}: patient {cohort.patients[p].id} has no plan, or a '
          'DVH that is not finite: build the cohort again'
        )

  @property
  def samples_per_epoch(self) -> int:
    """As many as the split's patients have plans."""
    return len(self._plans)

  def steps_per_epoch(self, batch_size: int) -> int:
    """Whole batches in an epoch.

    Raises:
      ConfigError: if not even one is full.
    """
    if self.samples_per_epoch < batch_size:
      raise errors.ConfigError(
        f'batch_size={batch_size} is more than an epoch of '
        f'{self.samples_per_epoch} samples'
      )
    return self.samples_per_epoch // batch_size

  def _epoch_order(self, epoch: int) -> np.ndarray:
    rng = np.random.default_rng([self._seed, 0, epoch])
    return rng.permutation(self._plans[:, 0])

  def draw(self, step: int, batch_size: int) -> Draw:
    """The batch of a step, counted from 0 over all epochs.

    Raises:
      CohortError: if a plan's DVH is one that no points can bend.
    """
    epoch, i = divmod(step, self.steps_per_epoch(batch_size))
    order = self._epoch_order(epoch)
    rng = np.random.default_rng([self._seed, 1, step])
    bends = np.random.default_rng([self._seed, 3, step])
    patients = order[i * batch_size : (i + 1) * batch_size]
    draw = self._draw(patients, rng, bends)
    mirrored = rng.random(batch_size) < self._mirrored_share
    return dataclasses.replace(draw, mirrored=mirrored)

  def fixed(self, wishes: int) -> Draw:
    """`wishes` samples of every patient of the split, the same every time.

    Raises:
      CohortError: as `draw`.
    """
    rng, bends = (np.random.default_rng([self._seed, n]) for n in (2, 5))
    return self._draw(np.repeat(self.patients, wishes), rng, bends)

  def samples(self, draw: Draw) -> Samples:
    """The draw with its labels.

    Raises:
      CohortError: if a patient has no plan that a wish can be compared with.
    """
    cohort = self._cohort
    labels = jax.device_get(
      nearest_plans(draw, cohort.dvh, cohort.valid, cohort.present)
    )
    if (labels < 0).any():
      patient = cohort.patients[draw.patients[labels.argmin()]]
      raise errors.CohortError(
        f'{cohort.path}: patient {patient.id} has no plan for a wish: one of '
        'their DVHs is not finite'
      )
    return Samples(**vars(draw), labels=labels)

  def _draw(
    self,
    patients: np.ndarray,
    rng: np.random.Generator,
    bends: np.random.Generator,
  ) -> Draw:
    """The draw of `[B]` patients; `bends` is for the random points alone."""
    cohort = self._cohort
    chosen = self._plans[rng.integers(len(self._plans), size=len(patients))]
    wish_patients, wish_plans = chosen.T.copy()
    kind = rng.random(len(patients))
    own_or_bent = kind < self._own_wish_share + self._bent_wish_share
    bent = own_or_bent & (kind >= self._own_wish_share)
    own_plans = rng.integers(cohort.valid.sum(1)[patients])
    wish_patients[own_or_bent] = patients[own_or_bent]
    wish_plans[own_or_bent] = own_plans[own_or_bent]
    both = cohort.present[patients] & cohort.present[wish_patients]
    desired = cohort.dvh[wish_patients, wish_plans] * both[..., None]
    for i in np.flatnonzero(bent):
      desired[i] = self._bend(int(patients[i]), int(wish_plans[i]), bends)
    whole = np.zeros(len(patients), bool)
    return Draw(patients, wish_patients, wish_plans, bent, whole, desired)

  def _bend(
    self, patient: int, plan: int, rng: np.random.Generator
  ) -> np.ndarray:
    """`[S, K]`, the DVH of a plan bent through random points."""
    cohort = self._cohort
    curves = cohort.dvh[patient, plan] * cohort.present[patient][:, None]
    try:
      bent, _ = bend_at_random(
        curves,
        cohort.structures,
        cohort.dvh_spec,
        cohort.reference(patient, plan).percent_to_fraction(100.0),
        rng,
      )
    except errors.WishError as error:
      raise errors.CohortError(
        f'{cohort.path}: patient {cohort.patients[patient].id}, plan {plan}: '
        f'{error}; build the cohort again, or set the share of bent wishes to 0'
      ) from None
    return bent
