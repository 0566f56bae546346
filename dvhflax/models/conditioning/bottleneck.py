"""The paper's way: the wish concatenated with the bottleneck's features."""

import jax

from dvhflax.models.conditioning.way import Conditioning, Entry


class Bottleneck(Conditioning):
  """Ma et al. 2021, figure 3: `S * K` more channels of the 1x1x1 voxel."""

  @property
  def bottleneck_channels(self) -> int:
    structures, points = self.net.dvh_shape
    return structures * points

  def __call__(self, desired_dvh, wish, anatomy, prepared) -> Entry[jax.Array]:
    return Entry(bottleneck=wish)

  def onnx(self, graph, params, wish, anatomy, patient) -> Entry[str]:
    return Entry(bottleneck=wish)
