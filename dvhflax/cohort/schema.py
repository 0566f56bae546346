"""What a cohort store says of itself: `metadata.json`, schema version 1."""

from collections.abc import Sequence
import dataclasses
import json
from typing import Any, TypeVar

import msgspec

from dvhflax import errors
from dvhflax.dvh import DVHSpec
from dvhflax.normalisation import Normalisation
from dvhflax.patient import Structure

SCHEMA_VERSION = 1
SPLITS = ('train', 'validation', 'test')

Kind = TypeVar('Kind')


@dataclasses.dataclass(frozen=True)
class PatientRecord:
  """One patient's entry; fields as in `dvhflax.patient.Patient`.

  Attributes:
    plans: plans this patient has, at most the cohort's `max_plans`.
    split: `train`, `validation` or `test`.
    checksums: CRC-32 of the patient's masks, dose and dvh arrays, and of its
      CT if it has one.
    coverage_gy: of a cohort normalised by the target's mean, plan by plan the
      dose that its `coverage_percent` of the highest target receives.
  """

  id: str
  split: str
  plans: int
  present: tuple[bool, ...]
  spacing_mm: tuple[float, float, float]
  prescription_gy: float
  reference_gy: tuple[float, ...]
  plan_weights: tuple[tuple[float, ...], ...]
  provenance: dict[str, Any]
  checksums: dict[str, int]
  coverage_gy: tuple[float, ...] = ()

  @property
  def has_ct(self) -> bool:
    """Whether the patient's CT is in the store."""
    return 'ct' in self.checksums


@dataclasses.dataclass(frozen=True)
class Excerpt:
  """What an excerpt of a store has beside all records and DVH vectors.

  Attributes:
    patients: ids of the patients whose masks are there.
    plans: how many plans of each of them have their dose there, from the first
      on.
  """

  patients: tuple[str, ...]
  plans: int


@dataclasses.dataclass(frozen=True)
class CohortMetadata:
  """The whole of `metadata.json`.

  Attributes:
    structures: S structures, in the order of the mask channels.
    grid: voxels along x, y, z.
    dvh: elements of the DVH vectors.
    max_plans: N, length of the plan axis.
    patients: P records, in the order of the patient axis.
    provenance: what the content follows from.
    dose_dtype: `float16` or `float32`.
    ct: whether CTs are kept; patients may lack theirs.
    normalisation: `kind`, and of `target_mean` its `coverage_percent`, see
      `dvhflax.normalisation`; None in stores that are older than it.
    excerpt: what is there, if not all is.
  """

  structures: tuple[Structure, ...]
  grid: tuple[int, int, int]
  dvh: DVHSpec
  max_plans: int
  patients: tuple[PatientRecord, ...]
  provenance: dict[str, Any]
  dose_dtype: str
  ct: bool = False
  normalisation: dict[str, Any] | None = None
  excerpt: Excerpt | None = None

  def to_json(self) -> dict[str, Any]:
    values = {'schema_version': SCHEMA_VERSION, **dataclasses.asdict(self)}
    if not self.ct:
      # As stores were before there was this key, so that either reads.
      del values['ct']
    for name in ('normalisation', 'excerpt'):
      if values[name] is None:
        del values[name]
    return values

  @classmethod
  def from_text(cls, text: bytes, where: str) -> 'CohortMetadata':
    """Reads the file; of 10,000 patients in half a second.

    Args:
      text: its content.
      where: its name, for errors.

    Raises:
      CohortError: as `from_json`, or if it is no JSON.
    """
    try:
      parts = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
      if msgspec.json.decode(parts['schema_version']) == SCHEMA_VERSION:
        patients = _records(
          msgspec.json.decode(parts['patients'], type=list[msgspec.Raw])
        )
        parts['patients'] = msgspec.Raw(b'[]')
        rest = msgspec.json.decode(msgspec.json.encode(parts))
        return dataclasses.replace(
          cls.from_json(rest, where), patients=patients
        )
    except (KeyError, msgspec.DecodeError):
      pass  # What is wrong, if it is more than a NaN, is said below.
    try:
      return cls.from_json(json.loads(text), where)
    except ValueError as error:
      raise errors.CohortError(f'{where}: {error}') from None

  @classmethod
  def from_json(cls, values: Any, where: str) -> 'CohortMetadata':
    """Reads parsed JSON.

    Args:
      values: the parsed file.
      where: its name, for errors.

    Raises:
      CohortError: another schema version, or a key missing or mistyped.
    """
    if not isinstance(values, dict):
      raise errors.CohortError(f'{where} holds no cohort metadata')
    version = values.get('schema_version')
    if version != SCHEMA_VERSION:
      raise errors.CohortError(
        f'{where} has schema_version {version!r}; this version of dvhflax '
        f'reads {SCHEMA_VERSION}: build the cohort again'
      )
    metadata = read(cls, values, where)
    if metadata.normalisation is not None:
      try:
        Normalisation.from_json(metadata.normalisation)
      except (KeyError, TypeError, ValueError) as error:
        raise errors.CohortError(f'{where}: normalisation: {error}') from None
    return metadata


def _records(texts: Sequence[msgspec.Raw]) -> tuple[PatientRecord, ...]:
  """Records that share what they have in common, which is most of them."""
  decoder = msgspec.json.Decoder(PatientRecord)
  records: list[PatientRecord] = []
  for text in texts:
    record = decoder.decode(text)
    if records:
      before = records[-1].provenance
      for key, value in record.provenance.items():
        if before.get(key) == value:
          record.provenance[key] = before[key]
    records.append(record)
  return tuple(records)


def read(kind: type[Kind], values: Any, where: str) -> Kind:
  """A dataclass from parsed JSON.

  Args:
    kind: the class.
    values: the parsed JSON; keys that the class lacks are passed over.
    where: name of the file, for errors.

  Raises:
    CohortError: for a key that is missing or mistyped, which it names.
  """
  try:
    return msgspec.convert(values, kind)
  except msgspec.ValidationError as error:
    raise errors.CohortError(f'{where}: {error}') from None
