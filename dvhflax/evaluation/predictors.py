"""What evaluation predicts with: a network, and the mean of training plans."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from dvhflax.cohort.store import Cohort
from dvhflax.models import build
from dvhflax.models.unet import UNet

# `[M, S, K]` wishes for one patient's masks -> M doses, one after another.
Predict = Callable[[np.ndarray, np.ndarray], Iterator[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class NetworkPredict:
  """Predicts many wishes for one patient; the anatomy is encoded once.

  Attributes:
    model: the network.
    variables: its variables.
    batch_size: wishes decoded at once.
    encode, decode: see `build.halves`.
  """

  model: UNet
  variables: Any
  batch_size: int
  encode: Callable[..., Any]
  decode: Callable[..., Any]

  def __call__(
    self,
    masks: np.ndarray,
    desired_dvh: np.ndarray,
    spacing_mm: Sequence[float] | None = None,
  ) -> Iterator[np.ndarray]:
    """Generates `[X, Y, Z]` float32 doses.

    Args:
      masks: `[X, Y, Z, S]`.
      desired_dvh: `[M, S, K]`.
      spacing_mm: voxel size, for a network with `own_spacing`.
    """
    decode = self.decode
    features = self.encode(self.variables, jnp.asarray(masks), spacing_mm)
    number = len(desired_dvh)
    # The anatomy-only network gives every wish the same dose.
    if not self.model.takes_wish:
      dose = np.asarray(decode(self.variables, features, desired_dvh[:1]))[0]
      yield from (dose for _ in range(number))
      return
    for start in range(0, number, self.batch_size):
      index = np.arange(start, start + self.batch_size)
      batch = desired_dvh[np.minimum(index, number - 1)]
      doses = np.asarray(decode(self.variables, features, batch))
      yield from doses[: number - start]


def make_predict(model: UNet, variables: Any, batch_size: int) -> Predict:
  """A network's predictions, see `NetworkPredict`."""
  return NetworkPredict(model, variables, batch_size, *build.halves(model))


def for_patient(predict: Predict, cohort: Cohort, patient: int) -> Predict:
  """A prediction that knows the voxel size of the patient of an index."""
  if isinstance(predict, NetworkPredict):
    spacing_mm = cohort.patients[patient].spacing_mm
    return functools.partial(predict, spacing_mm=spacing_mm)
  return predict


def shift(dose: np.ndarray, voxels: np.ndarray) -> np.ndarray:
  """Moves a `[X, Y, Z]` dose by whole voxels; zeros come in at the border."""
  moved = np.zeros_like(dose)
  to, source = [], []
  for size, by in zip(dose.shape, voxels):
    to.append(slice(max(by, 0), size + min(by, 0)))
    source.append(slice(max(-by, 0), size + min(-by, 0)))
  moved[tuple(to)] = dose[tuple(source)]
  return moved


def _centroid(masks: np.ndarray, targets: Sequence[int]) -> np.ndarray:
  return np.argwhere(masks[..., list(targets)].any(-1)).mean(0)


@dataclasses.dataclass(frozen=True)
class MeanDose:
  """Predicts one dose for all, moved to a patient's targets.

  Attributes:
    mean: `[X, Y, Z]`, with the targets in its midst.
    targets: the targets' channels.
  """

  mean: np.ndarray
  targets: tuple[int, ...]

  def __call__(
    self, masks: np.ndarray, desired_dvh: np.ndarray
  ) -> Iterator[np.ndarray]:
    """Generates `[X, Y, Z]` doses, as `Predict`."""
    centre = (np.array(self.mean.shape) - 1) / 2
    offset = np.rint(_centroid(masks, self.targets) - centre).astype(int)
    dose = shift(self.mean, offset)
    yield from (dose for _ in desired_dvh)


def mean_dose_predict(cohort: Cohort, targets: Sequence[int]) -> MeanDose:
  """Predicts the mean of all training plans, moved to a patient's targets.

  Args:
    cohort: of the training plans.
    targets: the targets' channels.
  """
  centre = (np.array(cohort.grid) - 1) / 2
  total, number = np.zeros(cohort.grid), 0
  for p in cohort.split('train'):
    offset = np.rint(centre - _centroid(cohort.masks(p), targets)).astype(int)
    doses = cohort.doses(p)
    total += shift(doses.sum(0), offset)
    number += len(doses)
  return MeanDose((total / number).astype(np.float32), tuple(targets))
