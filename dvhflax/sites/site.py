"""What a tumour site is made of."""

from collections.abc import Callable, Mapping
import dataclasses

import numpy as np

from dvhflax.patient import Structure
from dvhflax.sites.organs import Organ
from dvhflax.sites.protocol import Protocol
from dvhflax.sites.template import Template

# (x, y, z) in mm, arrays that broadcast, to bool: whether a point is inside.
Shape = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Site:
  """A tumour site.

  Attributes:
    name: of the site, for people.
    structures: the mask channels of a cohort, in order; one is the body, the
      targets ascend in prescription.
    organs: names under which structures are imported; more than `structures`,
      so that a config may ask for others.
    protocol: how it is planned.
    shapes: draws the anatomy of a simulated patient, a shape a structure. They
      lie round the origin, x to the patient's left, y to posterior, z to
      superior. None: the site is not simulated.
    templates: goals that its plans are judged by.
  """

  name: str
  structures: tuple[Structure, ...]
  organs: tuple[Organ, ...]
  protocol: Protocol
  shapes: Callable[[np.random.Generator], Mapping[str, Shape]] | None = None
  templates: tuple[Template, ...] = ()
