"""A trained network as an ONNX graph, for runtimes of its own on any machine.

Inputs `masks [N, X, Y, Z, S]` float32 and, but for an anatomy-only network,
`desired_dvh [N, S, K]`; output `dose [N, X, Y, Z]`, all as `unet.py` has them.
"""

import functools
from typing import Any

import jax
import numpy as np

from dvhflax import errors
from dvhflax.models import norm as norm_lib
from dvhflax.models.conditioning import Entry, combine
from dvhflax.models.layer import ConvLayer
from dvhflax.models.onnx_graph import Graph, OnnxPatient
from dvhflax.models.onnx_open_fields import open_fields
from dvhflax.models.pooling import cells_of
from dvhflax.models.smoothing import KERNEL
from dvhflax.models.unet import UNet

# GroupNormalization and the like are left out: what is used is known to every
# runtime of the last years.
_OPSET, _IR_VERSION = 18, 9


def _as_channel(vector: np.ndarray) -> np.ndarray:
  return np.asarray(vector)[:, None, None, None]


class _Exporter:
  """Follows `UNet` layer by layer, channels first.

  Args:
    graph: to add nodes to.
    model: of float32.
    variables: of the network, as numpy arrays.
    masks, open_fields: see `OnnxPatient`.
  """

  def __init__(
    self,
    graph: Graph,
    model: UNet,
    variables: Any,
    masks: str,
    open_fields: str | None,
  ):
    self.g = graph
    self.model = model.bind(variables)
    self.params = variables['params']
    self.stats = variables['batch_stats']
    self.statistics = variables.get('dvh_statistics')
    self.patient = OnnxPatient(masks, open_fields, self._other_dose)

  def _other_dose(self, model: UNet, variables: Any) -> str:
    patient = self.patient
    return _Exporter(
      self.g, model, variables, patient.masks, patient.open_fields
    ).run()

  def layer(self, layer: ConvLayer, x: str, modulation: Any = None) -> str:
    name = str(layer.name)
    g, params = self.g, self.params[name]
    # [kx, ky, kz, C, F] as [F, C, kx, ky, kz]
    kernel = np.transpose(params['kernel'], (4, 3, 0, 1, 2))
    bias, size = np.asarray(params['bias']), layer.kernel_size
    if layer.norm == 'batch':
      scale, shift = self._batch_norm(name)
      kernel = kernel * scale[:, None, None, None, None]
      bias = bias * scale + shift
    x = g('Conv', x, kernel, bias, kernel_shape=[size] * 3,
          pads=[size // 2] * 6)  # fmt: skip
    if layer.norm == 'group':
      x = self._group_norm(layer, x)
    if layer.modulated:
      both = g.dense(modulation, params['modulation'])
      factor, offset = (
        g('Slice', both, [i * layer.features], [(i + 1) * layer.features], [1])
        for i in range(2)
      )
      factor, offset = (g('Unsqueeze', v, [2, 3, 4]) for v in (factor, offset))
      x = g.affine(x, g('Add', factor, np.float32(1)), offset)
    return g('Relu', x)

  def _batch_norm(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    stats = self.stats[name]['norm']
    params = self.params[name]['norm']
    deviation = np.sqrt(np.asarray(stats['var'], np.float64) + norm_lib.EPSILON)
    scale = params['scale'] / deviation
    return scale, params['bias'] - stats['mean'] * scale

  def _group_norm(self, layer: ConvLayer, x: str) -> str:
    g, params = self.g, self.params[str(layer.name)]['norm']
    groups = layer.features // norm_lib.group_size(layer.features)
    ones, zeros = np.ones(groups, 'f4'), np.zeros(groups, 'f4')
    y = g('Reshape', x, [0, groups, -1])
    y = g('InstanceNormalization', y, ones, zeros, epsilon=norm_lib.EPSILON)
    y = g('Reshape', y, g('Shape', x))
    return g.affine(
      y, _as_channel(params['scale']), _as_channel(params['bias'])
    )

  def wish(self) -> str:
    """`[N, S * K]`, standardised if so configured."""
    g, wish = self.g, 'desired_dvh'
    if self.model.standardise_dvh:
      statistics = self.statistics
      wished = g('ReduceMax', g('Abs', wish), [2], keepdims=1)
      wished = g('Cast', g('Greater', wished, np.float32(0)), to=1)
      spread = np.asarray(statistics['spread'])
      wish = g.affine(wish, 1 / spread, -statistics['mean'] / spread)
      wish = g('Mul', wish, wished)
    return g('Flatten', wish)

  def conditioning(self, x: str) -> Entry[str]:
    """What the wish adds, given the bottleneck `[N, C, 1, 1, 1]`."""
    g = self.g
    if not self.model.takes_wish:
      return Entry()
    wish, anatomy = self.wish(), g('Flatten', x)
    return combine(
      (
        way.onnx(g, self.params, wish, anatomy, self.patient)
        for way in self.model.ways
      ),
      lambda names: g('Concat', *names, axis=1),
      functools.partial(g, 'Add'),
    )

  def run(self) -> str:
    """Adds the network to the graph; the name of its dose, `[N, X, Y, Z]`."""
    g, model, x = self.g, self.model, self.patient.masks
    if self.patient.open_fields is not None:
      x = g('Concat', x, self.patient.open_fields, axis=1)
    cells = cells_of(model.grid, model.patch)
    x = g.space_to_depth(x, model.patch, cells)
    copies = []
    for window, layers in zip(model.windows, model.encoder):
      for layer in layers:
        x = self.layer(layer, x)
      copies.append(x)
      x = g('MaxPool', x, kernel_shape=window, strides=window)
    for layer in model.bottleneck:
      x = self.layer(layer, x)
    entry = self.conditioning(x)
    if entry.bottleneck is not None:
      vector = g('Unsqueeze', entry.bottleneck, [2, 3, 4])
      x = g('Concat', x, vector, axis=1)
    levels = enumerate(zip(model.windows, copies, model.decoder))
    for i, (window, copy, (merging, last)) in reversed(list(levels)):
      scales = np.array([1, 1, *window], np.float32)
      x = g('Resize', x, '', scales, mode='nearest', nearest_mode='floor',
            coordinate_transformation_mode='asymmetric')  # fmt: skip
      x = g('Concat', x, copy, axis=1)
      x = self.layer(merging, x, entry.modulation)
      if entry.levels:
        x = g('Add', x, entry.levels[i])
      x = self.layer(last, x, entry.modulation)
    x = g.dense_of_voxels(x, self.params['dose'])
    x = g.depth_to_space(x, model.patch, cells)
    if entry.dose is not None:
      x = g('Add', g('Unsqueeze', entry.dose, [1]), x)
    if model.smoothing:
      x = self._smoothed(x)
    x = g('Squeeze', x, [1])
    return x if entry.dose is None else g('Relu', x)

  def _smoothed(self, dose: str) -> str:
    """`smoothing.smoothed` of `[N, 1, X, Y, Z]`."""
    g, inside = self.g, self.patient.masks
    if self.model.body is not None:
      inside = g('Gather', inside, [self.model.body], axis=1)
    inside = g('ReduceMax', inside, [1], keepdims=1)
    kernel = np.asarray(KERNEL, np.float32)
    weights = np.einsum('x,y,z->xyz', kernel, kernel, kernel)[None, None]
    total, share = (
      g('Conv', x, weights, kernel_shape=[3] * 3, pads=[1] * 6)
      for x in (g('Mul', dose, inside), inside)
    )
    within = g('Greater', inside, np.float32(0))
    share = g('Where', within, share, np.float32(1))
    return g('Where', within, g('Div', total, share), dose)


def to_onnx(model: UNet, variables: Any, metadata: dict[str, str]) -> Any:
  """The network as an `onnx.ModelProto`.

  Args:
    model: of float32; its `convolution` and `axis_name` do not matter.
    variables: of the network, as numpy or jax arrays.
    metadata: for the file.

  Raises:
    UserError: if the onnx package is not installed.
  """
  try:
    import onnx
  except ImportError:
    raise errors.UserError(
      'exporting needs the onnx package: pip install onnx'
    ) from None
  if model.own_spacing:
    raise ValueError('a model for one voxel size is wanted: see `export`')
  graph = Graph()
  masks = graph('Transpose', 'masks', perm=[0, 4, 1, 2, 3])
  fields = None
  if model.beams:
    fields = open_fields(
      graph, masks, model.targets, model.grid, model.spacing_mm, model.beams
    )
  arrays = jax.tree.map(np.asarray, variables)
  result = _Exporter(graph, model, arrays, masks, fields).run()
  structures, points = model.dvh_shape
  info, float32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
  inputs = [info('masks', float32, ['N', *model.grid, structures])]
  if model.takes_wish:
    inputs.append(info('desired_dvh', float32, ['N', structures, points]))
  named = onnx.helper.make_node('Identity', [result], ['dose'])
  network = onnx.helper.make_graph(
    [*graph.nodes, named],
    'dvhflax',
    inputs,
    [info('dose', float32, ['N', *model.grid])],
    graph.constants,
  )
  proto = onnx.helper.make_model(
    network,
    opset_imports=[onnx.helper.make_opsetid('', _OPSET)],
    ir_version=_IR_VERSION,
    producer_name='dvhflax',
  )
  onnx.helper.set_model_props(proto, metadata)
  onnx.checker.check_model(proto, full_check=True)
  return proto
