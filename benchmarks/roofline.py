"""What the hardware can do: matrix products and a copy; see run.py.

python benchmarks/roofline.py product-float32|product-tf32|product-bfloat16 N
python benchmarks/roofline.py copy GB
"""

import functools

import jax
import jax.numpy as jnp
from measuring import answer
from precision import set_precision


def product(precision, n):
  """Of two n x n matrices."""
  dtype = set_precision(precision)
  a, b = jax.random.normal(jax.random.key(0), (2, n, n), dtype)
  apply = jax.jit(jnp.matmul)
  return lambda: apply(a, b).block_until_ready()


def copy(gb):
  """Of an array of so many GB, so that twice as many bytes move."""
  x = jnp.zeros(int(gb * 1e9) // 4, jnp.float32)
  apply = jax.jit(lambda x: x + 1)
  return lambda: apply(x).block_until_ready()


if __name__ == '__main__':
  products = {
    f'product-{p}': functools.partial(product, p)
    for p in ('float32', 'tf32', 'bfloat16')
  }
  answer({**products, 'copy': copy})
