"""The exported network, run by ONNX Runtime, against the JAX one."""

import functools

import jax
import numpy as np
import onnxruntime
import pytest

from dvhflax.models.build import initial_variables
from dvhflax.models.onnx import to_onnx
from dvhflax.models.unet import UNet

GRID = (16, 8, 4)


def trained(**fields):
  """A network with all variables off their start."""
  model = UNet(
    grid=GRID,
    dvh_shape=(3, 5),
    base_channels=4,
    max_channels=16,
    spacing_mm=(4.0, 5.0, 6.0),
    **fields,
  )
  rng = np.random.default_rng(0)

  def moved(x):
    return x + 0.2 * rng.random(x.shape).astype(np.float32)

  return model, jax.tree.map(moved, initial_variables(model, jax.random.key(0)))


@pytest.mark.parametrize(
  'fields',
  [
    {'conditioning': 'bottleneck', 'norm': 'batch'},
    {
      'conditioning': 'film',
      'norm': 'mixed',
      'standardise_dvh': True,
      'beams': 7,
      'targets': (1, 2),
    },
    {'conditioning': 'none', 'norm': 'group'},
  ],
  ids=lambda fields: fields['conditioning'],
)
def test_same_dose(fields):
  model, variables = trained(**fields)
  rng = np.random.default_rng(1)
  masks = (rng.random((2, *GRID, 3)) < 0.3).astype(np.float32)
  wish = rng.random((2, 3, 5)).astype(np.float32)
  wish[1, 2] = 0  # no wish for a structure
  proto = to_onnx(model, variables, {'step': '3'})
  session = onnxruntime.InferenceSession(proto.SerializeToString())
  feeds = {'masks': masks, 'desired_dvh': wish}
  names = [i.name for i in session.get_inputs()]
  (dose,) = session.run(['dose'], {name: feeds[name] for name in names})
  predict = jax.jit(functools.partial(model.apply, train=False))
  expected = predict(variables, masks, wish)
  assert np.ptp(expected) > 0.1
  np.testing.assert_allclose(dose, expected, atol=1e-4 * np.ptp(expected))
