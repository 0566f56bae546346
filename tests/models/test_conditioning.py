"""A way of conditioning that is registered from outside, and combinations."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.models import conditioning
from dvhflax.models.build import initial_variables
from dvhflax.models.conditioning.bottleneck import Bottleneck
from dvhflax.models.conditioning.film import Film
from dvhflax.models.onnx import to_onnx
from dvhflax.models.patches import mean_pool
from dvhflax.models.unet import UNet
from dvhflax.training.runs import load_network
from dvhflax.training.train import train


class Painted(conditioning.Conditioning):
  """Every structure painted with the mean of its wish, at each level."""

  def setup(self):
    self.painted_layers = [nn.Dense(c) for c in self.net.channels]

  def prepare(self, masks, spacing_mm, open_fields):
    return masks

  def __call__(self, desired_dvh, wish, anatomy, prepared):
    painted = prepared * desired_dvh.mean(-1)[:, None, None, None]
    levels = [painted]
    for window in self.net.windows[:-1]:
      levels.append(mean_pool(levels[-1], window))
    added = [layer(level) for layer, level in zip(self.painted_layers, levels)]
    return conditioning.Entry(levels=added, dose=painted.max(-1))


@pytest.fixture
def ways(monkeypatch):
  def register(*ways):
    monkeypatch.setitem(conditioning.WAYS, 'made up', ways)

  return register


@pytest.mark.slow
def test_a_new_way_trains_and_predicts(ways, config, cohort, tmp_path):
  ways(Painted)
  config.model.conditioning = 'made up'
  config_lib.validate(config)
  train(config, cohort, str(tmp_path))
  network, _ = load_network(str(tmp_path), 'latest', None)
  features = network.features(cohort.masks(0), (3.0, 3.0, 5.0))
  wish = cohort.dvh[0, 0].copy()
  usual = network.decode(features, wish)
  wish[1] /= 2
  less = network.decode(features, wish)
  rectum = cohort.masks(0)[..., 1] > 0
  assert less[rectum].mean() < usual[rectum].mean()


@pytest.fixture
def network(ways):
  """Of all ways at once; its variables, two wishes for one patient."""
  ways(Bottleneck, Film, Painted)
  model = UNet(
    grid=(8, 8, 4),
    dvh_shape=(3, 5),
    base_channels=4,
    max_channels=8,
    conditioning='made up',
    norm='group',
  )
  variables = initial_variables(model, jax.random.key(0))
  rng = np.random.default_rng(0)
  masks = (rng.random((1, 8, 8, 4, 3)) < 0.5).astype(np.uint8)
  wishes = rng.random((2, 3, 5)).astype(np.float32)
  return model, variables, masks, wishes


def test_ways_combine(network):
  model, variables, masks, wishes = network
  # The last layer begins at zero.
  params = jax.tree.map(lambda x: x + 0.1, variables['params'])

  @jax.jit
  @jax.grad
  def gradient(params):
    changed = {**variables, 'params': params}
    features = model.apply(changed, masks, train=False, method=UNet.encode)
    doses = model.apply(
      changed, features, wishes, train=False, method=UNet.decode
    )
    return (doses[0] - doses[1]).var()

  found = gradient(params)
  for name in ('wish_layers_0', *(f'painted_layers_{i}' for i in range(3))):
    assert np.abs(found[name]['kernel']).max() > 0, name
  # 8 channels of anatomy, 3 * 5 of the wish, 8 of the encoder's copy
  assert found['decoder_2_a']['kernel'].shape[3] == 8 + 15 + 8


def test_a_way_without_onnx_says_so(network):
  model, variables, _, _ = network
  with pytest.raises(errors.UserError, match='made up cannot be exported'):
    to_onnx(model, variables, {})
