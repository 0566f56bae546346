"""The ways in which a wish enters the network, `model.conditioning`."""

from dvhflax.models.conditioning.bottleneck import Bottleneck
from dvhflax.models.conditioning.film import Film
from dvhflax.models.conditioning.matched import Matched
from dvhflax.models.conditioning.way import Conditioning, Entry, combine

# Each is a combination of ways; the network of none knows the anatomy alone.
WAYS: dict[str, tuple[type[Conditioning], ...]] = {
  'bottleneck': (Bottleneck,),
  'film': (Film,),
  'matched': (Matched,),
  'film+matched': (Film, Matched),
  'bottleneck+matched': (Bottleneck, Matched),
  'none': (),
}


def has_matched_dose(conditioning: str) -> bool:
  """Whether the matched dose is among a combination, a key of `WAYS`."""
  return Matched in WAYS[conditioning]


__all__ = ['WAYS', 'Conditioning', 'Entry', 'combine', 'has_matched_dose']
