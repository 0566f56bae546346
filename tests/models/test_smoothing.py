"""Smoothing of a dose: what it takes away, and what it leaves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from dvhflax.models.smoothing import smoothed
from dvhflax.models.unet import UNet

GRID = (8, 6, 4)


def body(rng):
  return rng.random((2, *GRID)) < 0.7


def test_a_uniform_dose_stays_up_to_the_skin():
  inside = body(np.random.default_rng(0))
  dose = np.where(inside, 0.8, 0.0).astype(np.float32)
  np.testing.assert_allclose(
    smoothed(jnp.asarray(dose), jnp.asarray(inside)), dose, atol=1e-6
  )


def test_what_alternates_vanishes():
  x, y, z = np.indices(GRID)
  for stripes in (x, y, z, x + y + z):
    dose = np.where(stripes % 2, 1.0, -1.0)[None]
    found = smoothed(jnp.asarray(dose), jnp.ones((1, *GRID), bool))
    np.testing.assert_allclose(found[0, 1:-1, 1:-1, 1:-1], 0, atol=1e-6)


def test_it_is_the_normalised_convolution_of_scipy():
  rng = np.random.default_rng(1)
  inside = body(rng)
  dose = rng.random((2, *GRID)).astype(np.float32)
  found = smoothed(jnp.asarray(dose), jnp.asarray(inside))

  def blurred(x):
    for axis in range(3):
      x = ndimage.correlate1d(x, [0.25, 0.5, 0.25], axis=axis, mode='constant')
    return x

  for one, within, given in zip(found, inside, dose):
    expected = blurred(given * within) / blurred(within.astype(float))
    np.testing.assert_allclose(one[within], expected[within], atol=1e-6)
    np.testing.assert_array_equal(one[~within], given[~within])


def test_a_network_smooths_within_the_body_alone():
  fields = {
    'grid': (8, 8, 4), 'dvh_shape': (3, 5), 'base_channels': 4,
    'max_channels': 8, 'conditioning': 'film', 'patch': 2, 'body': 0,
  }  # fmt: skip
  rough, smooth = UNet(**fields), UNet(**fields, smoothing=True)
  rng = np.random.default_rng(2)
  masks = (rng.random((2, 8, 8, 4, 3)) < 0.6).astype(np.uint8)
  wish = rng.random((2, 3, 5)).astype(np.float32)
  variables = jax.tree.map(
    lambda x: x + 0.1 * rng.random(x.shape).astype(np.float32),
    jax.jit(functools.partial(smooth.init, train=False))(
      jax.random.key(0), masks, wish
    ),
  )
  dose, smooth_dose = (
    jax.jit(functools.partial(model.apply, train=False))(variables, masks, wish)
    for model in (rough, smooth)
  )
  inside = jnp.asarray(masks[..., 0] > 0)
  np.testing.assert_allclose(
    smooth_dose,
    smoothed(dose, inside),
    atol=1e-5,
  )
  assert np.abs(smoothed(dose, inside) - dose).max() > 1e-3
