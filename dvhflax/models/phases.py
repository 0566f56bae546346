"""The convolution of an upsampled grid, on the coarse grid that it is of."""

import jax
import numpy as np

# Of the three taps round a fine voxel of phase 0, the first meets the coarse
# voxel before its own, the others its own; of phase 1, the last the next one.
_PHASES = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], 'f4')
# [8 coarse taps * 8 phases, 27 fine taps]
_PHASES_3D = np.einsum(
  'pax,qby,rcz->abcpqrxyz', _PHASES, _PHASES, _PHASES
).reshape(64, 27)


def phase_kernel(kernel: jax.Array) -> jax.Array:
  """What each phase of fine voxels asks of the coarse.

  Voxels that were each repeated over 2x2x2 meet sums of taps: each of the eight
  phases of a fine voxel is a convolution of two taps an axis on the coarse
  grid, 8 of 27 products.

  Args:
    kernel: `[3, 3, 3, C, F]`.

  Returns:
    `[2, 2, 2, C, 8 F]`.
  """
  channels, features = kernel.shape[3:]
  phases = _PHASES_3D @ kernel.reshape(27, -1)
  phases = phases.reshape(8, 8, channels, features).swapaxes(1, 2)
  phases = phases.reshape(2, 2, 2, channels, 8 * features)
  return phases.astype(kernel.dtype)
