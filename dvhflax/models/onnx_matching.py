"""Ranks and matched doses in an ONNX graph, as `prior.py` and `matching.py`.

Places are in one row, `[N, V]`, for ONNX's GatherElements.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from dvhflax.dvh import DVHSpec
from dvhflax.models.matching import RANKS, STEP, ranks, volume_place
from dvhflax.models.onnx_graph import Graph, OnnxPatient
from dvhflax.models.prior import (
  BLURS_MM,
  PENUMBRA_MM,
  blur_weights,
  target_sets,
)

# Data types of ONNX's Cast.
_FLOAT32, _INT64, _BOOL = 1, 7, 9


def geometry_prior(
  g: Graph,
  patient: OnnxPatient,
  targets: Sequence[int],
  grid: Sequence[int],
  spacing_mm: Sequence[float],
) -> str:
  """The sum of `prior_fields`, `[N, X, Y, Z]`."""
  inside = [
    g(
      'ReduceMax',
      g('Gather', patient.masks, list(chosen), axis=1),
      [1],
      keepdims=1,
    )
    for chosen in target_sets(targets)
  ]
  together = g('Concat', *inside, axis=1)
  fields = [_blurred(g, together, grid, spacing_mm, mm) for mm in BLURS_MM]
  if patient.open_fields is not None:
    fields.append(
      _blurred(g, patient.open_fields, grid, spacing_mm, PENUMBRA_MM)
    )
  field = g('Concat', *fields, axis=1)
  largest = g('ReduceMax', field, [2, 3, 4], keepdims=1)
  positive = g('Greater', largest, np.float32(0))
  field = g('Div', field, g('Where', positive, largest, np.float32(1)))
  return g('ReduceSum', field, [1], keepdims=0)


def _blurred(
  g: Graph,
  x: str,
  grid: Sequence[int],
  spacing_mm: Sequence[float],
  deviation_mm: float,
) -> str:
  """`prior.blurred`, of `[N, C, X, Y, Z]`."""
  along = [
    np.asarray(blur_weights(n, jnp.array([step]), deviation_mm))[0]
    for n, step in zip(grid, spacing_mm)
  ]
  # The first axis with all others in one row.
  x = g('Reshape', x, [0, 0, grid[0], -1])
  x = g('MatMul', along[0], x)
  x = g('Reshape', x, [0, 0, *grid])
  x = g('MatMul', along[1], x)
  return g('MatMul', x, along[2].T)


def places(g: Graph, prior: str, masks: str, precedence: Sequence[int]) -> str:
  """`matching.places`, int64.

  Args:
    g: to add nodes to.
    prior: name of `[N, X, Y, Z]`.
    masks: name of `[N, S, X, Y, Z]`.
    precedence: the S channels, the last decides.
  """
  structures = len(precedence)
  prior = g('Reshape', prior, [0, 1, -1])
  masks = g('Reshape', masks, [0, structures, -1])
  inside = g('Cast', masks, to=_BOOL)
  rank = g('Mul', _rank(g, prior, inside), np.float32(RANKS))
  rank = g('Cast', rank, to=_INT64)
  rank = g('Min', g('Max', rank, 0), RANKS - 1)
  place = g('Add', rank, RANKS * np.arange(structures)[:, None])
  found: Any = structures * RANKS
  for s in precedence:
    here, there = (g('Gather', x, s, axis=1) for x in (inside, place))
    found = g('Where', here, there, found)
  return str(found)


def _rank(g: Graph, prior: str, inside: str) -> str:
  """Ranks as shares, as in `matching.py`.

  Args:
    g: to add nodes to.
    prior: name of `[N, 1, V]`.
    inside: name of `[N, S, V]`, the structures.
  """
  infinite = np.float32(np.inf)
  least = g('Where', inside, prior, infinite)
  least = g('ReduceMin', least, [2], keepdims=1)
  most = g('Where', inside, prior, -infinite)
  most = g('ReduceMax', most, [2], keepdims=1)
  width = g('Where', g('Greater', most, least), g('Sub', most, least),
            np.float32(1))  # fmt: skip
  share = g('Div', g('Sub', prior, least), width)
  bins = g('Mul', share, np.float32(RANKS))
  bins = g('Clip', bins, np.float32(0), np.float32(RANKS - 1))
  index = g('Where', inside, g('Cast', bins, to=_INT64), RANKS)
  ones = g('Expand', np.ones(1, 'f4'), g('Shape', index))
  batch_and_structures = g('Shape', index, end=2)
  empty = g('Expand', np.zeros(1, 'f4'),
            g('Concat', batch_and_structures, [RANKS + 1], axis=0))  # fmt: skip
  counts = g('ScatterElements', empty, index, ones, axis=2, reduction='add')
  counts = g('Slice', counts, [0], [RANKS], [2])
  above = g('CumSum', counts, 2, reverse=1)
  above = g('Sub', above, g('Mul', counts, np.float32(0.5)))
  total = g('ReduceSum', counts, [2], keepdims=1)
  shares = g('Div', above, g('Max', total, np.float32(1)))
  return g('GatherElements', shares, g('Min', index, RANKS - 1), axis=2)


def doses_of_ranks(g: Graph, dvh: str, spec: DVHSpec) -> str:
  """`matching.doses_of_ranks`, `[N, S * RANKS + 1]` of `[N, S, K]`."""
  last = spec.points - 1
  if spec.kind == 'volume_at_dose':
    high, low = (
      g('Unsqueeze', g('Slice', dvh, [i], [i + last], [2]), [2])
      for i in range(2)
    )
    fall = g('Max', g('Sub', high, low), np.float32(STEP))
    passed = g('Div', g('Sub', high, ranks()[:, None]), fall)
    passed = g('Clip', passed, np.float32(0), np.float32(1))
    doses = g('MatMul', passed, np.diff(spec.levels))
  else:
    low_end, share = volume_place(spec)
    before, after = (g('Gather', dvh, low_end + i, axis=2) for i in range(2))
    doses = g('Add', g('Mul', before, 1 - share), g('Mul', after, share))
  return g('Pad', g('Flatten', doses), [0, 0, 0, 1])


def is_wished(g: Graph, place: str, dvh: str) -> str:
  """Whether the structure that decides on a voxel has a wish, bool.

  Voxels of no structure count as such: their dose is 0 for any wish.

  Args:
    g: to add nodes to.
    place: of `places`.
    dvh: name of `[N, S, K]`.
  """
  wished = g('ReduceMax', g('Abs', dvh), [2], keepdims=0)
  wished = g('Pad', wished, [0, 0, 0, 1], np.float32(1))
  wished = g('GatherElements', wished, g('Div', place, RANKS), axis=1)
  return g('Greater', wished, np.float32(0))
