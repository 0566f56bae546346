"""What is trained on at a step: patient, desired DVH, projected label.

Everything follows from (seed, step): no iterator has a position to save, and
a run that resumes meets the samples it would have met.
"""

from collections.abc import Iterator
import concurrent.futures
import dataclasses
import itertools
import re

import jax
import numpy as np

from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.projection import project

_SIDE = re.compile('left|right', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Samples:
  """Samples by their place in the cohort, and their wishes.

  Attributes:
    patients: `[B]` index of the patient.
    wish_patients: `[B]` index of the patient whose plan's DVH is desired.
    wish_plans: `[B]` index of that plan.
    labels: `[B]` index of the patient's own plan nearest to the wish.
    desired_dvh: `[B, S, K]`; zeros where either patient lacks a structure.
    mirrored: `[B]` bool, whether the patient is taken left for right.
  """

  patients: np.ndarray
  wish_patients: np.ndarray
  wish_plans: np.ndarray
  labels: np.ndarray
  desired_dvh: np.ndarray
  mirrored: np.ndarray


def project_onto_patients(
  cohort: Cohort, patients: np.ndarray, desired_dvh: np.ndarray
) -> np.ndarray:
  """Equation (4) for `[B]` patients of a cohort and `[B, S, K]` wishes.

  A structure without a wish takes no part in the distance.

  Returns:
    `[B]` plan indices.
  """
  wished = desired_dvh.any(-1)[:, None, :, None]
  pareto = np.where(wished, cohort.dvh[patients], 0)
  flat = (len(patients), -1)
  return np.asarray(
    project(
      desired_dvh.reshape(flat),
      pareto.reshape(*pareto.shape[:2], -1),
      cohort.valid[patients],
    )
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
    mirrored_share: float = 0.0,
  ):
    """Args: see `config.py`; `split` as in the cohort's metadata.

    Raises:
      ConfigError: if mirrored patients would have their left for their right.
    """
    sides = [s.name for s in cohort.structures if _SIDE.search(s.name)]
    if mirrored_share and sides:
      raise errors.ConfigError(
        f'data.mirrored_share={mirrored_share}: {sides[0]} has a side; use 0'
      )
    self._cohort = cohort
    self._seed = seed
    self._own_wish_share = own_wish_share
    self._mirrored_share = mirrored_share
    self.patients = cohort.split(split)
    # One row (patient, plan) for every plan of the split.
    self._plans = np.argwhere(cohort.valid)
    self._plans = self._plans[np.isin(self._plans[:, 0], self.patients)]

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

  def at(self, step: int, batch_size: int) -> Samples:
    """The batch of a step, counted from 0 over all epochs."""
    epoch, i = divmod(step, self.steps_per_epoch(batch_size))
    order = self._epoch_order(epoch)
    rng = np.random.default_rng([self._seed, 1, step])
    samples = self._draw(order[i * batch_size : (i + 1) * batch_size], rng)
    mirrored = rng.random(batch_size) < self._mirrored_share
    return dataclasses.replace(samples, mirrored=mirrored)

  def fixed(self, wishes: int) -> Samples:
    """`wishes` samples of every patient of the split, the same every time."""
    rng = np.random.default_rng([self._seed, 2])
    return self._draw(np.repeat(self.patients, wishes), rng)

  def _draw(self, patients: np.ndarray, rng: np.random.Generator) -> Samples:
    chosen = self._plans[rng.integers(len(self._plans), size=len(patients))]
    wish_patients, wish_plans = chosen.T.copy()
    own = rng.random(len(patients)) < self._own_wish_share
    own_plans = rng.integers(self._cohort.valid.sum(1)[patients])
    wish_patients[own] = patients[own]
    wish_plans[own] = own_plans[own]
    both = self._cohort.present[patients] & self._cohort.present[wish_patients]
    desired = self._cohort.dvh[wish_patients, wish_plans] * both[..., None]
    labels = project_onto_patients(self._cohort, patients, desired)
    whole = np.zeros(len(patients), bool)
    return Samples(patients, wish_patients, wish_plans, labels, desired, whole)


class Reader:
  """Masks and doses of samples, from memory or from the store."""

  def __init__(self, cohort: Cohort, patients: np.ndarray, in_memory: bool):
    """Args: `patients`, those to hold if `in_memory`."""
    self._cohort = cohort
    self._masks: dict[int, np.ndarray] = {}
    self._doses: dict[tuple[int, int], np.ndarray] = {}
    if in_memory:
      for p in patients:
        plans = np.arange(cohort.patients[p].plans)
        masks, doses = cohort.read(np.repeat(p, len(plans)), plans)
        self._masks[int(p)] = masks[0].copy()
        for n, dose in zip(plans, doses):
          self._doses[int(p), int(n)] = dose

  def __call__(
    self, patients: np.ndarray, plans: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """`[B, X, Y, Z, S]` masks and `[B, X, Y, Z]` doses."""
    if not self._masks:
      return self._cohort.read(patients, plans)
    return (
      np.stack([self._masks[int(p)] for p in patients]),
      np.stack([self._doses[int(p), int(n)] for p, n in zip(patients, plans)]),
    )


def feed(
  sampler: Sampler,
  reader: Reader,
  steps: range,
  *,
  batch_size: int,
  local: slice,
  place,
  read_ahead: int,
) -> Iterator[tuple[Samples, dict[str, jax.Array]]]:
  """Batches on the device, made ready by a thread ahead of their step.

  Args:
    sampler: of the training split.
    reader: of the same cohort.
    steps: steps to feed.
    batch_size: global batch.
    local: this process's share of it.
    place: moves a dict of `[B, ...]` arrays onto the local devices.
    read_ahead: batches kept ready.

  Yields:
    The global samples of a step, and this process's arrays.
  """

  def make(step: int):
    samples = sampler.at(step, batch_size)
    masks, dose = reader(samples.patients[local], samples.labels[local])
    desired_dvh = samples.desired_dvh[local]
    for i in np.flatnonzero(samples.mirrored[local]):
      masks[i], dose[i] = masks[i, ::-1].copy(), dose[i, ::-1].copy()
    batch = {'masks': masks, 'desired_dvh': desired_dvh, 'dose': dose}
    return samples, place(batch)

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    waiting = [pool.submit(make, s) for s in steps[:read_ahead]]
    try:
      for step in itertools.chain(steps[read_ahead:], [None] * len(waiting)):
        ready = waiting.pop(0)
        yield ready.result()
        if step is not None:
          waiting.append(pool.submit(make, step))
    finally:
      pool.shutdown(cancel_futures=True)
