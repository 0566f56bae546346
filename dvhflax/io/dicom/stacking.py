"""Doses stored as one file per plane: which files form one dose."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
import dataclasses

import numpy as np

from dvhflax import errors
from dvhflax.io.dicom.headers import Instance
from dvhflax.io.import_report import Skipped

# Of the same position, in mm.
_SAME_MM = 0.01


def stacked(doses: Iterable[Instance]) -> tuple[list[Instance], list[Skipped]]:
  """Groups the files of single planes into doses.

  Args:
    doses: RTDOSE files.

  Returns:
    The doses, one with its `planes` for each stack; planes that make no stack,
    a line for all that would belong together.
  """
  whole: list[Instance] = []
  planar: list[Instance] = []
  for dose in doses:
    (planar if dose.planar else whole).append(dose)
  skipped = []
  for group in _together(planar):
    try:
      whole.append(_stack(group))
    except errors.CohortError as error:
      what = str(group[0].path)
      if len(group) > 1:
        what += f' and {len(group) - 1} others, a plane of a dose each'
      skipped.append(Skipped(what, str(error)))
  return sorted(whole, key=lambda dose: dose.path), skipped


def _together(planar: Iterable[Instance]) -> list[list[Instance]]:
  """Planes of the same plan, beams and series; of any series, if each has its
  own."""
  in_series = _grouped(planar, lambda dose: (_subject(dose), dose.series))
  groups = [group for group in in_series if len(group) > 1]
  alone = [group[0] for group in in_series if len(group) == 1]
  return groups + _grouped(alone, _subject)


def _subject(dose: Instance) -> Hashable:
  """What planes of one dose have in common."""
  return (
    dose.patient_id, dose.frames, dose.structure_sets, dose.plans,
    dose.summation, dose.groups, dose.beams,
  )  # fmt: skip


def _grouped(
  doses: Iterable[Instance], key: Callable[[Instance], Hashable]
) -> list[list[Instance]]:
  groups: dict[Hashable, list[Instance]] = defaultdict(list)
  for dose in doses:
    groups[key(dose)].append(dose)
  return list(groups.values())


def _stack(group: Sequence[Instance]) -> Instance:
  """A dose of planes; raises a CohortError for those that make none."""
  if len(group) == 1:
    raise errors.CohortError(
      'only one plane of a dose; its other planes are missing'
    )
  planes = sorted(group, key=lambda dose: dose.height_mm or 0.0)
  heights = np.array([dose.height_mm for dose in planes], np.float64)
  steps = np.diff(heights)
  if steps.min() < _SAME_MM:
    raise errors.CohortError(
      f'two of the planes lie at z={heights[steps.argmin()]:.2f} mm: are they '
      'of two doses? Keep one of them, or export one file for the dose'
    )
  if steps.max() > 1.5 * np.median(steps):
    raise errors.CohortError(
      f'planes are missing, from z={heights[steps.argmax()]:.2f} mm over '
      f'{steps.max():.2f} mm: export the whole dose'
    )
  return dataclasses.replace(planes[0], planes=tuple(planes))
