"""The body outline from a CT, for patients without a contoured one.

Voxels above -500 HU are kept, except parts thinner than 6 mm in an axial slice
(masks, couch tops and their bridges to the patient). The largest connected part
is the body, and its holes are filled slice by slice: lungs, bowel and airways
that do not open to the outside in the slice belong to it.
"""

import numpy as np
from scipy import ndimage

from dvhflax import errors
from dvhflax.io.resample import Occupancy, Scan

# Half-way between air and water, so that the skin lies at the right place in a
# voxel it cuts.
THRESHOLD_HU = -500
OPENING_MM = 3.0
# No patient is this small: the largest part is then a couch or a phantom pin.
LEAST_CC = 50.0
# Pixels are averaged up to about this size, then down to this many a side.
PIXEL_MM = 2.0
PIXELS = 128


def derive_body(
  ct_hu: np.ndarray, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
  """The body in a CT.

  Args:
    ct_hu: `[X, Y, Z]` CT numbers in HU; z runs across the axial slices.
    spacing_mm: voxel size along each axis; for unevenly spaced slices, their
      median distance.

  Returns:
    `[X, Y, Z]` bool.

  Raises:
    CohortError: if no part has the density and size of a body.
  """
  dense = np.asarray(ct_hu) > THRESHOLD_HU
  disk = _disk(spacing_mm)
  kept = ndimage.binary_erosion(dense, disk, border_value=1)
  labels, _ = ndimage.label(kept)
  sizes = np.bincount(labels.ravel())
  sizes[0] = 0
  kept = labels == max(sizes.argmax(), 1)
  del labels
  body = ndimage.binary_dilation(kept, disk) & dense
  body = _filled(body)
  volume_cc = np.count_nonzero(body) * np.prod(spacing_mm) / 1000
  if volume_cc < LEAST_CC:
    raise errors.CohortError(
      f'no body found in the CT: its largest part above {THRESHOLD_HU} HU has '
      f'{volume_cc:.0f} cc; are its values in HU? Or contour the body'
    )
  return body


def from_scan(scan: Scan) -> Occupancy:
  """The body in a CT, on its own coarser grid.

  Raises:
    CohortError: see `derive_body`.
  """
  x, y, z = scan.axes
  factors = [max(1, round(PIXEL_MM / (each[1] - each[0]))) for each in (x, y)]
  edges = [_edges(x, factors[0]), _edges(y, factors[1]), _edges(z, 1)]
  x_mm, y_mm, z_mm = (float(np.median(np.diff(each))) for each in edges)
  body = derive_body(_block_mean(scan.values, factors), (x_mm, y_mm, z_mm))
  for axis in range(3):
    occupied = np.flatnonzero(body.any(tuple({0, 1, 2} - {axis})))
    first, last = occupied[0], occupied[-1] + 1
    body = body.take(range(first, last), axis)
    edges[axis] = edges[axis][first : last + 1]
  again = [-(-body.shape[axis] // PIXELS) for axis in (0, 1)]
  rest = [-body.shape[axis] % again[axis] for axis in (0, 1)]
  body = np.pad(body, [(0, rest[0]), (0, rest[1]), (0, 0)])
  for axis in (0, 1):
    step = edges[axis][1] - edges[axis][0]
    more = edges[axis][-1] + step * np.arange(1, rest[axis] + 1)
    edges[axis] = np.concatenate([edges[axis], more])[:: again[axis]]
  x, y, z = edges
  return Occupancy(
    _block_mean(body, again), (x[:-1], y[:-1], z[:-1]), (x[1:], y[1:], z[1:])
  )


def _disk(spacing_mm: tuple[float, float, float]) -> np.ndarray:
  """`[2 A + 1, 2 B + 1, 1]` bool, a disk of radius `OPENING_MM`."""
  x, y = (
    step * np.arange(-int(OPENING_MM // step), int(OPENING_MM // step) + 1)
    for step in spacing_mm[:2]
  )
  return (x[:, None, None] ** 2 + y[:, None] ** 2) <= OPENING_MM**2


def _filled(body: np.ndarray) -> np.ndarray:
  """Each slice with its holes, which do not reach the border, filled."""
  within_slices = ndimage.generate_binary_structure(3, 1)
  within_slices[1, 1, [0, 2]] = False
  labels, count = ndimage.label(~body, within_slices)
  outside = np.zeros(count + 1, bool)
  for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
    outside[border.ravel()] = True
  outside[0] = False
  return ~outside[labels]


def _block_mean(values: np.ndarray, factors: list[int]) -> np.ndarray:
  """Means over blocks of x and y; incomplete blocks at the ends are cut off.

  Args:
    values: `[X, Y, Z]`.
    factors: of x and y.

  Returns:
    `[X // fx, Y // fy, Z]` float32.
  """
  fx, fy = factors
  nx, ny = values.shape[0] // fx * fx, values.shape[1] // fy * fy
  total = np.zeros((nx // fx, ny // fy, values.shape[2]), np.float32)
  for i in range(fx):
    for j in range(fy):
      total += values[i:nx:fx, j:ny:fy]
  total /= fx * fy
  return total


def _edges(centres: np.ndarray, factor: int) -> np.ndarray:
  """Voxel bounds, every `factor`-th one."""
  middles = (centres[1:] + centres[:-1]) / 2
  first = centres[0] - (middles[0] - centres[0])
  last = centres[-1] + (centres[-1] - middles[-1])
  edges = np.concatenate([[first], middles, [last]])
  return edges[: len(centres) // factor * factor + 1 : factor]
