"""Writes the network of a training run as ONNX; see `models.onnx`.

Structures, DVH elements and the like are in the file's metadata.
"""

from collections.abc import Sequence
import json

import numpy as np

from dvhflax import errors, files
from dvhflax.cohort import identity
from dvhflax.models.onnx import to_onnx
from dvhflax.models.unet import UNet
from dvhflax.training import remote
from dvhflax.training.runs import restore


def export(
  workdir: str,
  output: str,
  which: str = 'best',
  spacing_mm: Sequence[float] | None = None,
) -> None:
  """Writes the network of a training run.

  Args:
    workdir: of the run.
    output: file to write.
    which: `best`, `latest`, or a saved step's number.
    spacing_mm: voxel size of the patients that the file is for, if the network
      has open fields or a matched dose and was trained on patients of several.

  Raises:
    CheckpointError: if there is no such checkpoint.
    UserError: if a voxel size is wanted and not given, or the reverse.
  """
  remote.require_folder(output, '--output')
  model, variables, config, data, step = restore(
    remote.absolute(workdir), which
  )
  model = on_voxels(model, spacing_mm)
  metadata = {
    'spacing_mm': json.dumps(list(model.spacing_mm)),
    'data': json.dumps(identity.without_place(data)),
    'config': json.dumps(config.to_dict()),
    'step': str(step),
    'use': 'for research, not for clinical use',
  }
  proto = to_onnx(model, variables, metadata)
  with files.replacing(output) as aside:
    aside.write_bytes(proto.SerializeToString())


def on_voxels(model: UNet, spacing_mm: Sequence[float] | None) -> UNet:
  """The network for one voxel size."""
  usual = ','.join(f'{size:g}' for size in model.spacing_mm)
  if not model.own_spacing:
    if spacing_mm is None:
      return model
    raise errors.UserError(
      f'--spacing_mm: this network is for voxels of {usual} mm, as all of its '
      'training patients: leave it out'
    )
  if spacing_mm is None:
    raise errors.UserError(
      'this network takes distances in the voxel size of each patient, and a '
      'file has those of one: say which, '
      f'--spacing_mm={usual} for the median of the training patients'
    )
  if len(spacing_mm) != 3 or not all(0 < x < np.inf for x in spacing_mm):
    raise errors.UserError('--spacing_mm must be three positive lengths in mm')
  x, y, z = map(float, spacing_mm)
  return model.clone(spacing_mm=(x, y, z), own_spacing=False)
