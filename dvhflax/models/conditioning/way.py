"""What a way of conditioning the network on a wish has to say."""

from collections.abc import Iterable, Sequence
import dataclasses
import functools
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import flax.linen as nn
import jax

from dvhflax import errors
from dvhflax.models.onnx_graph import Graph, OnnxPatient

if TYPE_CHECKING:
  from dvhflax.models.unet import UNet

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Entry(Generic[T]):
  """Where a wish enters the decoder; of arrays, or of names in an ONNX graph.

  Attributes:
    bottleneck: `[B, C]`, further channels of the bottleneck's one voxel; see
      `Conditioning.bottleneck_channels`.
    modulation: `[B, F]` features, of which every layer of the decoder makes a
      scale and a shift for its channels; see `Conditioning.modulates`.
    levels: `[B, X, Y, Z, C]` for every level from full size down, added to the
      features before the level's second convolution.
    dose: `[B, X, Y, Z]`, to which the network adds what it predicts; the sum,
      but in training, is nowhere below 0.
  """

  bottleneck: T | None = None
  modulation: T | None = None
  levels: Sequence[T] = ()
  dose: T | None = None


class Conditioning(nn.Module):
  """One way for a wish to enter the network.

  Its modules lie beside the network's own in a checkpoint, so their names must
  differ from these and from those of the other ways.
  """

  # Whether `Entry.modulation` is given.
  modulates: ClassVar[bool] = False

  @property
  def net(self) -> 'UNet':
    """The network that it is a part of, for sizes and settings."""
    return cast('UNet', self.parent)

  @property
  def bottleneck_channels(self) -> int:
    """Channels of `Entry.bottleneck`."""
    return 0

  def prepare(
    self,
    masks: jax.Array,
    spacing_mm: jax.Array,
    open_fields: jax.Array | None,
  ) -> Any:
    """What is computed once for a patient and used for all of its wishes.

    Nothing of it may depend on parameters that are trained: in training it is
    computed before the first update, and kept with the cohort.

    Args:
      masks: `[B, X, Y, Z, S]`, 0 or 1.
      spacing_mm: `[B, 3]` voxel size.
      open_fields: `[B, X, Y, Z]`, None for a network without beams.

    Returns:
      Arrays `[B, X, Y, Z, ...]`; a mirrored patient's are mirrored.
    """
    del masks, spacing_mm, open_fields
    return ()

  def dose_without_wish(self, prepared: Any) -> jax.Array | None:
    """`[B, X, Y, Z]` an anatomy-only network's dose, if the way has one.

    Args:
      prepared: of `prepare`.
    """
    del prepared
    return None

  def __call__(
    self,
    desired_dvh: jax.Array,
    wish: jax.Array,
    anatomy: jax.Array,
    prepared: Any,
  ) -> Entry[jax.Array]:
    """What a wish adds.

    Args:
      desired_dvh: `[B, S, K]`; zeros for a structure without a wish.
      wish: `[B, S * K]`, the same, standardised if so configured.
      anatomy: `[B, C]` features of the bottleneck.
      prepared: of `prepare`.
    """
    raise NotImplementedError

  def onnx(
    self,
    graph: Graph,
    params: Any,
    wish: str,
    anatomy: str,
    patient: OnnxPatient,
  ) -> Entry[str]:
    """What `prepare` and `__call__` do in an ONNX graph, channels first.

    Args:
      graph: to add nodes to; its input `desired_dvh` is that of `__call__`.
      params: of the whole network, as numpy arrays.
      wish, anatomy: names of what `__call__` takes.
      patient: what `prepare` takes, channels first.
    """
    del graph, params, wish, anatomy, patient
    raise errors.UserError(
      f'model.conditioning={self.net.conditioning} cannot be exported to ONNX'
    )


def combine(entries: Iterable[Entry[T]], join: Any, add: Any) -> Entry[T]:
  """What several ways add together.

  Args:
    entries: of the ways.
    join: concatenates a list of `[B, C]`.
    add: the sum of two.
  """
  entries = list(entries)

  def joined(name: str) -> T | None:
    parts = [x for e in entries if (x := getattr(e, name)) is not None]
    return join(parts) if len(parts) > 1 else next(iter(parts), None)

  levels = [e.levels for e in entries if e.levels]
  doses = [e.dose for e in entries if e.dose is not None]
  return Entry(
    joined('bottleneck'),
    joined('modulation'),
    [functools.reduce(add, level) for level in zip(*levels, strict=True)],
    functools.reduce(add, doses) if doses else None,
  )
