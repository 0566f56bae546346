"""Every form of the convolution against numpy's sum over taps, in float64."""

import functools
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvhflax import native
from dvhflax.models import convolution
from dvhflax.models.convolution_native import (
  convolve_native,
  convolve_upsampled_native,
)
from dvhflax.models.norm import rectify

FORMS = ['lax', 'im2col', *(f'native:{name}' for name in native.available())]


def convolve(form, x, kernel):
  if form.startswith('native:'):
    return convolve_native(x, kernel, None, form.partition(':')[2])
  return convolution.convolve(x, kernel, form)


def taps(x):
  """The 27 shifted copies of x, as the taps see it."""
  nx, ny, nz = x.shape[1:4]
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
  for i, j, k in itertools.product(range(3), repeat=3):
    yield (i, j, k), padded[:, i : i + nx, j : j + ny, k : k + nz]


def reference(x, kernel, weight):
  """y and the gradients of sum(weight * y) to x and the kernel."""
  y = sum(part @ kernel[at] for at, part in taps(x))
  to_kernel = np.empty_like(kernel)
  for at, part in taps(x):
    to_kernel[at] = np.einsum('bxyzc,bxyzf->cf', part, weight)
  flipped = kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
  to_x = sum(part @ flipped[at] for at, part in taps(weight))
  return y, to_x, to_kernel


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(f, weight, *arguments):
  """f and the gradients of sum(weight * f), compiled once."""
  y, pull = jax.vjp(f, *arguments)
  return y, *pull(weight)


def check(form, batch, grid, channels, features):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(batch, *grid, channels))
  kernel = rng.normal(size=(3, 3, 3, channels, features))
  weight = rng.normal(size=(batch, *grid, features))
  expected = reference(x, kernel, weight)
  x, kernel, weight = (jnp.asarray(a, jnp.float32) for a in (x, kernel, weight))
  found = with_gradients(functools.partial(convolve, form), weight, x, kernel)
  for name, got, want in zip(('y', 'to x', 'to kernel'), found, expected):
    error = np.abs(np.asarray(got) - want).max() / np.abs(want).max()
    assert error < 1e-5, (name, error)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
  'batch, grid, channels, features',
  [
    (1, (6, 5, 7), 4, 16),
    (3, (4, 4, 2), 128, 128),
    (2, (16, 16, 8), 24, 8),  # odd cuts of the channels
    (2, (16, 19, 33), 3, 20),
    (1, (2, 2, 1), 5, 3),
    (8, (32, 16, 16), 8, 8),  # the many-voxel form of the weight gradient
    (1, (64, 16, 16), 48, 16),
    (1, (1, 1, 1), 1, 1),
  ],
)
def test_forms_agree_with_the_sum_over_taps(
  form, batch, grid, channels, features
):
  check(form, batch, grid, channels, features)


@pytest.mark.skipif(not native.available(), reason='not compiled')
@settings(max_examples=25, deadline=None)
@given(
  batch=st.integers(1, 3),
  grid=st.tuples(*[st.integers(1, 18)] * 3),
  channels=st.integers(1, 40),
  features=st.integers(1, 70),
)
def test_compiled_convolution_takes_any_shape(batch, grid, channels, features):
  for name in native.available():
    check(f'native:{name}', batch, grid, channels, features)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
  'grid, window, channels, features',
  [
    ((4, 3, 5), (2, 2, 2), 3, 5),
    ((16, 16, 8), (2, 2, 2), 16, 8),
    ((4, 4, 1), (2, 2, 1), 6, 4),
  ],
)
def test_upsampled_convolution(form, grid, window, channels, features):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *grid, channels))
  kernel = rng.normal(size=(3, 3, 3, channels, features))
  fine = tuple(n * w for n, w in zip(grid, window))
  added, weight = rng.normal(size=(2, 2, *fine, features))
  y, to_fine, to_kernel = reference(
    np.asarray(convolution.upsample(jnp.asarray(x, 'f4'), window), np.float64),
    kernel,
    weight,
  )
  blocks = [n for pair in zip(grid, window) for n in pair]
  to_x = to_fine.reshape(2, *blocks, channels).sum((2, 4, 6))
  arguments = [jnp.asarray(a, jnp.float32) for a in (x, kernel, added)]

  def apply(x, kernel, added):
    if form.startswith('native:') and window == (2, 2, 2):
      name = form.partition(':')[2]
      return convolve_upsampled_native(x, kernel, added, None, name)
    plain = form.partition(':')[0]
    return convolution.convolve_upsampled(x, kernel, added, window, plain)

  for name, ours, expected in zip(
    ('y', 'to x', 'to kernel', 'to added'),
    with_gradients(apply, jnp.asarray(weight, jnp.float32), *arguments),
    (y + added, to_x, to_kernel, weight),
  ):
    error = np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max()
    assert error < 1e-5, (name, error)


@pytest.mark.parametrize(
  'form, features',
  # The compiled kernels take the features in vectors and what is left over.
  [
    (form, n)
    for form in FORMS
    for n in ((5, 16, 24) if form.startswith('native:') else (5,))
  ],
)
@pytest.mark.parametrize('samples', [1, 2])
@pytest.mark.parametrize('upsampled', [False, True])
def test_rectified_in_the_same_pass(form, samples, upsampled, features):
  rng = np.random.default_rng(0)
  draw = functools.partial(rng.normal, size=(2, 4, 5, 6, 3))
  fine = (2, *(n * (1 + upsampled) for n in (4, 5, 6)), features)
  x, kernel = draw(), rng.normal(size=(3, 3, 3, 3, features))
  added, weight = rng.normal(size=(2, *fine))
  affine = tuple(rng.normal(size=(2, samples, features)))
  name = form.partition(':')[2]

  def ours(x, kernel, added, affine):
    if upsampled and name:
      return convolve_upsampled_native(x, kernel, added, affine, name)
    if upsampled:
      return convolution.convolve_upsampled(
        x, kernel, added, (2, 2, 2), form, affine
      )
    if name:
      return convolve_native(x, kernel, affine, name)
    return convolution.convolve(x, kernel, form, affine)

  def plain(x, kernel, added, affine):
    if upsampled:
      y = convolution.upsample(x, (2, 2, 2))
      y = convolution.convolve(y, kernel, 'lax') + added
    else:
      y = convolution.convolve(x, kernel, 'lax')
    return rectify(y, affine)

  arguments = jax.tree.map(
    lambda a: jnp.asarray(a, jnp.float32), (x, kernel, added, affine)
  )

  weight = jnp.asarray(weight, jnp.float32)
  for a, b in zip(
    *(
      jax.tree.leaves(with_gradients(f, weight, *arguments))
      for f in (ours, plain)
    )
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_what_is_not_a_number_stays_seen():
  x = jnp.full((1, 4, 4, 4, 2), jnp.nan)
  kernel = jnp.ones((3, 3, 3, 2, 3))
  for form in ('native' if native.available() else 'im2col', 'lax'):
    y = convolution.convolve(x, kernel, form, (jnp.ones((1, 3)),) * 2)
    assert jnp.isnan(y).all()


@pytest.mark.skipif(not native.available(), reason='not compiled')
def test_compiled_convolution_gives_the_same_bits():
  rng = np.random.default_rng(1)
  x = jnp.asarray(rng.normal(size=(2, 32, 32, 16, 16)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 16, 16)), jnp.float32)
  gradients = jax.jit(
    jax.grad(lambda x, k: jnp.sum(convolve_native(x, k) ** 2), (0, 1))
  )
  first = gradients(x, kernel)
  for _ in range(5):
    for a, b in zip(first, gradients(x, kernel)):
      np.testing.assert_array_equal(a, b)
