"""What is asked of a session, and the wish that follows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.dose_volume import Curve
from dvhflax.tuning import lock as lock_lib
from dvhflax.tuning.steps import Answer
from dvhflax.tuning.subject import Subject, Wish
from dvhflax.wishes import points as points_lib
from dvhflax.wishes.bending import bend


def ask(
  subject: Subject,
  locks: Sequence[lock_lib.Lock],
  current: Answer | None,
  points: str | Sequence[str],
  curves: np.ndarray | Mapping[str, Curve] | None,
  reference_gy: float | None,
) -> tuple[dict[str, Any], Wish]:
  """A wish: curves, bent through points.

  Args:
    subject: the patient.
    locks: structures whose curves stay those at their lock.
    current: what points bend the curves of, where none are given.
    points, curves, reference_gy: see `Session.tune`, as for what is raised.

  Returns:
    What was asked, as the trail has it, and the wish.
  """
  if not isinstance(points, str | list | tuple) or not all(
    isinstance(one, str) for one in points
  ):
    raise errors.WishError(
      f'points are a text or a list of texts, not {errors.shown(points)}'
    )
  texts = points_lib.split(points) if isinstance(points, str) else [*points]
  if curves is None and not texts:
    raise errors.SessionError('give points or curves to tune to')
  asked: dict[str, Any] = {'points': texts}
  if curves is not None:
    base, reference = subject.vectors(curves, reference_gy)
    asked['curves'] = base.tolist()
    asked['reference_gy'] = reference.gy if reference else None
  elif current:
    base, reference = current.dvh, current.reference
  else:
    raise errors.SessionError(
      'points bend the DVH of a dose: call first_dose() first'
    )
  spec = subject.cohort.dvh_spec
  if locks:
    base = base.copy()
    for lock in locks:
      base[lock.index] = lock.curve(spec, reference)
  if texts:
    if reference is None:
      raise errors.WishError(
        'points on these curves cannot be converted to Gy: the reference '
        'dose follows from the curve of a target; give one'
      )
    parsed = subject.points(texts, reference)
    lock_lib.refuse_points(locks, parsed)
    base = bend(base, parsed, spec)
  return asked, Wish(base, reference, texts)
