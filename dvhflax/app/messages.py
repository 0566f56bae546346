"""What clients send, as types: anything else is refused.

Doses are in Gy, volumes in % of the structure.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from dvhflax import errors

# Of the body of a request; a trail has all curves of all steps.
MOST_BYTES, MOST_TRAIL_BYTES = 2**20, 64 * 2**20

Text = Annotated[str, Meta(max_length=200)]
Long = Annotated[str, Meta(max_length=4000)]
Texts = Annotated[list[Text], Meta(max_length=100)]
Dose = Annotated[float, Meta(ge=0, le=1000)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Prescription = Annotated[float, Meta(gt=0, le=200)]
Base = Literal['desired', 'achieved']

Kind = TypeVar('Kind')


class Handle(Struct, frozen=True, forbid_unknown_fields=True):
  """A point that a curve is pulled through: `V(dose_gy) = volume_percent`."""

  structure: Text
  dose_gy: Dose
  volume_percent: Percent


Handles = Annotated[list[Handle], Meta(max_length=100)]
Curve = Annotated[list[float], Meta(max_length=2000)]
Curves = Annotated[dict[Text, Curve], Meta(max_length=100)]


class Wish(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
  """A wish: curves, bent through handles and points.

  Attributes:
    base: which curves of the current step are bent; None: the desired ones
      where it has them.
    handles: points on the curves.
    points: in clinicians' notation.
    curves: `[K]` by structure, in place of those of the step.
    name: of the step that it becomes.
  """

  base: Base | None = msgspec.field(name='from', default=None)
  handles: Handles = []
  points: Texts = []
  curves: Curves | None = None
  name: Text = ''


class Move(
  Struct,
  frozen=True,
  forbid_unknown_fields=True,
  kw_only=True,
  tag='move',
  tag_field='type',
):
  """A movement of handles, to be answered by a preview."""

  seq: Annotated[int, Meta(ge=0, le=2**53)]
  base: Base | None = msgspec.field(name='from', default=None)
  handles: Handles = []
  points: Texts = []


class NewSession(Struct, frozen=True, forbid_unknown_fields=True):
  """A patient to begin with, or a trail, as JSON, to go on from."""

  patient: Text = ''
  trail: msgspec.Raw = msgspec.Raw()


class StepChange(Struct, frozen=True, forbid_unknown_fields=True):
  """A step's new name or note."""

  name: Text | None = None
  note: Long | None = None


class Template(Struct, frozen=True, forbid_unknown_fields=True):
  """Goals to be saved.

  Attributes:
    goals: texts.
    site: for people.
    name: for people too; the key is what is kept.
  """

  goals: Texts
  site: Text = ''
  name: Text = ''


class Deliverable(Struct, frozen=True, forbid_unknown_fields=True):
  """Which dose is to be made deliverable."""

  dose: Text


class NewUpload(Struct, frozen=True, forbid_unknown_fields=True):
  """What kind of files will come."""

  kind: Literal['dicom', 'nifti']


class Import(Struct, frozen=True, forbid_unknown_fields=True):
  """How uploaded files are read: see `tuning.external.ExternalPatients`."""

  prescription_gy: Prescription | None = None
  names: Annotated[dict[Text, Texts], Meta(max_length=100)] | None = None


def read(body: bytes | str, kind: type[Kind] | Any) -> Kind:
  """A message of a type.

  Raises:
    UserError: for what is not JSON, or not of the type.
  """
  try:
    return msgspec.json.decode(body or b'{}', type=kind)
  except (msgspec.MsgspecError, RecursionError, ValueError) as error:
    raise errors.UserError(
      f'the request is not understood: {errors.plain(str(error), 200)}'
    ) from None
