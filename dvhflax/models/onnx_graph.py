"""Builds the nodes of an ONNX graph."""

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
      self._onnx.helper.make_node(operator, names, [output], **attributes)
    )
    return output

  def affine(self, x: str, scale: Any, shift: Any) -> str:
    """`x * scale + shift`, each broadcast or a name."""
    return self('Add', self('Mul', x, scale), shift)

  def dense(self, x: str, params: dict[str, np.ndarray]) -> str:
    """flax's Dense."""
    return self('Gemm', x, params['kernel'], params['bias'])
