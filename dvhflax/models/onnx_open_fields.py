"""Open fields, see `open_fields.py`, in an ONNX graph."""

from collections.abc import Sequence

import numpy as np

from dvhflax.models.onnx_graph import Graph
from dvhflax.models.open_fields import Beam, beams_of


def open_fields(
  g: Graph,
  masks: str,
  targets: Sequence[int],
  grid: tuple[int, int, int],
  spacing_mm: tuple[float, float, float],
  beams: int,
) -> str:
  """`[N, 1, X, Y, Z]`, as `open_field_dose`.

  Args:
    g: to add nodes to.
    masks: name of `[N, S, X, Y, Z]`.
    targets: channels of the targets.
    grid, spacing_mm: voxels along each axis, and their size.
    beams: number of beams.
  """
  nx, ny, nz = grid
  target = g('Gather', masks, list(targets), axis=1)
  target = g('ReduceMax', target, [1], keepdims=0)
  columns = g('Reshape', target, [0, nx * ny, nz])
  # A last column of zeros, for bins that nothing falls into.
  columns = g('Pad', columns, [0, 0, 0, 0, 1, 0])
  total = None
  for beam in beams_of(grid, spacing_mm, beams):
    dose = _beam(g, beam, columns)
    total = dose if total is None else g('Add', total, dose)
  return g('Reshape', total, [0, 1, nx, ny, nz])


def _beam(g: Graph, beam: Beam, columns: str) -> str:
  falling = g('Gather', columns, _columns_of_bins(beam), axis=1)
  aperture = g('ReduceMax', falling, [2], keepdims=0)
  aperture = g('Unsqueeze', aperture, [1])
  aperture = g('MaxPool', aperture, kernel_shape=[3, 3], pads=[1] * 4)
  aperture = g('Squeeze', aperture, [1])
  low = g('Gather', aperture, beam.low, axis=1)
  high = g('Gather', aperture, beam.low + 1, axis=1)
  return g(
    'Add',
    g('Mul', low, ((1 - beam.share) * beam.weight)[:, None]),
    g('Mul', high, (beam.share * beam.weight)[:, None]),
  )


def _columns_of_bins(beam: Beam) -> np.ndarray:
  """`[bins, most]` columns that open each bin; C, one of none, fills up."""
  columns = len(beam.bin)
  counts = np.bincount(beam.bin, minlength=beam.bins)
  found = np.full((beam.bins, counts.max()), columns)
  order = np.argsort(beam.bin, kind='stable')
  place = np.arange(columns) - np.repeat(np.cumsum(counts) - counts, counts)
  found[beam.bin[order], place] = order
  return found
