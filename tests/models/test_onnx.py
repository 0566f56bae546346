"""The exported network, run by ONNX Runtime, against the JAX one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from dvhflax.dvh import DVHSpec
from dvhflax.models.build import initial_variables
from dvhflax.models.matching import RANKS, doses_of_ranks, matched_dose
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


def feeds(seed):
  """Overlapping structures; an absent one; a missing wish."""
  rng = np.random.default_rng(seed)
  masks = (rng.random((3, *GRID, 3)) < 0.3).astype(np.float32)
  masks[2, ..., 1] = 0
  wish = -np.sort(-rng.random((3, 3, 5)).astype(np.float32))
  wish[1, 2] = 0
  return masks, wish


def run(proto, masks, wish):
  """The outputs of the graph, by name."""
  session = onnxruntime.InferenceSession(proto.SerializeToString())
  given = {'masks': masks, 'desired_dvh': wish}
  names = [i.name for i in session.get_inputs()]
  found = session.run(None, {name: given[name] for name in names})
  return dict(zip([o.name for o in session.get_outputs()], found, strict=True))


@pytest.mark.parametrize(
  'fields',
  [
    {'conditioning': 'bottleneck', 'norm': 'batch'},
    {
      'conditioning': 'bottleneck',
      'norm': 'mixed',
      'patch': 2,
      'smoothing': True,
    },
    {
      'conditioning': 'film',
      'norm': 'mixed',
      'standardise_dvh': True,
      'beams': 7,
      'targets': (1, 2),
    },
    {
      'conditioning': 'none',
      'norm': 'group',
      'patch': 2,
      'beams': 3,
      'targets': (2,),
    },
  ],
  ids=lambda fields: f'{fields["conditioning"]}-{fields.get("patch", 1)}',
)
def test_same_dose(fields):
  model, variables = trained(**fields)
  masks, wish = feeds(1)
  found = run(to_onnx(model, variables, {'step': '3'}), masks, wish)
  predict = jax.jit(functools.partial(model.apply, train=False))
  expected = predict(variables, masks, wish)
  assert np.ptp(expected) > 0.1
  np.testing.assert_allclose(
    found['dose'], expected, atol=1e-4 * np.ptp(expected)
  )


def with_places(proto):
  """The graph with one more output, `places`: see `matching.places`."""
  # The first look-up in what is `[N, T]`: that in the table of doses.
  places = next(
    node.input[1]
    for node in proto.graph.node
    if node.op_type == 'GatherElements' and node.attribute[0].i == 1
  )
  proto.graph.node.append(
    onnx.helper.make_node('Identity', [places], ['places'])
  )
  info = onnx.helper.make_tensor_value_info
  proto.graph.output.append(info('places', onnx.TensorProto.INT64, None))
  return proto


@pytest.mark.parametrize(
  'fields',
  [
    {'conditioning': 'matched', 'norm': 'group', 'beams': 7},
    {
      'conditioning': 'matched',
      'norm': 'batch',
      'prior': 'first_dose',
      'patch': 2,
      'dvh': DVHSpec('dose_at_volume', 5),
    },
    {
      'conditioning': 'film+matched',
      'norm': 'mixed',
      'patch': 2,
      'smoothing': True,
      'standardise_dvh': True,
      'dvh': DVHSpec('dose_at_volume', 5),
    },
    {
      'conditioning': 'bottleneck+matched',
      'norm': 'mixed',
      'prior': 'first_dose',
      'beams': 3,
      'dvh': DVHSpec(points=5),
    },
  ],
  ids=lambda fields: f'{fields["conditioning"]}-{fields.get("prior", "")}',
)
def test_same_matched_dose(fields):
  fields = {'targets': (1, 2), 'body': 0, 'dvh': DVHSpec(points=5), **fields}
  model, variables = trained(**fields)
  masks, wish = feeds(2)
  proto = with_places(to_onnx(model, variables, {}))
  found = run(proto, masks, wish)
  prepared = jax.jit(functools.partial(model.apply, method=UNet.prepare))(
    variables, masks
  )
  once = prepared['ways'][-1]
  # Where a prior is at the border of two ranks, rounding decides. One such
  # voxel changes the dose of all that the network's convolutions reach, so
  # the doses are compared for the same places.
  places = found['places'].reshape(once['place'].shape)
  assert np.mean(places != once['place']) < 0.005
  assert len(np.unique(places // RANKS)) == 4
  once['place'] = jnp.asarray(places)
  if model.prior == 'geometry':
    mean = variables['dvh_statistics']['mean'][None]
    table = jnp.tile(doses_of_ranks(mean, model.dvh), (3, 1))
    once['usual'] = matched_dose(places, table)
  predict = jax.jit(functools.partial(model.apply, train=False))
  expected = predict(variables, masks, wish, prepared=prepared)
  assert np.ptp(expected) > 0.1
  np.testing.assert_allclose(
    found['dose'], expected, atol=1e-4 * np.ptp(expected)
  )
