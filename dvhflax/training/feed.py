"""Brings samples to the device: looked up there, or read ahead of the step."""

from collections.abc import Callable, Generator
import concurrent.futures
import functools
import itertools
import time
from typing import Any, Literal

import jax
import numpy as np

from dvhflax.cohort.store import Cohort
from dvhflax.training import memory, parallel, resident
from dvhflax.training.sampler import Draw, Sampler, Samples

Placement = Literal['auto', 'device', 'memory', 'store']
Batch = Any

# Shares of the free memory that a cohort may take.
_OF_DEVICE, _OF_HOST = 0.4, 0.4
# And what is prepared for patients that are read from the store.
_PREPARED = 0.2


def resolve(
  placement: Placement,
  cohort: Cohort,
  patients: np.ndarray,
  prepare: resident.Prepare = resident.nothing,
) -> Placement:
  """`auto` becomes the fastest place that is large enough."""
  if placement != 'auto':
    return placement
  needed = resident.size(cohort, patients, prepare)
  if needed <= _OF_DEVICE * _free_on_device():
    return 'device'
  return 'memory' if needed <= _OF_HOST * _free_on_host() else 'store'


def _free_on_host() -> int:
  return memory.free()


def _free_on_device() -> float:
  device = jax.local_devices()[0]
  if device.platform == 'cpu':
    return _free_on_host() / jax.local_device_count()
  stats = device.memory_stats()
  if stats is None:
    return 0
  return stats['bytes_limit'] - stats['bytes_in_use']


class Source:
  """The samples of some patients.

  Attributes:
    placement: `device`, `memory` or `store`.
    cohort: what a step needs beside a batch: a `ResidentCohort`, or None.
  """

  def __init__(
    self,
    cohort: Cohort,
    patients: np.ndarray,
    placement: Placement,
    prepare: resident.Prepare = resident.nothing,
  ):
    """Args:
    cohort: the store.
    patients: indices of those that are drawn.
    placement: where their samples are kept.
    prepare: of the network, for masks and a voxel size.
    """
    self.placement = resolve(placement, cohort, patients, prepare)
    self._store = cohort
    self._spacings = cohort.own_spacings
    self._prepare = prepare
    self._prepared = functools.lru_cache(
      int(_PREPARED * _free_on_host() / resident.prepared_size(cohort, prepare))
      if resident.prepared_size(cohort, prepare)
      else None
    )(self._prepare_one)
    self._masks: dict[int, np.ndarray] = {}
    self._doses: dict[tuple[int, int], np.ndarray] = {}
    self.cohort = None
    if self.placement == 'device':
      self.cohort = parallel.place(resident.read(cohort, patients, prepare))
    elif self.placement == 'memory':
      for p in patients:
        plans = np.arange(cohort.patients[p].plans)
        masks, doses = cohort.read(np.repeat(p, len(plans)), plans)
        self._masks[int(p)] = masks[0].copy()
        for n, dose in zip(plans, doses):
          self._doses[int(p), int(n)] = dose

  def batch(self, sampler: Sampler, draw: Draw) -> Batch:
    """What a step is sent for a draw; see `unpack`."""
    if self.placement == 'device':
      return draw
    return self._read(sampler.samples(draw))

  def _read(self, samples: Samples) -> dict[str, np.ndarray]:
    p, n = samples.patients, samples.labels
    if self.placement == 'memory':
      masks = np.stack([self._masks[int(i)] for i in p])
      dose = np.stack([self._doses[int(i), int(j)] for i, j in zip(p, n)])
    else:
      masks, dose = self._store.read(p, n)
    found = [self._prepared(int(i)) for i in p]
    prepared = jax.tree.map(lambda *x: np.stack(x), *found)
    for i in np.flatnonzero(samples.mirrored):
      for x in (masks, dose, *jax.tree.leaves(prepared)):
        x[i] = x[i, ::-1].copy()
    read = {'masks': masks, 'desired_dvh': samples.desired_dvh, 'dose': dose}
    if prepared is not None:
      read['prepared'] = prepared
    if self._spacings is not None:
      read['spacing_mm'] = self._spacings[p]
    return read

  def _prepare_one(self, patient: int) -> Any:
    masks = self._masks.get(patient)
    if masks is None:
      masks = self._store.masks(patient)
    spacing_mm = np.array(self._store.patients[patient].spacing_mm, np.float32)
    return jax.device_get(self._prepare(masks, spacing_mm))


def unpack(
  cohort: resident.ResidentCohort | None, batch: Batch
) -> dict[str, jax.Array]:
  """Inside a step: `masks [B, ...]`, `desired_dvh`, `dose`, `prepared` of a
  batch, and `spacing_mm` where the patients' differ.

  Args:
    cohort: of a `Source`.
    batch: of its `batch`.
  """
  return batch if cohort is None else resident.look_up(cohort, batch)


def local(draw: Draw) -> Draw:
  """This process's share of a global draw."""
  share = parallel.local_slice(len(draw.patients))
  return jax.tree.map(lambda x: x[share], draw)


class Feed:
  """Iterates over the draws and the batches of steps, made ready by a thread.

  Attributes:
    waited_s: time that the reader of this feed has waited for a batch.
  """

  def __init__(
    self,
    draw: Callable[[int], Draw],
    make: Callable[[Draw], Batch],
    steps: range,
    read_ahead: int,
  ):
    """Args:
    draw: global draw of a step.
    make: this process's batch of a draw, on the devices.
    steps: steps to feed.
    read_ahead: batches kept ready.
    """
    self._draw, self._make = draw, make
    self._steps, self._read_ahead = steps, read_ahead
    self.waited_s = 0.0

  def __iter__(self) -> Generator[tuple[Draw, Batch]]:
    def ready(step: int) -> tuple[Draw, Batch]:
      draw = self._draw(step)
      return draw, self._make(draw)

    ahead, later = (
      self._steps[: self._read_ahead],
      self._steps[self._read_ahead :],
    )
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      waiting = [pool.submit(ready, step) for step in ahead]
      try:
        for step in itertools.chain(later, [None] * len(waiting)):
          start = time.monotonic()
          made = waiting.pop(0).result()
          self.waited_s += time.monotonic() - start
          yield made
          if step is not None:
            waiting.append(pool.submit(ready, step))
      finally:
        pool.shutdown(cancel_futures=True)
