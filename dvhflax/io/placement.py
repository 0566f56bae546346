"""Positions of the cohort grid in the patient's coordinates.

An imported patient's provenance keeps the middle of the cohort's grid and the
grids that its own doses came on. The grid of a patient without an import, a
simulated one, is put round the origin.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from dvhflax import errors, files
from dvhflax.grid import Axes, Grid
from dvhflax.io import resample
from dvhflax.io.resample import Dose

# Unevenness of an axis, in mm, that only rounding makes.
_EVEN_MM = 1e-3


def on_cohort_grid(
  dose_gy: np.ndarray,
  spacing_mm: tuple[float, float, float],
  provenance: Mapping[str, Any],
) -> Dose:
  """A dose where it lies in the patient, its values untouched.

  Args:
    dose_gy: `[X, Y, Z]` Gy.
    spacing_mm: voxel size.
    provenance: of the patient.
  """
  x, y, z = dose_gy.shape
  centre_x, centre_y, centre_z = provenance.get('grid_centre_mm', (0, 0, 0))
  grid = Grid((x, y, z), spacing_mm, (centre_x, centre_y, centre_z))
  return Dose(dose_gy.astype(np.float32), grid.axes)


def on_source_grid(
  dose: Dose, patient: str, provenance: Mapping[str, Any]
) -> Dose:
  """A dose on the grid that the patient's own (first) dose came on.

  Args:
    dose: on the cohort's grid, see `on_cohort_grid`.
    patient: id, for errors.
    provenance: of the patient.

  Returns:
    The dose by trilinear interpolation; 0 beyond the cohort's grid, where
    nothing is predicted.

  Raises:
    CohortError: if that grid is not known.
  """
  grids = [plan.get('grid') for plan in provenance.get('plans', ())]
  axes = next(filter(None, grids), None)
  if axes is None:
    raise errors.CohortError(
      f'patient {patient} was imported with no dose on an evenly spaced grid: '
      "write the predicted one on the cohort's grid"
    )
  x, y, z = (np.linspace(first, last, n) for first, last, n in axes)
  return Dose(resample.trilinear(dose, (x, y, z)), (x, y, z))


def described(axes: Axes) -> list[list[float]] | None:
  """What `on_source_grid` reads: first, last and number of each axis's centres.

  None where one is spaced unevenly.
  """
  if any(np.ptp(np.diff(axis)) > _EVEN_MM for axis in axes):
    return None
  return [[float(axis[0]), float(axis[-1]), len(axis)] for axis in axes]


def spacing(axes: Sequence[np.ndarray]) -> list[float]:
  """Voxel size in mm along each evenly spaced axis."""
  return [float(axis[-1] - axis[0]) / (len(axis) - 1) for axis in axes]


def write_nifti(
  path: str | os.PathLike[str], dose: Dose, description: str
) -> None:
  """Writes a dose as `.nii.gz`, in Gy and in the patient's own coordinates.

  Args:
    path: of the file, which is replaced whole or not at all.
    dose: on evenly spaced axes.
    description: at most 79 characters of ASCII.
  """
  import nibabel

  # NIfTI's axes run to right and anterior, DICOM's to left and posterior.
  turned = np.array([-1, -1, 1, 1.0])
  affine = np.diag([*spacing(dose.axes), 1.0])
  affine[:3, 3] = [axis[0] for axis in dose.axes]
  image = nibabel.Nifti1Image(dose.values, turned[:, None] * affine)
  image.set_qform(image.affine, 'scanner')
  image.set_sform(image.affine, 'scanner')
  image.header.set_xyzt_units('mm')
  image.header['descrip'] = description.encode()
  with files.replacing(pathlib.Path(path)) as aside:
    # The suffix tells nibabel to compress.
    whole = aside.with_name(f'{aside.name}.nii.gz')
    nibabel.save(image, whole)
    os.replace(whole, aside)
