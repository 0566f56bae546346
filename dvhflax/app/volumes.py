"""Doses, masks and CTs as the page reads them.

A volume is `[Z][Y][X]` in C order, little endian. The voxel x, y, z of it is
that of the patient's arrays `[X, Y, Z]`.
"""

import numpy as np

_MOST = 2**16 - 1


def dose_bytes(dose_gy: np.ndarray) -> tuple[bytes, float]:
  """A dose in whole units, and a unit in Gy: the largest dose is 65535.

  Args:
    dose_gy: `[X, Y, Z]` Gy; what is negative becomes 0.
  """
  top = float(dose_gy.max())
  gy_per_unit = top / _MOST if top > 0 else 1.0
  units = dose_gy.transpose(2, 1, 0) * np.float32(1 / gy_per_unit)
  units = np.clip(units + np.float32(0.5), 0, _MOST)
  return units.astype('<u2').tobytes(), gy_per_unit


def mask_bytes(masks: np.ndarray) -> tuple[bytes, int]:
  """A bit a structure, and the bytes of a voxel: 1, 2, 4 or 8.

  Args:
    masks: `[X, Y, Z, S]`, 0 or 1; bit s is structure s.
  """
  count = masks.shape[-1]
  size = next(n for n in (1, 2, 4, 8) if count <= 8 * n)
  kind = np.dtype(f'<u{size}')
  bits = np.zeros(masks.shape[:3], kind)
  for s in range(count):
    bits |= (masks[..., s] > 0).astype(kind) << kind.type(s)
  return bits.transpose(2, 1, 0).astype(kind).tobytes(), size


def ct_bytes(ct: np.ndarray) -> bytes:
  """`[X, Y, Z]` int16 HU."""
  return ct.transpose(2, 1, 0).astype('<i2').tobytes()
