"""What a cohort store says of itself: `metadata.json`, schema version 1."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from dvhflax import errors
from dvhflax.dvh import DVHSpec
from dvhflax.normalisation import Normalisation
from dvhflax.patient import Structure

SCHEMA_VERSION = 1
SPLITS = ('train', 'validation', 'test')


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

  @classmethod
  def from_json(cls, values: Mapping[str, Any], where: str) -> 'PatientRecord':
    """Raises a CohortError that names the first faulty key of `where`."""
    fields = _fields(cls, values, where)
    fields['present'] = tuple(map(bool, fields['present']))
    fields['spacing_mm'] = tuple(map(float, fields['spacing_mm']))
    fields['reference_gy'] = tuple(map(float, fields['reference_gy']))
    fields['plan_weights'] = tuple(map(tuple, fields['plan_weights']))
    fields['coverage_gy'] = tuple(map(float, fields.get('coverage_gy', ())))
    return cls(**fields)


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

  def to_json(self) -> dict[str, Any]:
    values = {'schema_version': SCHEMA_VERSION, **dataclasses.asdict(self)}
    if not self.ct:
      # As stores were before there was this key, so that either reads.
      del values['ct']
    if self.normalisation is None:
      del values['normalisation']
    return values

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
    fields = _fields(cls, values, where)
    try:
      fields['structures'] = tuple(Structure(**s) for s in fields['structures'])
      fields['dvh'] = DVHSpec(**fields['dvh'])
      fields['grid'] = tuple(map(int, fields['grid']))
      if fields.get('normalisation') is not None:
        Normalisation.from_json(fields['normalisation'])
    except (KeyError, TypeError, ValueError) as error:
      raise errors.CohortError(f'{where}: {error}') from None
    fields['patients'] = tuple(
      PatientRecord.from_json(p, f'{where}, patient {i}')
      for i, p in enumerate(fields['patients'])
    )
    return cls(**fields)


_KINDS: dict[str, Any] = {
  'id': str, 'split': str, 'plans': int, 'present': list, 'spacing_mm': list,
  'prescription_gy': (int, float), 'reference_gy': list,
  'plan_weights': list, 'provenance': dict, 'checksums': dict,
  'structures': list, 'grid': list, 'dvh': dict, 'max_plans': int,
  'patients': list, 'dose_dtype': str, 'ct': bool,
  'normalisation': dict, 'coverage_gy': list,
}  # fmt: skip


def _fields(
  cls: type[Any], values: Mapping[str, Any], where: str
) -> dict[str, Any]:
  fields = {}
  for field in dataclasses.fields(cls):
    if field.name not in values:
      if field.default is not dataclasses.MISSING:
        continue
      raise errors.CohortError(f'{where} lacks the key {field.name!r}')
    value = values[field.name]
    if not isinstance(value, _KINDS[field.name]):
      raise errors.CohortError(
        f'{where}: {field.name!r} is of type {type(value).__name__}'
      )
    fields[field.name] = value
  return fields
