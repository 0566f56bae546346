"""Builds the nodes of an ONNX graph; fields are `[N, C, X, Y, Z]`."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import numpy as np


class Graph:
  """Collects nodes; methods return the name of their result."""

  def __init__(self) -> None:
    import onnx

    self._onnx = onnx
    self.nodes: list[Any] = []
    self.constants: list[Any] = []

  def constant(self, value: Any) -> str:
    """A tensor: float32 or int64."""
    value = np.asarray(value)
    kind = np.float32 if value.dtype.kind == 'f' else np.int64
    name = f'c{len(self.constants)}'
    self.constants.append(
      self._onnx.numpy_helper.from_array(value.astype(kind), name)
    )
    return name

  def __call__(self, operator: str, *inputs: Any, **attributes: Any) -> str:
    """A node; an input that is no name becomes a constant."""
    names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
    output = f'{operator.lower()}{len(self.nodes)}'
    self.nodes.append(
      # Of nameless ones ONNX Runtime 1.20 makes several of the same name.
      self._onnx.helper.make_node(
        operator, names, [output], name=output, **attributes
      )
    )
    return output

  def affine(self, x: str, scale: Any, shift: Any) -> str:
    """`x * scale + shift`, each broadcast or a name."""
    return self('Add', self('Mul', x, scale), shift)

  def dense(self, x: str, params: dict[str, np.ndarray]) -> str:
    """flax's Dense, of `[N, C]`."""
    return self('Gemm', x, params['kernel'], params['bias'])

  def dense_of_voxels(self, x: str, params: dict[str, np.ndarray]) -> str:
    """flax's Dense, of the channels of every voxel."""
    kernel = np.transpose(params['kernel'])[:, :, None, None, None]
    return self('Conv', x, kernel, params['bias'])

  def mean_pool(self, x: str, window: Sequence[int]) -> str:
    """`patches.mean_pool`."""
    if all(n == 1 for n in window):
      return x
    return self('AveragePool', x, kernel_shape=window, strides=window)

  def space_to_depth(self, x: str, patch: int, cells: Sequence[int]) -> str:
    """`patches.space_to_depth`; `cells` are the patches along each axis."""
    if patch == 1:
      return x
    tiles = [side for n in cells for side in (n, patch)]
    x = self('Reshape', x, [0, -1, *tiles])
    x = self('Transpose', x, perm=[0, 3, 5, 7, 1, 2, 4, 6])
    return self('Reshape', x, [0, -1, *cells])

  def depth_to_space(self, x: str, patch: int, cells: Sequence[int]) -> str:
    """`patches.depth_to_space`."""
    if patch == 1:
      return x
    x = self('Reshape', x, [0, patch, patch, patch, -1, *cells])
    x = self('Transpose', x, perm=[0, 4, 5, 1, 6, 2, 7, 3])
    return self('Reshape', x, [0, -1, *(patch * n for n in cells)])


@dataclasses.dataclass(frozen=True)
class OnnxPatient:
  """The patients of a batch, in a graph.

  Attributes:
    masks: name of `[N, S, X, Y, Z]`, float32 of 0 or 1.
    open_fields: name of `[N, 1, X, Y, Z]`, None for a network without beams.
    dose: of another network (a `UNet` and its variables as numpy arrays) for
      the same patients: the name of its `[N, X, Y, Z]`.
  """

  masks: str
  open_fields: str | None
  dose: Callable[[Any, Any], str]
