"""Scale and shift against flax's own layers, gradients included."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvhflax.models.norm import Normalisation


def features(channels=16):
  rng = np.random.default_rng(0)
  x = rng.normal(3, 2, (4, 6, 4, 2, channels))
  weight, bias = rng.normal(1, 0.3, (2, channels))
  params = {'scale': weight.astype('f4'), 'bias': bias.astype('f4')}
  return jnp.asarray(x, jnp.float32), params


def ours(kind, x, params, **options):
  model = Normalisation(x.shape[-1], kind, options.pop('axis_name', None))
  train = options.pop('train', True)
  variables = {'params': params, **options}
  (scale, shift), updates = model.apply(
    variables, x, train=train, mutable=['batch_stats']
  )
  y = x * scale[:, None, None, None] + shift[:, None, None, None]
  return y, updates.get('batch_stats', {})


def flax_batch(x, params, stats, train):
  layer = nn.BatchNorm(
    use_running_average=not train, momentum=0.9, use_fast_variance=False
  )
  variables = {'params': params, 'batch_stats': stats}
  return layer.apply(variables, x, mutable=['batch_stats'])


@pytest.mark.parametrize('channels, size', [(16, 8), (12, 4), (3, 1)])
def test_group_norm_is_that_of_flax(channels, size):
  x, params = features(channels)
  layer = nn.GroupNorm(
    num_groups=None, group_size=size, epsilon=1e-5, use_fast_variance=False
  )

  def gradients(apply):
    def loss(x, p):
      return jnp.sum(jnp.sin(apply(x, p)))

    return jax.jit(jax.grad(loss, (0, 1)))(x, params)

  def theirs(x, params):
    return layer.apply({'params': params}, x)

  def own(x, params):
    return ours('group', x, params)[0]

  np.testing.assert_allclose(own(x, params), theirs(x, params), atol=1e-5)
  for a, b in zip(*map(jax.tree.leaves, map(gradients, (own, theirs)))):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('train', [True, False])
def test_batch_norm_is_that_of_flax(train):
  x, params = features()
  stats = {'mean': x.mean((0, 1, 2, 3)) + 0.1, 'var': jnp.full(16, 2.5)}

  def gradients(apply):
    def loss(x, p):
      return jnp.sum(jnp.sin(apply(x, p)[0]))

    return jax.jit(jax.grad(loss, (0, 1)))(x, params)

  def theirs(x, params):
    y, updates = flax_batch(x, params, stats, train)
    return y, updates['batch_stats']

  def own(x, params):
    return ours('batch', x, params, train=train, batch_stats=stats)

  for a, b in zip(*map(jax.tree.leaves, (own(x, params), theirs(x, params)))):
    np.testing.assert_allclose(a, b, atol=1e-5)
  for a, b in zip(*map(jax.tree.leaves, map(gradients, (own, theirs)))):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_batch_statistics_are_of_all_devices():
  x, params = features()
  stats = {'mean': jnp.zeros(16), 'var': jnp.ones(16)}

  def local(x):
    return ours('batch', x, params, axis_name='d', batch_stats=stats)

  halves, updates = jax.vmap(local, axis_name='d')(
    x.reshape(2, 2, *x.shape[1:])
  )
  whole, expected = ours('batch', x, params, batch_stats=stats)
  np.testing.assert_allclose(halves.reshape(x.shape), whole, atol=1e-5)
  for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a[0], b, rtol=1e-5)
    np.testing.assert_array_equal(a[0], a[1])
