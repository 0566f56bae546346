"""A network whose doses follow from the wish by simple sums."""

import dataclasses
import math

from conftest import SPEC, make_patient
import numpy as np

from dvhflax.cohort.store import Cohort
from dvhflax.training.runs import Network
from dvhflax.tuning.session import Session

# Dose that the rectum gets for each that the body is spared.
CROSS_TALK = 0.5
BODY, RECTUM, PTV = range(3)


def area(curve) -> float:
  """The mean dose of a DVH."""
  weights = np.ones(SPEC.points)
  weights[[0, -1]] = 0.5
  step = SPEC.max_dose / (SPEC.points - 1)
  return step * math.fsum(weights * curve)


def decode(features, desired):
  """Each structure gets its mean; the rectum what the body is spared, too."""
  masks, slopes = features
  body, rectum, ptv = map(area, desired)
  dose = np.where(masks[..., BODY], body * slopes, 0)
  of_rectum = (rectum + CROSS_TALK * (0.3 - body)) * slopes
  dose = np.where(masks[..., RECTUM], of_rectum, dose)
  dose = np.where(masks[..., PTV], ptv * (0.98 + 0.02 * slopes), dose)
  return dose.astype(np.float32)


def encode(masks):
  number = math.prod(masks.shape[:-1])
  return masks, (0.75 + 0.5 * np.arange(number) / number).reshape(
    masks.shape[:-1]
  )


def curve(mean: float) -> np.ndarray:
  """`[K]` of doses spread evenly round a mean."""
  levels = np.asarray(SPEC.levels, np.float64)
  return np.clip(1.25 - levels / mean, 0, 0.5) * 2


MEAN_DVH = np.stack(
  [curve(0.3), curve(0.6), np.interp(SPEC.levels, (0.9, 1.1), (1, 0))]
).astype(np.float32)

NETWORK = Network(encode, decode, MEAN_DVH, {'workdir': 'toy', 'step': 0})


def exact(cohort: Cohort) -> Cohort:
  """The same cohort, as if its doses were fractions of the prescription."""
  kind = {'kind': 'prescription'}
  metadata = dataclasses.replace(cohort.metadata, normalisation=kind)
  return Cohort(cohort.path, metadata)


def toy_session(cohort: Cohort, patient='p6', first=True) -> Session:
  """With 78 Gy prescribed and, if wanted, the first dose."""
  session = Session(NETWORK, exact(cohort), patient)
  if first:
    session.first_dose()
  return session


def outsider(lacking=()):
  """A patient whom the cohort does not have."""
  return dataclasses.replace(make_patient(9, lacking=lacking), id='outsider')
