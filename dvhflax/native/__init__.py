"""Compiled kernels for CPUs, where the installation found a C++ compiler.

One source, compiled for several instruction sets; the best that this
processor has is chosen at run time. Without any, everything works in pure JAX.
"""

import ctypes
import functools
import importlib.util

import jax

# Best first.
INSTRUCTION_SETS = ('avx512', 'avx2', 'generic')
_HANDLERS = {
  'convolution': 'DvhflaxConvolution',
  'convolution_upsampled': 'DvhflaxConvolutionUpsampled',
  'convolution_weight_gradient': 'DvhflaxConvolutionWeightGradient',
  'deinterleave': 'DvhflaxDeinterleave',
  'look_up': 'DvhflaxLookUp',
  'nearest': 'DvhflaxNearest',
  'objectives': 'DvhflaxObjectives',
}


@functools.cache
def available() -> tuple[str, ...]:
  """Instruction sets that are installed and that this processor has."""
  return tuple(name for name in INSTRUCTION_SETS if _load(name))


def target(kernel: str, instruction_set: str | None = None) -> str:
  """Name under which XLA knows a kernel.

  Args:
    kernel: a key of `_HANDLERS`.
    instruction_set: one of `available()`, by default the best.

  Raises:
    RuntimeError: nothing compiled is available.
  """
  if not available():
    raise RuntimeError(
      'no compiled kernels: install dvhflax anew where a C++ compiler is, or '
      'use convolution=im2col'
    )
  return _target(kernel, instruction_set or available()[0])


def _target(kernel: str, instruction_set: str) -> str:
  return f'dvhflax_{kernel}_{instruction_set}'


def _load(instruction_set: str) -> bool:
  spec = importlib.util.find_spec(f'dvhflax.native._{instruction_set}')
  if spec is None or spec.origin is None:
    return False
  try:
    library = ctypes.CDLL(spec.origin)
  except OSError:  # compiled for another system
    return False
  if not library.DvhflaxSupported():
    return False
  for kernel, symbol in _HANDLERS.items():
    jax.ffi.register_ffi_target(
      _target(kernel, instruction_set),
      jax.ffi.pycapsule(getattr(library, symbol)),
      platform='cpu',
    )
  return True
