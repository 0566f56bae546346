"""3x3x3 convolution with zero padding, in a form that suits the hardware.

`native` is a compiled CPU kernel (`dvhflax/native/convolution.cc`), `im2col`
pure JAX for CPUs without it, `lax` XLA's own, the right one on a GPU.
"""

from collections.abc import Sequence
import functools
from typing import Literal

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dvhflax import native

Convolution = Literal['auto', 'native', 'im2col', 'lax']
# Scale and shift of each channel, `[B, F]` or `[1, F]`; see `rectify`.
Affine = tuple[jax.Array, jax.Array]


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


def rectify(x: jax.Array, affine: Affine) -> jax.Array:
  """`relu(x * scale + shift)`, `[B, X, Y, Z, F]`, of x's type."""
  scale, shift = (a[:, None, None, None] for a in affine)
  return jax.nn.relu(x * scale + shift).astype(x.dtype)


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
    affine: rectifies the result, compiled in the same pass.

  Returns:
    `[B, X, Y, Z, F]`.
  """
  form = _form(convolution, x)
  if form == 'native' and kernel.shape[:3] != (1, 1, 1):
    return convolve_native(*_wide(x, kernel, affine)).astype(x.dtype)
  y = _convolve(x, kernel, form)
  return y if affine is None else rectify(y, affine)


def _convolve(x, kernel, form):
  if kernel.shape[:3] == (1, 1, 1):
    return x @ kernel[0, 0, 0]
  if form == 'native':
    return convolve_native(*_wide(x, kernel)).astype(x.dtype)
  if form == 'im2col':
    return _im2col(x, kernel, 1)
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(1, 1, 1),
    padding='SAME',
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
  )


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
  doubled = window == (2, 2, 2) and kernel.shape[:3] != (1, 1, 1)
  if form == 'native' and doubled:
    wide = _wide(x, kernel, added, affine)
    return convolve_upsampled_native(*wide).astype(x.dtype)
  if kernel.shape[:3] == (1, 1, 1):
    y = upsample(_convolve(x, kernel, form), window) + added
  elif form == 'im2col' and doubled:
    y = _convolve_upsampled_im2col(x, kernel, added)
  else:
    y = _convolve(upsample(x, window), kernel, form) + added
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def convolve_native(
  x: jax.Array,
  kernel: jax.Array,
  affine: Affine | None = None,
  instruction_set: str | None = None,
  padding: int = 1,
) -> jax.Array:
  """The compiled kernel, for 3 or 2 taps an axis; see `native.target`."""
  return _call_native(x, kernel, affine, instruction_set, padding)


def _call_native(x, kernel, affine, instruction_set, padding, *, flipped=False):
  taps, features = kernel.shape[0], kernel.shape[3 if flipped else 4]
  batch, *grid, _ = x.shape
  grid = [n + 2 * padding - taps + 1 for n in grid]
  return jax.ffi.ffi_call(
    native.target('convolution', instruction_set),
    jax.ShapeDtypeStruct((batch, *grid, features), jnp.float32),
  )(x, kernel, *_or_none(affine, features), flipped=flipped)


def _or_none(affine, features):
  """As the compiled kernels take it: of no elements if there is none."""
  return affine or (jnp.zeros((0, features)),) * 2


def _native_forward(x, kernel, affine, instruction_set, padding):
  y = _call_native(x, kernel, affine, instruction_set, padding)
  return y, (x, kernel, affine)


def _native_backward(instruction_set, padding, saved, gradient):
  x, kernel, affine = saved
  if affine is not None:
    # Networks are trained by other means, so the sums are not kept for this.
    def apart(x, kernel, affine):
      y = convolve_native(x, kernel, None, instruction_set, padding)
      return rectify(y, affine)

    return jax.vjp(apart, *saved)[1](gradient)
  # Two calls: XLA drops the first layer's gradient to the masks.
  to_input = _call_native(
    gradient,
    kernel,
    None,
    instruction_set,
    kernel.shape[0] - 1 - padding,
    flipped=True,
  )
  to_kernel = jax.ffi.ffi_call(
    native.target('convolution_weight_gradient', instruction_set),
    jax.ShapeDtypeStruct(kernel.shape, jnp.float32),
  )(x, gradient)
  return to_input, to_kernel, None


convolve_native.defvjp(_native_forward, _native_backward)

# Of the three taps round a fine voxel of phase 0, the first meets the coarse
# voxel before its own, the others its own; of phase 1, the last the next one.
_PHASES = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], 'f4')
# [8 coarse taps * 8 phases, 27 fine taps]
_PHASES_3D = np.einsum(
  'pax,qby,rcz->abcpqrxyz', _PHASES, _PHASES, _PHASES
).reshape(64, 27)


def _phase_kernel(kernel: jax.Array) -> jax.Array:
  """`[2, 2, 2, C, 8 F]`: what each phase of fine voxels asks of the coarse.

  Repeated voxels meet sums of taps: each of the eight phases of a fine voxel
  is a convolution of two taps an axis on the coarse grid, 8 of 27 products.
  """
  channels, features = kernel.shape[3:]
  phases = _PHASES_3D @ kernel.reshape(27, -1)
  phases = phases.reshape(8, 8, channels, features).swapaxes(1, 2)
  return phases.reshape(2, 2, 2, channels, 8 * features)


def convolve_upsampled_native(
  x: jax.Array,
  kernel: jax.Array,
  added: jax.Array,
  affine: Affine | None = None,
  instruction_set: str | None = None,
) -> jax.Array:
  """`convolve_upsampled` for a window of 2x2x2, compiled."""
  return _phases_native(
    x, _phase_kernel(kernel), added, affine, instruction_set
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _phases_native(x, phases, added, affine, instruction_set):
  return jax.ffi.ffi_call(
    native.target('convolution_upsampled', instruction_set),
    jax.ShapeDtypeStruct(added.shape, jnp.float32),
  )(x, phases, added, *_or_none(affine, added.shape[-1]))


def _phases_forward(x, phases, added, affine, instruction_set):
  y = _phases_native(x, phases, added, affine, instruction_set)
  # `added` is needed where the sums are to be computed anew.
  return y, (x, phases, None if affine is None else added, affine)


def _phases_backward(instruction_set, saved, gradient):
  x, phases, _, affine = saved
  if affine is not None:

    def apart(x, phases, added, affine):
      y = _phases_native(x, phases, added, None, instruction_set)
      return rectify(y, affine)

    return jax.vjp(apart, *saved)[1](gradient)
  batch, nx, ny, nz, _ = x.shape
  to_sums = jax.ffi.ffi_call(
    native.target('deinterleave', instruction_set),
    jax.ShapeDtypeStruct(
      (batch, nx + 1, ny + 1, nz + 1, phases.shape[-1]), jnp.float32
    ),
  )(gradient)
  to_x, to_phases, _ = _native_backward(
    instruction_set, 1, (x, phases, None), to_sums
  )
  return to_x, to_phases, gradient, None


_phases_native.defvjp(_phases_forward, _phases_backward)


def _convolve_upsampled_im2col(x, kernel, added):
  """`convolve_upsampled` for a window of 2x2x2, in pure JAX."""
  batch, nx, ny, nz, _ = x.shape
  features = kernel.shape[-1]
  y = _im2col(x, _phase_kernel(kernel), 1)
  y = y.reshape(*y.shape[:4], 2, 2, 2, features)
  # Voxel 2 i + p is phase p of the coarse voxels i - 1 + p and i + p.
  y = jnp.stack([y[:, p : p + nx, ..., p, :, :, :] for p in (0, 1)], 2)
  y = jnp.stack([y[:, :, :, q : q + ny, :, q] for q in (0, 1)], 4)
  y = jnp.stack([y[:, :, :, :, :, r : r + nz, r] for r in (0, 1)], 6)
  return y.reshape(batch, 2 * nx, 2 * ny, 2 * nz, features) + added


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
def _im2col(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
  """Plane by plane one matrix product; its gradients are of the same form.

  Automatic differentiation would keep every plane's neighbourhoods, 27 times
  the input, for the backward pass; the gradients below build them anew.
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
  return _im2col(x, kernel, padding), (x, kernel)


def _im2col_backward(padding, saved, gradient):
  x, kernel = saved
  taps = kernel.shape[0]
  flipped = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
  to_input = _im2col(gradient, flipped, taps - 1 - padding)
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


_im2col.defvjp(_im2col_forward, _im2col_backward)
