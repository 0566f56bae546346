"""3x3x3 convolution with zero padding, in a form that suits the hardware.

`native` is a compiled CPU kernel (`dvhflax/native/convolution.cc`), `im2col`
pure JAX for CPUs without it, `lax` XLA's own, the right one on a GPU.
"""

import functools
from typing import Literal

import jax
from jax import lax
import jax.numpy as jnp

from dvhflax import native

Convolution = Literal['auto', 'native', 'im2col', 'lax']


def resolve(convolution: Convolution) -> Convolution:
  """`auto` becomes the fastest form there is on this machine."""
  if convolution != 'auto':
    return convolution
  if jax.default_backend() != 'cpu':
    return 'lax'
  return 'native' if native.available() else 'im2col'


def convolve(
  x: jax.Array, kernel: jax.Array, convolution: Convolution
) -> jax.Array:
  """Convolves with zero padding, so that the grid stays.

  Args:
    x: `[B, X, Y, Z, C]`.
    kernel: `[3, 3, 3, C, F]` or `[1, 1, 1, C, F]`.
    convolution: `native`, `im2col`, `lax` or `auto`. The compiled kernel is
      for float32; other types take XLA's own.

  Returns:
    `[B, X, Y, Z, F]`.
  """
  if kernel.shape[:3] == (1, 1, 1):
    return x @ kernel[0, 0, 0]
  form = resolve(convolution)
  if form == 'native' and x.dtype == jnp.float32:
    return convolve_native(x, kernel)
  if form == 'im2col':
    return _im2col(x, kernel)
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(1, 1, 1),
    padding='SAME',
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_native(
  x: jax.Array, kernel: jax.Array, instruction_set: str | None = None
) -> jax.Array:
  """The compiled kernel; see `convolve` and `native.target`."""
  return _call_native(x, kernel, instruction_set, flipped=False)


def _call_native(x, kernel, instruction_set, *, flipped):
  features = kernel.shape[3 if flipped else 4]
  return jax.ffi.ffi_call(
    native.target('convolution', instruction_set),
    jax.ShapeDtypeStruct((*x.shape[:-1], features), jnp.float32),
  )(x, kernel, flipped=flipped)


def _native_forward(x, kernel, instruction_set):
  return convolve_native(x, kernel, instruction_set), (x, kernel)


def _native_backward(instruction_set, saved, gradient):
  # Two calls: XLA drops the first layer's gradient to the masks.
  x, kernel = saved
  to_input = _call_native(gradient, kernel, instruction_set, flipped=True)
  to_kernel = jax.ffi.ffi_call(
    native.target('convolution_weight_gradient', instruction_set),
    jax.ShapeDtypeStruct(kernel.shape, jnp.float32),
  )(x, gradient)
  return to_input, to_kernel


convolve_native.defvjp(_native_forward, _native_backward)


def _neighbourhoods(padded: jax.Array, plane: jax.Array) -> jax.Array:
  """Rows of 27 C values round every voxel of one plane along x."""
  _, _, ny, nz, channels = padded.shape
  slab = lax.dynamic_slice_in_dim(padded, plane, 3, axis=1)
  columns = [
    slab[:, i, j : j + ny - 2, k : k + nz - 2]
    for i in range(3)
    for j in range(3)
    for k in range(3)
  ]
  return jnp.concatenate(columns, -1).reshape(-1, 27 * channels)


def _pad(x: jax.Array) -> jax.Array:
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))


@jax.custom_vjp
def _im2col(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Plane by plane one matrix product; its gradients are of the same form.

  Automatic differentiation would keep every plane's neighbourhoods, 27 times
  the input, for the backward pass; the gradients below build them anew.
  """
  batch, nx, ny, nz, channels = x.shape
  features = kernel.shape[-1]
  matrix = kernel.reshape(27 * channels, features)
  padded = _pad(x)
  planes = lax.map(
    lambda i: (_neighbourhoods(padded, i) @ matrix).reshape(
      batch, ny, nz, features
    ),
    jnp.arange(nx),
  )
  return jnp.moveaxis(planes, 0, 1)


def _im2col_forward(x, kernel):
  return _im2col(x, kernel), (x, kernel)


def _im2col_backward(saved, gradient):
  x, kernel = saved
  channels, features = kernel.shape[3:]
  to_input = _im2col(gradient, jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4))
  padded = _pad(x)

  def add_plane(total, i_plane):
    i, plane = i_plane
    return total + _neighbourhoods(padded, i).T @ plane, None

  planes = jnp.moveaxis(gradient, 1, 0).reshape(x.shape[1], -1, features)
  to_matrix, _ = lax.scan(
    add_plane,
    jnp.zeros((27 * channels, features), x.dtype),
    (jnp.arange(x.shape[1]), planes),
  )
  return to_input, to_matrix.reshape(kernel.shape)


_im2col.defvjp(_im2col_forward, _im2col_backward)
