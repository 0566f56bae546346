"""Goals that plans of a site are judged by."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Template:
  """A list of goals.

  Attributes:
    name: letters, digits and hyphens.
    goals: points in clinicians' notation, see `wishes.points`.
    site: name of the tumour site; empty for any.
    source: where the goals are from, for people.
    built_in: whether it comes with the package.
  """

  name: str
  goals: tuple[str, ...]
  site: str = ''
  source: str = ''
  built_in: bool = False
