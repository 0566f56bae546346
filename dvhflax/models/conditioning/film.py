"""FiLM: the wish scales and shifts every channel of the decoder's layers.

E. Perez, F. Strub, H. de Vries, V. Dumoulin, A. Courville, "FiLM: visual
reasoning with a general conditioning layer", AAAI 32 (2018).
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from dvhflax.models.conditioning.way import Conditioning, Entry


class Film(Conditioning):
  """Two dense layers on the wish and the anatomy's bottleneck features."""

  modulates: ClassVar[bool] = True

  def setup(self):
    self.wish_layers = [nn.Dense(self.net.max_channels) for _ in range(2)]

  def __call__(self, desired_dvh, wish, anatomy, prepared) -> Entry[jax.Array]:
    # Whether a wish asks for more or less than usual is for the anatomy to
    # say.
    x = jnp.concatenate([wish, anatomy.astype(jnp.float32)], axis=-1)
    for layer in self.wish_layers:
      x = nn.relu(layer(x))
    return Entry(modulation=x)

  def onnx(self, graph, params, wish, anatomy, patient) -> Entry[str]:
    x = graph('Concat', wish, anatomy, axis=1)
    for layer in self.wish_layers:
      x = graph('Relu', graph.dense(x, params[layer.name]))
    return Entry(modulation=x)
