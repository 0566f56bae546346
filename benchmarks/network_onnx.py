"""The paper's network, exported, in other runtimes; see run.py.

python benchmarks/network_onnx.py predict-onnxruntime|predict-openvino B X Y Z
"""

import jax
from measuring import answer
import numpy as np

from dvhflax.models.build import initial_variables
from dvhflax.models.onnx import to_onnx
from dvhflax.models.unet import UNet

STRUCTURES, POINTS = 4, 32


def _exported(batch, grid):
  model = UNet(grid=grid, dvh_shape=(STRUCTURES, POINTS))
  variables = initial_variables(model, jax.random.key(0))
  proto = to_onnx(model, variables, {})
  rng = np.random.default_rng(0)
  masks = rng.random((batch, *grid, STRUCTURES)) < 0.3
  wish = rng.random((batch, STRUCTURES, POINTS), np.float32)
  inputs = {'masks': masks.astype(np.float32), 'desired_dvh': wish}
  return proto.SerializeToString(), inputs


def onnxruntime(batch, *grid):
  """In ONNX Runtime."""
  import onnxruntime

  network, inputs = _exported(batch, grid)
  session = onnxruntime.InferenceSession(network)
  return lambda: session.run(None, inputs)


def openvino(batch, *grid):
  """In OpenVINO, float32."""
  import openvino

  network, inputs = _exported(batch, grid)
  core = openvino.Core()
  hint = {'INFERENCE_PRECISION_HINT': 'f32'}
  model = core.compile_model(core.read_model(network), 'CPU', hint)
  return lambda: model(inputs)


if __name__ == '__main__':
  answer({f'predict-{f.__name__}': f for f in (onnxruntime, openvino)})
