"""What an RTPLAN tells of doses: prescriptions, beams and fractions."""

from collections.abc import Iterable, Sequence
import pathlib
from typing import Any

from dvhflax import errors
from dvhflax.io.dicom import files
from dvhflax.io.dicom.headers import Instance

# Of beams that image the patient, TreatmentDeliveryType: they have no dose.
_IMAGING = ('SETUP', 'OPEN_PORTFILM', 'TRMT_PORTFILM')
# A beam by the numbers of its fraction group and its own.
Beams = frozenset[tuple[int, int]]


def prescription(path: pathlib.Path) -> float | None:
  """The highest TargetPrescriptionDose of an RTPLAN; None if it has none."""
  dataset = files.read(path)
  return highest(
    float(files.numbers(item, 'TargetPrescriptionDose', path, 1)[0])
    for item in files.items(dataset, 'DoseReferenceSequence', path)
    if files.code(item, 'DoseReferenceType', path) == 'TARGET'
    and files.value(item, 'TargetPrescriptionDose', path) is not None
  )


def outlined_prescription(path: pathlib.Path) -> float | None:
  """The highest prescription of the PlanOverviewSequence of an RTDOSE; None if
  it has none."""
  dataset = files.read(path, ('PlanOverviewSequence',))
  return highest(
    float(files.numbers(item, 'TotalPrescriptionDose', path, 1)[0])
    for overview in files.items(dataset, 'PlanOverviewSequence', path)
    for item in files.items(overview, 'PrescriptionOverviewSequence', path)
  )


def highest(doses_gy: Iterable[float | None]) -> float | None:
  """The highest of the known doses; None and 0 mean unknown."""
  return max((dose for dose in doses_gy if dose and dose > 0), default=None)


def fractions(path: pathlib.Path) -> int | None:
  """Planned fractions of all fraction groups; None if unknown."""
  groups = files.items(files.read(path), 'FractionGroupSequence', path)
  key = 'NumberOfFractionsPlanned'
  if any(files.value(group, key, path) is None for group in groups):
    return None
  return sum(files.whole(group, key, path) for group in groups) or None


def factors(
  doses: Sequence[Instance], rtplans: Sequence[Instance]
) -> list[float]:
  """What each dose of a plan counts for in the plan's total.

  Args:
    doses: of one plan, all of one DoseSummationType (PS3.3 C.8.8.3): the whole
      plan's, or those of its beams or fraction groups, all fractions of them
      (BEAM, FRACTION), or of one fraction of each group (FRACTION_SESSION).
    rtplans: the plan, if it is here.

  Raises:
    CohortError: unless there is one dose of every part of the plan.
  """
  kind, where = doses[0].summation, doses[0].path
  if kind not in ('BEAM', 'FRACTION', 'FRACTION_SESSION'):
    return [1.0] * len(doses)
  if not rtplans:
    what = 'beams' if kind == 'BEAM' else 'fractions'
    raise errors.CohortError(
      f'{where}: cannot check that all {what} are there: add the RTPLAN'
    )
  path = rtplans[0].path
  dataset = files.read(path)
  if kind == 'BEAM':
    _require_all_beams(doses, dataset, path)
    return [1.0] * len(doses)
  groups = _of_groups(doses, dataset, path)
  if kind == 'FRACTION':
    return [1.0] * len(doses)
  planned = [
    files.whole(group, 'NumberOfFractionsPlanned', path) for group in groups
  ]
  if min(planned) < 1:
    raise errors.CohortError(
      f'{path}: NumberOfFractionsPlanned={min(planned)} must be > 0'
    )
  return list(map(float, planned))


def _of_groups(
  doses: Sequence[Instance], dataset: Any, path: pathlib.Path
) -> list[Any]:
  """The fraction group of each dose; raises unless all groups have one."""
  where = doses[0].path
  groups = files.items(dataset, 'FractionGroupSequence', path)
  if len(groups) == len(doses) == 1:
    return groups
  by_number = {
    files.whole(group, 'FractionGroupNumber', path): group for group in groups
  }
  told = [next(iter(dose.groups)) for dose in doses if len(dose.groups) == 1]
  if len(told) != len(doses):
    raise errors.CohortError(
      f'{where}: nothing tells which of the {len(groups)} fraction groups of '
      f'{path} it is of'
    )
  if sorted(told) != sorted(by_number):
    raise errors.CohortError(
      f'{where}: doses of fraction groups {_listed(told)}, but {path} has '
      f'groups {_listed(by_number)}: export one dose of each'
    )
  return [by_number[number] for number in told]


def _require_all_beams(
  doses: Sequence[Instance], dataset: Any, path: pathlib.Path
) -> None:
  """Raises a CohortError unless there is one dose of every beam of a plan."""
  where = doses[0].path
  groups = files.items(dataset, 'FractionGroupSequence', path)
  known = _treatment_beams(groups, dataset, path)
  told = [beam for dose in doses for beam in dose.beams]
  if not known or not all(dose.beams for dose in doses):
    count = len(known) or sum(
      files.whole(group, 'NumberOfBeams', path) for group in groups
    )
    if count != len(doses):
      raise errors.CohortError(
        f'{where}: {len(doses)} doses of beams, but {path} has {count} beams'
      )
    return
  twice = {number for group, number in told if told.count((group, number)) > 1}
  if twice:
    raise errors.CohortError(
      f'{where}: two doses of beam {_listed(twice)} of {path}: keep one'
    )
  missing = {number for _, number in known - set(told)}
  if missing:
    raise errors.CohortError(
      f'{where}: {len(doses)} doses of beams, but none of beam '
      f'{_listed(missing)} of {path}'
    )


def _treatment_beams(
  groups: Sequence[Any], dataset: Any, path: pathlib.Path
) -> Beams:
  """Beams of fraction groups that give dose; none if they are not listed."""
  imaging = {
    files.whole(beam, 'BeamNumber', path)
    for keyword in ('BeamSequence', 'IonBeamSequence')
    for beam in files.items(dataset, keyword, path)
    if files.code(beam, 'TreatmentDeliveryType', path) in _IMAGING
  }
  return frozenset(
    (files.whole(group, 'FractionGroupNumber', path), number)
    for group in groups
    for beam in files.items(group, 'ReferencedBeamSequence', path)
    if (number := files.whole(beam, 'ReferencedBeamNumber', path))
    not in imaging
  )


def _listed(numbers: Iterable[int]) -> str:
  return ', '.join(map(str, sorted(numbers))) or 'none'
