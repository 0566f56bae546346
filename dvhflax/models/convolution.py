"""3x3x3 convolution with zero padding, in a form that suits the hardware.

`native` is a compiled CPU kernel (`convolution_native.py`), `im2col` pure JAX
for CPUs without it (`convolution_im2col.py`), `lax` XLA's own, the right one on
a GPU.
"""

from collections.abc import Sequence
from typing import Literal

import jax
from jax import lax
import jax.numpy as jnp

from dvhflax import native
from dvhflax.models.convolution_im2col import (
  convolve_im2col,
  convolve_upsampled_im2col,
)
from dvhflax.models.convolution_native import (
  convolve_native,
  convolve_upsampled_native,
)
from dvhflax.models.norm import Affine, rectify

Convolution = Literal['auto', 'native', 'im2col', 'lax']


def resolve(convolution: Convolution) -> Convolution:
  """`auto` becomes the fastest form there is on this machine."""
  if convolution != 'auto':
    return convolution
  if jax.default_backend() != 'cpu':
    return 'lax'
  return 'native' if native.available() else 'im2col'


def describe(convolution: Convolution) -> str:
  """The form that is used, and what to do if a faster one is missing."""
  form = resolve(convolution)
  if convolution == 'auto' and form == 'im2col':
    return (
      'im2col (the compiled form, 4 times as fast, is missing here: pip '
      'install -e . with a C++ compiler)'
    )
  return form


def _form(convolution: Convolution, x: jax.Array) -> Convolution:
  form = resolve(convolution)
  return 'lax' if form == 'native' and x.dtype == jnp.float64 else form


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  convolution: Convolution,
  affine: Affine | None = None,
) -> jax.Array:
  """Convolves with zero padding, so that the grid stays.

  Args:
    x: `[B, X, Y, Z, C]`.
    kernel: `[3, 3, 3, C, F]` or `[1, 1, 1, C, F]`.
    convolution: `native`, `im2col`, `lax` or `auto`. The compiled kernel is
      for float32: narrower types are widened, float64 takes XLA's own.
    affine: scale and shift that the result is rectified with, by the compiled
      kernel in the same pass.

  Returns:
    `[B, X, Y, Z, F]`.
  """
  form = _form(convolution, x)
  if kernel.shape[:3] == (1, 1, 1):
    y = x @ kernel[0, 0, 0]
  elif form == 'native':
    return convolve_native(*_wide(x, kernel, affine)).astype(x.dtype)
  elif form == 'im2col':
    y = convolve_im2col(x, kernel)
  else:
    y = lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(1, 1, 1),
      padding='SAME',
      dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
    )
  return y if affine is None else rectify(y, affine)


def convolve_upsampled(
  x: jax.Array,
  kernel: jax.Array,
  added: jax.Array,
  window: tuple[int, int, int],
  convolution: Convolution,
  affine: Affine | None = None,
) -> jax.Array:
  """`added` plus the convolution of x, each voxel repeated over a window.

  Args:
    x: `[B, X, Y, Z, C]`.
    kernel: as for `convolve`.
    added: `[B, wx X, wy Y, wz Z, F]`.
    window: (wx, wy, wz), each 1 or 2.
    convolution, affine: as for `convolve`.

  Returns:
    `[B, wx X, wy Y, wz Z, F]`.
  """
  form = _form(convolution, x)
  if kernel.shape[:3] == (1, 1, 1):
    y = upsample(convolve(x, kernel, convolution), window) + added
  elif form == 'native' and window == (2, 2, 2):
    wide = _wide(x, kernel, added, affine)
    return convolve_upsampled_native(*wide).astype(x.dtype)
  elif form == 'im2col' and window == (2, 2, 2):
    y = convolve_upsampled_im2col(x, kernel, added)
  else:
    y = convolve(upsample(x, window), kernel, convolution) + added
  return y if affine is None else rectify(y, affine)


def _wide(*arrays):
  return jax.tree.map(lambda a: a.astype(jnp.float32), arrays)


def upsample(x: jax.Array, window: Sequence[int]) -> jax.Array:
  """Repeats each voxel over a window (nearest); `[B, X, Y, Z, C]`."""
  b, nx, ny, nz, c = x.shape
  wx, wy, wz = window
  tiles = jnp.broadcast_to(
    x[:, :, None, :, None, :, None], (b, nx, wx, ny, wy, nz, wz, c)
  )
  return tiles.reshape(b, nx * wx, ny * wy, nz * wz, c)
