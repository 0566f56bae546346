"""Which patients train, validate and test."""

from collections.abc import Sequence

import numpy as np


def split_patients(
  patients: int,
  validation: int,
  test: int,
  seed: int,
  usable: Sequence[int] | None = None,
) -> list[str]:
  """A random split: `train`, `validation` or `test` for every patient.

  Args:
    patients: how many there are.
    validation, test: how many are set apart.
    seed: of the split.
    usable: ascending places of those that can be used; None: of all. The
      place of one who cannot goes to the next in line, so that the others stay
      where they are but for that one, whoever else is repaired or falls out.

  Returns:
    The split of every usable patient, in their order.
  """
  chosen = np.arange(patients) if usable is None else np.array(usable, int)
  order = np.random.default_rng([seed, 3]).permutation(patients)
  order = order[np.isin(order, chosen)]
  splits = np.array(['train'] * patients, dtype='<U10')
  splits[order[:test]] = 'test'
  splits[order[test : test + validation]] = 'validation'
  return splits[chosen].tolist()
