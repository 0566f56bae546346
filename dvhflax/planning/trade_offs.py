"""The trade-offs of a protocol, and the weights that set them.

A plan's *place* is a point of the unit cube, an axis for each organ at risk
whose weights may vary, and one for the body: 0 is the least weight, 1 the
most, on a logarithmic scale.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from dvhflax.planning.objectives import terms
from dvhflax.sites.protocol import Protocol

_BODY = 'body'


@dataclasses.dataclass(frozen=True)
class TradeOffs:
  """The axes that matter for a patient.

  Attributes:
    protocol: bounds of the weights.
    axes: A names, those of OARs first.
  """

  protocol: Protocol
  axes: tuple[str, ...]

  @classmethod
  def of(cls, protocol: Protocol, structures: Sequence[str]) -> 'TradeOffs':
    """The axes for a patient who has these structures."""
    bounds = {k: v.weights for k, v in protocol.oars.items() if k in structures}
    bounds[_BODY] = protocol.body_weights
    free = [name for name, (least, most) in bounds.items() if least < most]
    return cls(protocol, tuple(free))

  def anchors(self) -> np.ndarray:
    """`[E, A]` places every set begins with, the body's weight midway.

    The middle, all organs spared, one of them alone, for each.
    """
    organs = sum(name != _BODY for name in self.axes)
    places = [np.full(organs, 0.5), np.ones(organs), *np.eye(organs)]
    unique = np.unique(places, axis=0, return_index=True)[1]
    spared = np.stack(places)[np.sort(unique)]
    middle = np.full((len(spared), len(self.axes) - organs), 0.5)
    return np.hstack([spared, middle])

  def spread(self, count: int) -> np.ndarray:
    """`[count, A]` places, evenly in the cube: a Sobol sequence."""
    if not self.axes:
      return np.zeros((count, 0))
    # Imported here: it takes a third of a second, which no training needs.
    from scipy.stats import qmc

    # Skipping the first point, the corner where nothing is spared.
    sobol = qmc.Sobol(len(self.axes), scramble=False).fast_forward(1)
    return sobol.random(count)

  def weights(self, places: np.ndarray) -> np.ndarray:
    """Objective weights of `[N, A]` places.

    Returns:
      `[N, T + 1]` in the order of `objectives.terms`, then the roughness; the
      targets' are 1.
    """
    protocol, count = self.protocol, len(places)

    def between(name: str, bounds: tuple[float, float]) -> np.ndarray:
      if name in self.axes:
        place = places[:, self.axes.index(name)]
      else:
        place = np.full(count, 0.5)
      least, most = np.log(bounds)
      return np.exp(least + (most - least) * place)

    columns = [
      between(term.structure, term.weights) * term.share
      for term in terms(protocol)
    ]
    columns.append(np.full(count, protocol.roughness_weight))
    return np.stack(columns, 1)

  def places(self, weights: np.ndarray) -> np.ndarray:
    """The inverse of `weights`: `[N, T + 1]` to `[N, A]`."""
    listed = terms(self.protocol)
    owners = [term.structure for term in listed]
    found = []
    for name in self.axes:
      column = owners.index(name)
      least, most = np.log(listed[column].weights)
      found.append((np.log(weights[:, column]) - least) / (most - least))
    return np.stack(found, 1) if found else np.zeros((len(weights), 0))
