"""Large arrays that NumPy fills and JAX takes without copying them."""

import jax
import numpy as np

# JAX takes memory of a CPU as it is if it begins at multiples of so many bytes.
_ALIGNED = 64


def zeros(shape: tuple[int, ...]) -> np.ndarray:
  """float32 zeros that `hand_over` need not copy."""
  size = 4 * int(np.prod(shape))
  memory = np.zeros(size + _ALIGNED, np.uint8)
  start = -memory.ctypes.data % _ALIGNED
  return memory[start : start + size].view(np.float32).reshape(shape)


def hand_over(array: np.ndarray) -> jax.Array:
  """The same as a JAX array. Nobody may write to `array` any more."""
  return jax.device_put(array, may_alias=True)
