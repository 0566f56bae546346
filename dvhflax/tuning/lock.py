"""Locked structures: "not worse than now" while others are tuned.

Worse is, of an OAR or the body, a higher mean or maximum dose, or more volume
at any dose; of a target, less coverage (D98%, D95%) or more of a hot spot (D2%,
maximum). Within a tolerance nothing is worse: 0.5% of the prescription of a
dose, 1% of it of a maximum, which is that of one voxel, and 1% of the
structure's volume, or one voxel.
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from dvhflax import errors
from dvhflax.dose_volume import Ranked
from dvhflax.dvh import DVHSpec
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Structure
from dvhflax.tuning.steps import Answer, Held, Step
from dvhflax.tuning.subject import Subject, Wish
from dvhflax.wishes.points import Point

# In fractions of the prescription; of the volume.
_DOSE, _MAX, _VOLUME = 0.005, 0.01, 0.01
# Doses at which volumes are compared, in fractions of the prescription.
_LEVELS = np.linspace(0.02, 1.2, 60)
# Doses that are computed at most to find how far a wish can be taken, after
# that of the whole wish; the way is then known to so much of it, or to so much
# if no part of it could be had yet; the excess that is sought, in tolerances.
_MOST_DOSES, _CLOSE, _NOTHING, _AIM = 6, 0.05, 0.01, 0.9


@dataclasses.dataclass(frozen=True)
class _Reading:
  """Of one structure: Gy that should not rise, that should not fall, and volume
  fractions at `_LEVELS` that should not rise."""

  rising: dict[str, float]
  falling: dict[str, float]
  volumes: np.ndarray


def _reading(
  doses: Ranked, structure: Structure, reference: DoseReference
) -> _Reading:
  def gy(percent: float) -> float:
    return reference.to_gy(doses.dose_at_volume_percent(percent))

  largest = reference.to_gy(doses.max_dose)
  if structure.role == 'target':
    return _Reading(
      {'D2%': gy(2), 'max': largest},
      {'D98%': gy(98), 'D95%': gy(95)},
      np.zeros(0),
    )
  levels = reference.percent_to_fraction(100 * _LEVELS)
  return _Reading(
    {'mean': reference.to_gy(doses.mean_dose), 'max': largest},
    {},
    doses.volume_fraction_at_dose(levels),
  )


@dataclasses.dataclass(frozen=True)
class Excess:
  """By how much a locked structure is worse.

  Attributes:
    tolerances: above what was at the lock, in multiples of the tolerance; more
      than 1 is worse.
    structure: its name.
    why: what of it, for people.
  """

  tolerances: float
  structure: str
  why: str


@dataclasses.dataclass(frozen=True)
class Lock:
  """A structure that is to become no worse.

  Attributes:
    index: of the structure.
    structure: itself.
    step: that it is held against.
  """

  index: int
  structure: Structure
  step: Step
  _then: _Reading

  @classmethod
  def at(
    cls, step: Step, index: int, structure: Structure, doses: Ranked
  ) -> 'Lock':
    """Of the `doses` that a structure has in a step."""
    then = _reading(doses, structure, step.reference)
    return cls(index, structure, step, then)

  def excess(self, doses: Ranked, reference: DoseReference) -> Excess:
    """The worst there is, of the structure's doses in another dose."""
    now, then = _reading(doses, self.structure, reference), self._then
    found = []
    for sign, ours, theirs in (
      (1, now.rising, then.rising),
      (-1, now.falling, then.falling),
    ):
      for name, gy in ours.items():
        allowed = _MAX if name == 'max' else _DOSE
        allowed *= reference.prescription_gy
        found.append(
          Excess(
            sign * (gy - theirs[name]) / allowed,
            self.structure.name,
            f'{name} {gy:.2f} Gy, at the lock {theirs[name]:.2f} Gy',
          )
        )
    if len(now.volumes):
      over = now.volumes - then.volumes
      most = int(over.argmax())
      at_gy = _LEVELS[most] * reference.prescription_gy
      found.append(
        Excess(
          float(over[most]) / max(_VOLUME, 1 / len(doses.dose)),
          self.structure.name,
          f'V{at_gy:.3g}Gy {100 * now.volumes[most]:.1f}%, at the lock '
          f'{100 * then.volumes[most]:.1f}%',
        )
      )
    return max(found, key=lambda one: one.tolerances)

  def curve(self, spec: DVHSpec, reference: DoseReference | None) -> np.ndarray:
    """`[K]` that the structure had, in fractions of another reference."""
    vector = self.step.dvh[self.index]
    if reference is None or reference.gy == self.step.reference.gy:
      return vector
    to = self.step.reference.gy / reference.gy
    if spec.kind == 'dose_at_volume':
      return (vector * to).astype(np.float32)
    levels = np.asarray(spec.levels, np.float64)
    moved = np.interp(levels, levels * to, vector, right=0)
    return np.minimum.accumulate(moved).astype(np.float32)


def worst(
  locks: Sequence[Lock],
  doses: Sequence[Ranked | None],
  reference: DoseReference,
) -> list[Excess]:
  """Of every locked structure, that which is worst first."""
  found = []
  for lock in locks:
    inside = doses[lock.index]
    assert inside is not None  # what has no voxel cannot be locked
    found.append(lock.excess(inside, reference))
  return sorted(found, key=lambda one: -one.tolerances)


def furthest(
  excess: Callable[[float], Excess], whole: Excess
) -> tuple[float, Excess]:
  """How much of a wish can be had, by the secant method between bounds.

  Args:
    excess: of the dose for a share of the wish, 0 < share < 1.
    whole: that for all of it.

  Returns:
    The largest share that was found to keep the locks, 0 if none was; and what
    held it.
  """
  # As if nothing were worse with the wish before.
  low, high = (0.0, 0.0), (1.0, whole.tolerances)
  holder = whole
  for number in range(_MOST_DOSES):
    width = high[0] - low[0]
    if width <= (_CLOSE if low[0] else _NOTHING):
      break
    # Where the excess is expected to be just allowed; the middle, where that
    # has not led far, as with volumes of few voxels, which change in steps.
    place = (_AIM - low[1]) / (high[1] - low[1])
    if number > 2:
      place = 0.5
    share = low[0] + min(max(place, 0.1), 0.9) * width
    found = excess(share)
    if found.tolerances > 1:
      high, holder = (share, found.tolerances), found
    else:
      low = (share, found.tolerances)
  return low[0], holder


def part(start: Answer, wish: Wish, share: float) -> Wish:
  """A part of the way from a step's wish to another.

  Args:
    start: the step; its achieved curves count where nothing was asked for.
    wish: the other, which has curves.
    share: of the way.

  Returns:
    Curves that only one of both has are those of `wish`.
  """
  if share == 1:
    return wish
  before, of_before = start.desired_dvh, start.desired_reference
  if before is None:
    before, of_before = start.dvh, start.reference
  desired, reference = wish.desired, wish.reference
  assert desired is not None
  both = np.any(before, -1, keepdims=True) & np.any(desired, -1, keepdims=True)
  mixed = np.where(both, before + share * (desired - before), desired)
  if reference is not None:
    gy = (1 - share) * of_before.gy + share * reference.gy
    reference = dataclasses.replace(reference, gy=gy)
  return Wish(mixed.astype(np.float32), reference, wish.texts)


def start(locks: Sequence[Lock], current: Step, subject: Subject) -> Step:
  """A step that keeps all locks: the current one, or the one locked last.

  Raises:
    WishError: if neither does.
  """
  latest = max((lock.step for lock in locks), key=lambda step: step.number)
  for step in (current, latest):
    found = worst(locks, *subject.read(step.dose))
    if found[0].tolerances <= 1:
      return step
  names = ', '.join(one.structure for one in found if one.tolerances > 1)
  raise errors.WishError(
    f'no step keeps all locks: that of the last lock is worse for {names} '
    f'({found[0].why}); unlock it'
  )


def held(
  locks: Sequence[Lock], start: Step, wish: Wish, subject: Subject
) -> Held:
  """How far locks let a wish be taken from a step that keeps them."""

  def excess(share: float) -> Excess:
    dose = subject.dose(part(start, wish, share))
    return worst(locks, *subject.read(dose))[0]

  whole = excess(1.0)
  if whole.tolerances <= 1:
    return Held(1.0)
  share, by = furthest(excess, whole)
  return Held(share, by.structure, by.why)


def worse(
  locks: Sequence[Lock], answer: Answer, subject: Subject
) -> tuple[str, ...]:
  """Names of the locked structures that a dose makes worse."""
  found = worst(locks, *subject.read(answer.dose)) if locks else []
  return tuple(one.structure for one in found if one.tolerances > 1)


def locked(
  before: Sequence[Lock], names: Sequence[str], step: Step, subject: Subject
) -> list[Lock]:
  """Locks of these structures, those that are new against a step.

  Raises:
    WishError: for a structure that the patient lacks.
  """
  known = {lock.structure.name: lock for lock in before}
  doses, _ = subject.read(step.dose)
  there = {
    structure.name: (index, structure, doses[index])
    for index, structure in enumerate(subject.cohort.structures)
  }
  for name in names:
    index, structure, inside = there.get(name, (0, None, None))
    if structure is None or inside is None:
      raise errors.WishError(
        f'{errors.shown(name)} cannot be locked: the patient has no such '
        'structure'
      )
    if name not in known:
      known[name] = Lock.at(step, index, structure, inside)
  return [known[name] for name in names]


def refuse_points(locks: Sequence[Lock], points: Sequence[Point]) -> None:
  """Raises a WishError for a point of a locked structure."""
  names = {lock.index: lock.structure.name for lock in locks}
  for point in points:
    if point.structure in names:
      raise errors.WishError(
        f'{errors.shown(point.text)}: {names[point.structure]} is locked as it '
        'is; unlock it to tune it'
      )
