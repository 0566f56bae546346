"""Image values interpreted as a label map, or as a mask.

Integers stored with a slope and an intercept are read back with an error of up
to half a scaling step: of labels 0 to 6 in eight bits, 1 becomes 1.0118. Labels
can be told apart as long as half a step is well below half a label.
"""

import json
import pathlib
from typing import Any

import numpy as np

from dvhflax import errors

# float32 holds every whole number up to here.
MOST_LABEL = 2**24
# Rounding of floats, if larger than half a step.
_ROUNDING = 1e-3
# At most, from a whole number.
_MOST_OFF = 0.25


def whole_labels(
  values: np.ndarray, step: float, where: pathlib.Path
) -> np.ndarray:
  """The labels of a label map.

  Args:
    values: `[X, Y, Z]` as read.
    step: between two values that the file can hold, 0 where it is not scaled.
    where: the file.

  Returns:
    `[X, Y, Z]` float32, whole numbers.

  Raises:
    CohortError: if a value is not a whole number within rounding.
  """
  labels = np.rint(values)
  off = np.abs(values - labels)
  allowed = min(max(_ROUNDING, 0.51 * step), _MOST_OFF)
  if off.max() > allowed:
    worst = np.unravel_index(off.argmax(), off.shape)
    raise errors.CohortError(
      f'{where} is not a label map: {np.count_nonzero(off > allowed)} voxels '
      f'are not whole, such as {values[worst]:.4g}; was it interpolated, or '
      'scaled coarsely? Resample labels by the nearest neighbour and save them '
      'as integers'
    )
  return labels


def mask_fractions(
  values: np.ndarray, step: float, where: pathlib.Path
) -> np.ndarray:
  """The share of each voxel that a mask says is filled.

  Args:
    values: `[X, Y, Z]` as read: 0 and 1, 0 and any other value, or shares.
    step: see `whole_labels`.
    where: the file.

  Returns:
    `[X, Y, Z]` float32 in [0, 1], exactly 0 or 1 where within rounding of it.

  Raises:
    CohortError: for any other values.
  """
  most = float(values.max())
  off = max(1e-5 * max(most, 1), 0.51 * step)
  zero = np.abs(values) <= off
  if most > 1 + off and (zero | (np.abs(values - most) <= off)).all():
    return (~zero).astype(np.float32)
  if values.min() < -off or most > 1 + off:
    raise errors.CohortError(
      f'{where} holds values other than 0 and 1: name a label map '
      'labels.nii.gz and describe it in labels.json'
    )
  fractions = np.where(zero, 0, values)
  return np.where(np.abs(values - 1) <= off, 1, fractions).astype(np.float32)


def read_names(path: pathlib.Path) -> dict[str, int]:
  """The numbers in a label map by the structures' names, of a JSON file.

  Raises:
    CohortError: for a file that cannot be read, or is not `{"name": number}`
      with every name and every number once.
  """
  wanted = '{"structure": number, ...}'
  try:
    pairs = json.loads(
      path.read_text(encoding='utf-8-sig'), object_pairs_hook=_Pairs
    )
  except (OSError, ValueError, RecursionError) as error:
    reason = getattr(error, 'strerror', None) or str(error)
    raise errors.CohortError(f'{path}: {reason}; give {wanted}') from None
  if not isinstance(pairs, _Pairs) or not all(_is_label(n) for _, n in pairs):
    raise errors.CohortError(
      f'{path} must hold {wanted}, whole numbers from 1 to {MOST_LABEL}'
    )
  names: dict[str, int] = {}
  for name, number in pairs:
    # One structure would get the voxels of another.
    if name in names:
      raise errors.CohortError(f'{path} names {name!r} twice')
    for other, taken in names.items():
      if taken == number:
        raise errors.CohortError(
          f'{path} gives {other!r} and {name!r} the same number {number:g}'
        )
    names[name] = int(number)
  return names


class _Pairs(list[tuple[str, Any]]):
  """The names and values of a JSON object, repeated ones too."""


def _is_label(number: Any) -> bool:
  if isinstance(number, bool) or not isinstance(number, int | float):
    return False
  return 1 <= number <= MOST_LABEL and number == int(number)
