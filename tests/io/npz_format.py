"""An import format, as CONTRIBUTING.md shows one: a `.npz` file a patient."""

import dataclasses
import functools
import pathlib

import numpy as np

from dvhflax.io import names
from dvhflax.io.case import Case, Plan
from dvhflax.io.resample import Dose, Occupancy


@dataclasses.dataclass(frozen=True)
class Found:
  id: str
  path: pathlib.Path


def find_patients(root, *, dose_optional=False):
  """Files at any depth, named by their stems; nothing is skipped."""
  return [
    Found(p.stem, p) for p in sorted(pathlib.Path(root).rglob('*.npz'))
  ], []


def read_patient(found, structures, rows):
  """`dose` in Gy, `spacing_mm`, and a mask a structure, `[X, Y, Z]`."""
  arrays = dict(np.load(found.path))
  dose, spacing_mm = arrays.pop('dose'), arrays.pop('spacing_mm')
  axes = tuple(np.arange(n) * step for n, step in zip(dose.shape, spacing_mm))
  lower = tuple(a - s / 2 for a, s in zip(axes, spacing_mm))
  upper = tuple(a + s / 2 for a, s in zip(axes, spacing_mm))
  match = names.match(list(arrays), structures, rows)
  masks = list(arrays.values())
  return Case(
    id=found.id,
    occupancies={
      name: Occupancy(np.float32(masks[index]), lower, upper)
      for name, index in match.chosen.items()
    },
    plans=[Plan('dose', [functools.partial(Dose, np.float32(dose), axes)])],
    notes=names.describe(match),
    provenance={'source': 'npz'},
  )
