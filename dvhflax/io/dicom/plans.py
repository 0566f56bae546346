"""Which of a patient's doses make a plan, and which plans make a course."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
import dataclasses
import itertools

from dvhflax import errors
from dvhflax.io.dicom.headers import Instance
from dvhflax.io.import_report import Skipped

# DoseSummationType of a whole plan: an RTPLAN's, or one that is outlined only.
_WHOLE = ('PLAN', 'PLAN_OVERVIEW')
# Of a part of a plan: what it is, the field of `Sums`, in order of preference.
_PARTS = {
  'FRACTION': ('the dose of one fraction group', 'fractions'),
  'FRACTION_SESSION': ('the dose of one fraction', 'fractions'),
  'BEAM': ('the dose of one beam', 'beams'),
}


@dataclasses.dataclass(frozen=True)
class Sums:
  """Which doses are added up, see the config keys `cohort.sum_...`.

  Attributes:
    beams: those of a plan's beams.
    fractions: those of a plan's fraction groups.
    plans: those of the plans of a structure set, the phases of a course.
  """

  beams: bool = False
  fractions: bool = False
  plans: bool = False


def by_plan(
  doses: Iterable[Instance], sums: Sums
) -> tuple[list[tuple[Instance, ...]], list[Skipped]]:
  """A structure set's doses by plan.

  Args:
    doses: of one structure set.
    sums: which are added up.

  Returns:
    A tuple a plan: its dose, or those that add up to it; and the doses that
    are no plan's.
  """
  plans: list[tuple[Instance, ...]] = []
  parts: dict[tuple[str, frozenset[str]], list[Instance]] = defaultdict(list)
  courses, skipped = [], []
  for dose in doses:
    if dose.summation in _WHOLE:
      plans.append((dose,))
    elif dose.summation == 'MULTI_PLAN':
      courses.append(dose)
    elif dose.summation in _PARTS and dose.plans:
      parts[dose.summation, dose.plans].append(dose)
    else:
      why = (
        f'DoseSummationType is {dose.summation or "missing"!r}; expected PLAN: '
        "export the plan's total dose"
      )
      skipped.append(Skipped(str(dose.path), why))
  complete = {plan[0].plans for plan in plans}
  for kind, (what, field) in _PARTS.items():
    for uids in [uids for other, uids in parts if other == kind]:
      own = parts[kind, uids]
      if uids in complete:
        why = f'{what}; the total dose of its plan is there'
      elif not getattr(sums, field):
        why = (
          f'DoseSummationType is {kind}, {what}; expected PLAN: export the '
          f'total dose, or set cohort.sum_{field}'
        )
      else:
        plans.append(tuple(own))
        complete.add(uids)
        continue
      skipped += [Skipped(str(part.path), why) for part in own]
  if not sums.plans:
    why = (
      'the dose of several plans (MULTI_PLAN): set cohort.sum_plans to take '
      'the course for one plan'
    )
    return plans, skipped + [Skipped(str(dose.path), why) for dose in courses]
  try:
    plans, unfit = _by_course(plans, courses)
  except errors.CohortError as error:
    unfit = [
      Skipped(str(part.path), f'cohort.sum_plans: {error}')
      for plan in plans
      for part in plan
    ]
    plans = []
  return plans, skipped + unfit


def _by_course(
  plans: Sequence[tuple[Instance, ...]], courses: Sequence[Instance]
) -> tuple[list[tuple[Instance, ...]], list[Skipped]]:
  """Adds up the plans of a course, unless there is a dose of the whole.

  Raises:
    CohortError: if it is unknown whether plans are phases or alternatives.
  """
  if courses:
    told = frozenset().union(*(course.plans for course in courses))
    names = ', '.join(course.path.name for course in courses)
    return [(course,) for course in courses], [
      Skipped(
        str(part.path),
        f'{"a" if part.plans & told else "no"} part of the course that {names} '
        'is the dose of',
      )
      for plan in plans
      for part in plan
    ]
  if len({plan[0].plans for plan in plans}) < 2:
    return list(plans), []
  for plan in plans:
    if not plan[0].plans:
      raise errors.CohortError(
        f'{plan[0].path.name} refers to no RTPLAN: which phase is it of?'
      )
  for one, other in itertools.combinations(plans, 2):
    if one[0].plans & other[0].plans:
      raise errors.CohortError(
        f'{one[0].path.name} and {other[0].path.name} are of one RTPLAN: keep '
        'one of them'
      )
  return [tuple(itertools.chain(*plans))], []
