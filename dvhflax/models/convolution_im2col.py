"""The convolution in pure JAX, as matrix products, and its gradients."""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from dvhflax.models.phases import phase_kernel


def _neighbourhoods(
  padded: jax.Array, plane: jax.Array, taps: int
) -> jax.Array:
  """Rows of taps^3 C values round every output voxel of one plane along x."""
  _, _, ny, nz, channels = padded.shape
  slab = lax.dynamic_slice_in_dim(padded, plane, taps, axis=1)
  ny, nz = ny - taps + 1, nz - taps + 1
  columns = [
    slab[:, i, j : j + ny, k : k + nz]
    for i in range(taps)
    for j in range(taps)
    for k in range(taps)
  ]
  return jnp.concatenate(columns, -1).reshape(-1, taps**3 * channels)


def _pad(x: jax.Array, padding: int) -> jax.Array:
  around = (padding, padding)
  return jnp.pad(x, ((0, 0), around, around, around, (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_im2col(
  x: jax.Array, kernel: jax.Array, padding: int = 1
) -> jax.Array:
  """The convolution of zeros around x, plane by plane one matrix product.

  Automatic differentiation would keep every plane's neighbourhoods, 27 times
  the input, for the backward pass; the gradients below build them anew.

  Args:
    x: `[B, X, Y, Z, C]`.
    kernel: `[K, K, K, C, F]`.
    padding: zeros before and after each axis.

  Returns:
    `[B, X', Y', Z', F]`, X' = X + 2 padding - K + 1.
  """
  taps, features = kernel.shape[0], kernel.shape[-1]
  matrix = kernel.reshape(-1, features)
  padded = _pad(x, padding)
  batch, *grid, _ = padded.shape
  nx, ny, nz = (n - taps + 1 for n in grid)
  planes = lax.map(
    lambda i: (_neighbourhoods(padded, i, taps) @ matrix).reshape(
      batch, ny, nz, features
    ),
    jnp.arange(nx),
  )
  return jnp.moveaxis(planes, 0, 1)


def _im2col_forward(x, kernel, padding):
  return convolve_im2col(x, kernel, padding), (x, kernel)


def _im2col_backward(padding, saved, gradient):
  x, kernel = saved
  taps = kernel.shape[0]
  flipped = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
  to_input = convolve_im2col(gradient, flipped, taps - 1 - padding)
  padded = _pad(x, padding)

  def add_plane(total, i_plane):
    i, plane = i_plane
    return total + _neighbourhoods(padded, i, taps).T @ plane, None

  nx, features = gradient.shape[1], gradient.shape[-1]
  planes = jnp.moveaxis(gradient, 1, 0).reshape(nx, -1, features)
  to_matrix, _ = lax.scan(
    add_plane,
    jnp.zeros((kernel.size // features, features), x.dtype),
    (jnp.arange(nx), planes),
  )
  return to_input, to_matrix.reshape(kernel.shape)


convolve_im2col.defvjp(_im2col_forward, _im2col_backward)


def convolve_upsampled_im2col(
  x: jax.Array, kernel: jax.Array, added: jax.Array
) -> jax.Array:
  """`convolution.convolve_upsampled` for a window of 2x2x2."""
  batch, nx, ny, nz, _ = x.shape
  features = kernel.shape[-1]
  y = convolve_im2col(x, phase_kernel(kernel))
  y = y.reshape(*y.shape[:4], 2, 2, 2, features)
  # Voxel 2 i + p is phase p of the coarse voxels i - 1 + p and i + p.
  y = jnp.stack([y[:, p : p + nx, ..., p, :, :, :] for p in (0, 1)], 2)
  y = jnp.stack([y[:, :, :, q : q + ny, :, q] for q in (0, 1)], 4)
  y = jnp.stack([y[:, :, :, :, :, r : r + nz, r] for r in (0, 1)], 6)
  return y.reshape(batch, 2 * nx, 2 * ny, 2 * nz, features) + added
