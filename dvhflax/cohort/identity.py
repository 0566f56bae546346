"""Which cohort a network was trained on: kept in its checkpoint, compared."""

from collections.abc import Mapping
import os
from typing import Any

from dvhflax import errors
from dvhflax.cohort import place
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.writer import building_path

_IDENTITY, _PLACE = 'cohort_identity', 'cohort_path'


def item(cohort: Cohort) -> dict[str, Any]:
  """What a checkpoint's `data` item keeps of its cohort; JSON."""
  return {_IDENTITY: cohort.identity, _PLACE: place.absolute(cohort.path)}


def without_place(data: Mapping[str, Any]) -> dict[str, Any]:
  """A checkpoint's item for others: a path of this machine is not theirs."""
  return {key: value for key, value in data.items() if key != _PLACE}


def find(path: str, data: Mapping[str, Any], flag: str) -> str:
  """Where the cohort of a checkpoint lies.

  Args:
    path: where it should, as configured: relative to a working directory that
      may have been another one.
    data: the checkpoint's item; versions without the place had none.
    flag: of the command, to name another place with.

  Raises:
    CohortError: if it is neither there nor where it was at the training.
  """
  if place.is_url(path):
    return path  # Opening it says if there is none.
  before = data.get(_PLACE)
  for candidate in (path, before):
    if candidate and (place.is_url(candidate) or os.path.isdir(candidate)):
      return candidate
  if os.path.isdir(building_path(path)):
    return path  # Opening it reports that it is half-written.
  here = '' if os.path.isabs(path) else f' (from {os.getcwd()})'
  there = f', nor at {before}, where it was' if before else ''
  raise errors.CohortError(
    f'there is no cohort at {path}{here}{there}: give its path with {flag}'
  )


def require(
  cohort: Cohort, data: Mapping[str, Any], workdir: str, flag: str
) -> None:
  """Raises a CohortError if a checkpoint is of another cohort.

  Args:
    cohort: that is about to be used.
    data: the checkpoint's item; one of a version that did not keep the
      identity goes with every cohort.
    workdir: of the checkpoint.
    flag: of the command, to name another cohort with.
  """
  trained_on = data.get(_IDENTITY)
  if trained_on is None or trained_on == cohort.identity:
    return
  if not isinstance(trained_on, dict):
    raise errors.CheckpointError(
      f'{workdir}: the cohort identity in the checkpoint is damaged: name '
      'another checkpoint'
    )
  how = 'it has another provenance, other patients or other splits'
  if trained_on.get('description') == cohort.identity['description']:
    how = 'it has the same description, but other masks or doses'
  before = data.get(_PLACE)
  here = place.absolute(cohort.path)
  raise errors.CohortError(
    f'{here} is not the cohort that {workdir} was '
    f'trained on: {how}; name that one with {flag}'
    + (
      f' (it was at {before}' + (' too)' if here == before else ')')
      if before
      else ''
    )
  )
