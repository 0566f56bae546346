"""What a cohort store says of itself: `metadata.json`, schema version 1."""

from collections.abc import Sequence
import dataclasses
import hashlib
import json
import re
from typing import Any, TypeVar

import msgspec

from dvhflax import errors
from dvhflax.dvh import DVHSpec
from dvhflax.normalisation import Normalisation
from dvhflax.patient import Structure

SCHEMA_VERSION = 1
# What `to_text` ends with.
_SUM = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n}\s*\Z')
_SUM_BYTES = 100
# More than any dose, voxel, and dose level of a DVH.
_MOST_GY, _MOST_MM, _MOST_DOSE = 1000.0, 1000.0, 100.0
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

  def fault(self, structures: int, max_plans: int) -> str:
    """The field that no patient has like that, empty if all is well.

    Args:
      structures: S of the cohort.
      max_plans: of the cohort.
    """
    covered = len(self.coverage_gy)
    for faulty, what in (
      (not self.id, 'id'),
      (not 1 <= self.plans <= max_plans, 'plans'),
      (len(self.present) != structures, 'present'),
      (not all(0 < x <= _MOST_MM for x in self.spacing_mm), 'spacing_mm'),
      (not 0 < self.prescription_gy <= _MOST_GY, 'prescription_gy'),
      (len(self.reference_gy) != self.plans, 'reference_gy'),
      (not all(0 < x <= _MOST_GY for x in self.reference_gy), 'reference_gy'),
      (len(self.plan_weights) != self.plans, 'plan_weights'),
      (covered not in (0, self.plans), 'coverage_gy'),
      (not all(0 <= x <= _MOST_GY for x in self.coverage_gy), 'coverage_gy'),
    ):
      if faulty:
        return what
    return ''


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

  def to_text(self) -> str:
    """The content of the file, its checksum last: against damage."""
    content = json.dumps(self.to_json(), indent=1)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f'{content[:-2]},\n "sha256": "{digest}"\n}}'

  def check(self, where: str) -> None:
    """Raises a CohortError for values that no cohort has.

    Args:
      where: name of the file, for errors.
    """
    names = [structure.name for structure in self.structures]
    for faulty, what in (
      (len(set(names)) != len(names) or not names, 'structures'),
      (min(self.grid) < 1, 'grid'),
      (not 0 < self.dvh.max_dose < _MOST_DOSE, 'dvh.max_dose'),
      (self.max_plans < 1, 'max_plans'),
      (self.dose_dtype not in ('float16', 'float32'), 'dose_dtype'),
    ):
      if faulty:
        raise errors.CohortError(
          f'{where}: {what} is impossible: restore the file, or build the '
          'cohort again'
        )
    for record in self.patients:
      what = record.fault(len(names), self.max_plans)
      if what:
        raise errors.CohortError(
          f'{where}: {what} of patient {errors.plain(record.id)} is '
          'impossible: restore the file, or build the cohort again'
        )

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
      CohortError: as `from_json`, or if it is no JSON, or is not as it was
        written.
    """
    _check_sum(text, where)
    try:
      parts = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
      if msgspec.json.decode(parts['schema_version']) == SCHEMA_VERSION:
        patients = _records(
          msgspec.json.decode(parts['patients'], type=list[msgspec.Raw])
        )
        parts['patients'] = msgspec.Raw(b'[]')
        rest = msgspec.json.decode(msgspec.json.encode(parts))
        metadata = dataclasses.replace(
          cls.from_json(rest, where), patients=patients
        )
        metadata.check(where)
        return metadata
    except (KeyError, msgspec.DecodeError, RecursionError):
      pass  # What is wrong, if it is more than a NaN, is said below.
    try:
      return cls.from_json(json.loads(text), where)
    except (ValueError, RecursionError) as error:
      raise errors.CohortError(
        f'{where}: {errors.plain(str(error), 200)}'
      ) from None

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
    metadata.check(where)
    if metadata.normalisation is not None:
      try:
        Normalisation.from_json(metadata.normalisation)
      except (KeyError, TypeError, ValueError) as error:
        raise errors.CohortError(f'{where}: normalisation: {error}') from None
    return metadata


def _check_sum(text: bytes, where: str) -> None:
  """Raises a CohortError for a text that is not as it was written.

  Those of older versions, and those that another program wrote, have no sum at
  their end.
  """
  end = _SUM.search(text, max(0, len(text) - _SUM_BYTES))
  if end is None:
    return
  content = text[: end.start()] + b'\n}'
  if hashlib.sha256(content).hexdigest().encode() != end[1]:
    raise errors.CohortError(
      f'{where} is damaged, or was changed by hand: its checksum does not fit; '
      'restore the file, or build the cohort again'
    )


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
