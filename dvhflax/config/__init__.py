"""The configuration: its defaults, its rules, and what was saved with runs."""

from dvhflax.config.answering import answering
from dvhflax.config.checks import dvh_spec, flatten, protocol, validate
from dvhflax.config.defaults import default
from dvhflax.config.named import load

__all__ = [
  'answering', 'default', 'dvh_spec', 'flatten', 'load', 'protocol', 'validate',
]  # fmt: skip
