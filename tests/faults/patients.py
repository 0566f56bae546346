"""Patients as NIfTI, which are imported in no time: writing is what remains."""

import pathlib

import nibabel
import numpy as np

SHAPE, SPACING_MM = (16, 16, 8), (4.0, 4.0, 6.0)
# Centres and radii, in voxels.
_BALLS = {
  'Body': ((8, 8, 4), 7.0),
  'Bladder': ((8, 11, 4), 2.5),
  'Rectum': ((8, 4, 4), 2.0),
  'PTV': ((8, 8, 4), 2.5),
}


def write(root: pathlib.Path, patients: int, plans: int = 2) -> pathlib.Path:
  """Writes patients, each with doses of its own; returns the folder."""
  for number in range(patients):
    rng = np.random.default_rng(number)
    folder = root / f'patient-{number:02d}'
    folder.mkdir(parents=True)
    shift = rng.uniform(-0.7, 0.7, 3)
    masks = {
      name: _ball(np.array(centre) + shift, radius)
      for name, (centre, radius) in _BALLS.items()
    }
    for name, mask in masks.items():
      _save(folder / f'{name}.nii', mask)
    for plan in range(plans):
      dose = 30 * rng.random(SHAPE) * masks['Body']
      dose[masks['PTV']] = 76 + 4 * rng.random(int(masks['PTV'].sum()))
      _save(folder / f'dose_{plan}.nii', dose)
  return root


def _ball(centre: np.ndarray, radius: float) -> np.ndarray:
  grid = np.indices(SHAPE).transpose(1, 2, 3, 0)
  scale = np.array(SPACING_MM) / SPACING_MM[0]
  return (((grid - centre) * scale) ** 2).sum(-1) <= radius**2


def _save(path: pathlib.Path, values: np.ndarray) -> None:
  affine = np.diag([*SPACING_MM, 1.0])
  image = nibabel.Nifti1Image(values.astype(np.float32), affine)
  nibabel.save(image, path)
