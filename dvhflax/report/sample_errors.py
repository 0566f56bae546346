"""Dose errors of the test samples: as arrays, as statistics, as a CSV file."""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import os

import numpy as np

from dvhflax import files


@dataclasses.dataclass(frozen=True)
class SampleErrors:
  """Errors of one network, or of one baseline, over the test samples.

  Attributes:
    mean_error: `[M, S]` mean dose, true minus predicted, in % of the
      reference; NaN where the structure is absent.
    max_error: `[M, S]` maximum dose, likewise.
    dvh_fidelity: `[M]` mean absolute difference of the desired and the
      predicted DVH; None where it was not measured.
    mean_error_gy, max_error_gy: the same as the first two in Gy; None where
      they were not measured.
  """

  mean_error: np.ndarray
  max_error: np.ndarray
  dvh_fidelity: np.ndarray | None = None
  mean_error_gy: np.ndarray | None = None
  max_error_gy: np.ndarray | None = None

  def __post_init__(self) -> None:
    shape = np.shape(self.mean_error)
    if len(shape) != 2 or np.shape(self.max_error) != shape:
      raise ValueError(
        f'mean_error {shape} and max_error {np.shape(self.max_error)} must '
        'both be [M, S]'
      )
    if self.dvh_fidelity is None:
      return
    if np.shape(self.dvh_fidelity) != shape[:1]:
      raise ValueError(
        f'dvh_fidelity {np.shape(self.dvh_fidelity)} must be {shape[:1]}'
      )


@dataclasses.dataclass(frozen=True)
class Sample:
  """Where a test sample came from.

  Attributes:
    patient_id: patient whose dose is predicted.
    desired_patient_id: patient that the desired DVH was drawn from.
    desired_plan: plan of that patient.
    bent: whether the DVH of that plan was bent through random points.
    label_plan: plan of `patient_id` that the desired DVH projects onto.
  """

  patient_id: str
  desired_patient_id: str
  desired_plan: int
  bent: bool
  label_plan: int


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Errors of one structure over the samples that have it, in %.

  Standard deviations are those of the samples at hand (divided by n), so one
  sample has 0.
  """

  samples: int
  mean: float
  std: float
  absolute_mean: float
  absolute_std: float


def statistics(errors: np.ndarray) -> Statistics:
  """Statistics of `[M]` errors, NaNs left out; NaN where all are."""
  errors = np.asarray(errors, np.float64)
  errors = errors[~np.isnan(errors)]
  if not errors.size:
    return Statistics(0, *[float('nan')] * 4)
  absolute = np.abs(errors)
  return Statistics(
    samples=errors.size,
    mean=float(errors.mean()),
    std=float(errors.std()),
    absolute_mean=float(absolute.mean()),
    absolute_std=float(absolute.std()),
  )


def network_of(
  results: Mapping[str, SampleErrors], structures: Sequence[str]
) -> SampleErrors:
  """The network's errors, which come first, once all shapes are right."""
  if not results:
    raise ValueError('a table needs at least one result')
  for name, errors in results.items():
    if errors.mean_error.shape[1] != len(structures):
      raise ValueError(
        f'{name} has errors of {errors.mean_error.shape[1]} structures, '
        f'not {len(structures)}'
      )
  return next(iter(results.values()))


def write_samples_csv(
  path: str | os.PathLike[str],
  results: Mapping[str, SampleErrors],
  structures: Sequence[str],
  samples: Sequence[Sample],
) -> None:
  """Writes one row a network and sample, whole or not at all.

  Args:
    path: the CSV file; replaced if it exists.
    results: the network and its baselines, all over the same samples.
    structures: `[S]` names.
    samples: `[M]`, where each sample came from.

  Raises:
    ValueError: a result of another number of samples or structures.
  """
  network_of(results, structures)
  for name, errors in results.items():
    if len(errors.mean_error) != len(samples):
      raise ValueError(
        f'{name} has {len(errors.mean_error)} samples, not {len(samples)}'
      )
  columns = ['network', 'patient_id', 'desired_patient_id']
  columns += ['desired_plan', 'bent', 'label_plan']
  columns += [f'mean_error_{structure}' for structure in structures]
  columns += [f'max_error_{structure}' for structure in structures]
  columns += ['dvh_fidelity']
  with (
    files.replacing(path) as aside,
    open(aside, 'w', newline='', encoding='utf-8') as file,
  ):
    writer = csv.writer(file)
    writer.writerow(columns)
    for name, errors in results.items():
      for m, sample in enumerate(samples):
        fidelity = errors.dvh_fidelity
        values = [*errors.mean_error[m], *errors.max_error[m]]
        values.append(np.nan if fidelity is None else fidelity[m])
        writer.writerow(
          [name, *dataclasses.astuple(sample), *map(_number, values)]
        )


def _number(value: float) -> str:
  """Shortest text that reads back as the number; empty for NaN."""
  return '' if np.isnan(value) else repr(float(value))
