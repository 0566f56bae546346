"""Figure 3: shapes, size, conditioning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvhflax import errors
from dvhflax.models.build import initial_variables
from dvhflax.models.pooling import max_pool, pooling_plan
from dvhflax.models.unet import UNet


def make(grid=(8, 8, 4), **fields):
  fields = {'base_channels': 4, 'max_channels': 8, **fields}
  model = UNet(grid=grid, dvh_shape=(3, 5), **fields)
  variables = initial_variables(model, jax.random.key(0))
  rng = np.random.default_rng(0)
  masks = (rng.random((2, *grid, 3)) < 0.5).astype(np.uint8)
  wish = rng.random((2, 3, 5)).astype(np.float32)
  return model, variables, masks, wish


@functools.partial(jax.jit, static_argnums=0, static_argnames='method')
def predict(model, variables, *inputs, method=None):
  return model.apply(variables, *inputs, train=False, method=method)


def test_paper_network_has_its_parameters():
  model = UNet(grid=(128, 128, 64), dvh_shape=(4, 32))
  variables = jax.eval_shape(
    lambda: initial_variables(model, jax.random.key(0))
  )
  sizes = [x.size for x in jax.tree.leaves(variables['params'])]
  assert sum(sizes) == 7_350_289


def test_pooling_plan_of_the_paper():
  assert pooling_plan((128, 128, 64)) == ((2, 2, 2),) * 6 + ((2, 2, 1),)


@pytest.mark.parametrize('grid', [(96, 64, 32), (0, 4, 4), (1, 1, 1), (4, 4)])
def test_impossible_grids(grid):
  with pytest.raises(errors.ConfigError, match='grid'):
    pooling_plan(grid)


@pytest.mark.parametrize(
  'conditioning, norm',
  [('bottleneck', 'batch'), ('film', 'mixed'), ('none', 'group')],
)
def test_every_conditioning_predicts_a_dose(conditioning, norm):
  model, variables, masks, wish = make(conditioning=conditioning, norm=norm)
  dose = predict(model, variables, masks, wish)
  assert dose.shape == (2, 8, 8, 4) and dose.dtype == jnp.float32
  assert np.isfinite(dose).all()


@pytest.mark.parametrize('conditioning', ['bottleneck', 'film'])
def test_wish_has_a_gradient(conditioning):
  model, variables, masks, wish = make(
    conditioning=conditioning, standardise_dvh=True
  )
  # Modulation begins at zero; a network that was trained has left it.
  params = jax.tree.map(lambda x: x + 0.1, variables['params'])

  def mean_dose(wish):
    return model.apply(
      {**variables, 'params': params}, masks, wish, train=False
    ).sum()

  assert np.abs(jax.jit(jax.grad(mean_dose))(wish)).max() > 0


def test_mixed_norm_has_statistics_of_large_maps_only():
  variables = make(norm='mixed')[1]
  kept = {name[:9] for name in variables['batch_stats']}
  assert kept == {'encoder_0', 'decoder_0'}  # 256 voxels; the next has 32


@pytest.mark.parametrize('window', [(2, 2, 2), (2, 2, 1), (1, 1, 2)])
def test_max_pool_is_the_maximum_over_axes(window):
  rng = np.random.default_rng(0)
  # Few values, so that many are equal.
  x = jnp.asarray(rng.integers(0, 4, (2, 4, 6, 8, 3)), jnp.float32)
  weight = rng.normal(size=[2, *(n // w for n, w in zip((4, 6, 8), window)), 3])

  def over_axes(x):
    axes = [n for w, m in zip(window, (4, 6, 8)) for n in (m // w, w)]
    return x.reshape(2, *axes, 3).max((2, 4, 6))

  np.testing.assert_array_equal(max_pool(x, window), over_axes(x))
  gradient = jax.grad(lambda x: jnp.sum(max_pool(x, window) * weight))(x)
  # It goes to largest values alone, and all of it does.
  largest = np.repeat(over_axes(x), window[0], 1)
  largest = np.repeat(np.repeat(largest, window[1], 2), window[2], 3)
  assert not gradient[x != largest].any()
  np.testing.assert_allclose(gradient.sum(), weight.sum(), rtol=1e-5)
  constant = jax.grad(lambda x: jnp.sum(max_pool(x, window)))(jnp.ones_like(x))
  np.testing.assert_allclose(constant, 1 / np.prod(window))


@pytest.mark.parametrize('conditioning', ['bottleneck', 'film'])
def test_evaluation_in_one_pass_is_that_in_several(conditioning):
  # Training, here without dropout, needs the features before it has the norm.
  model, variables, masks, wish = make(
    grid=(16, 16, 8), conditioning=conditioning, dropout=0.0
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda v: v + 0.3 * rng.random(v.shape).astype('f4'), variables
  )
  trained, updates = jax.jit(
    functools.partial(model.apply, train=True, mutable=['batch_stats'])
  )(variables, masks, wish)
  # With the batch's own statistics as the running ones, both are the same.
  own = jax.tree.map(
    lambda new, old: (new - 0.9 * old) / 0.1,
    updates['batch_stats'],
    variables['batch_stats'],
  )
  own = {**variables, 'batch_stats': own}
  predicted = predict(model, own, masks, wish)
  np.testing.assert_allclose(predicted, trained, rtol=1e-3, atol=1e-3)


def test_open_fields_are_an_input():
  fields = {'beams': 7, 'targets': (2,), 'spacing_mm': (4.0, 4.0, 4.0)}
  model, variables, masks, wish = make(**fields)
  assert variables['params']['encoder_0_a']['kernel'].shape[3] == 3 + 1
  dose = predict(model, variables, masks, wish)
  assert np.isfinite(dose).all()


def test_anatomy_only_ignores_the_wish():
  model, variables, masks, wish = make(conditioning='none')
  np.testing.assert_array_equal(
    predict(model, variables, masks, wish),
    predict(model, variables, masks, 0 * wish),
  )


def test_one_encoding_serves_many_wishes():
  model, variables, masks, wish = make(conditioning='bottleneck')
  features = predict(model, variables, masks[:1], method='encode')
  together = predict(model, variables, features, wish, method='decode')
  for i in range(2):
    alone = predict(model, variables, masks[:1], wish[i : i + 1])
    np.testing.assert_allclose(together[i], alone[0], atol=1e-5)
