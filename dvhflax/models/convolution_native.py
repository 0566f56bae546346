"""The compiled convolution, `dvhflax/native/`, and its gradients."""

import functools

import jax
import jax.numpy as jnp

from dvhflax import native
from dvhflax.models.norm import Affine, rectify
from dvhflax.models.phases import phase_kernel


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def convolve_native(
  x: jax.Array,
  kernel: jax.Array,
  affine: Affine | None = None,
  instruction_set: str | None = None,
  padding: int = 1,
) -> jax.Array:
  """The convolution of zeros around x.

  Args:
    x: `[B, X, Y, Z, C]` float32.
    kernel: `[K, K, K, C, F]` float32, K = 3 or 2.
    affine: rectifies the result, in the same pass.
    instruction_set: see `native.target`.
    padding: zeros before and after each axis, 0 or 1.

  Returns:
    `[B, X', Y', Z', F]`, X' = X + 2 padding - K + 1.
  """
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
  return affine or (jnp.zeros((0, features), jnp.float32),) * 2


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


def convolve_upsampled_native(
  x: jax.Array,
  kernel: jax.Array,
  added: jax.Array,
  affine: Affine | None = None,
  instruction_set: str | None = None,
) -> jax.Array:
  """`convolution.convolve_upsampled` for a window of 2x2x2."""
  return _phases_native(x, phase_kernel(kernel), added, affine, instruction_set)


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
