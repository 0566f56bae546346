"""The audit trail of a session: written, read, and held against doses.

A trail is JSON: which checkpoints and whose masks it is of, and step by step
what was asked, what came out, and the checksum of the dose.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import math
import os
from typing import Any

import jax
import numpy as np

from dvhflax import errors, files
from dvhflax.checksum import checksum
from dvhflax.tuning.plan_metrics import Table

USE = 'a prediction for research, not for clinical use'
# 2: what 1.0 of a dose stands for is recorded. In version 1 Gy were those of
# the prescription, whatever doses were fractions of.
# 3: steps are redone, renamed, balanced, and structures locked.
_SCHEMA, _READ = 3, (2, 3)
# Of numbers in a trail, which all are doses, volumes and shares.
_MOST = 1e30
# With a dose; without.
DOSES = ('first_dose', 'tune', 'balanced')
_OTHERS = ('undo', 'redo', 'rename', 'lock')
# What a first dose may be of: the session's anatomy-only network, the one
# within its network, or its network for the mean DVH of the training plans.
FIRST_DOSES = ('anatomy', 'within', 'mean_dvh')


@dataclasses.dataclass(frozen=True)
class Trail:
  """A trail that was read.

  Attributes:
    path: of its file.
    jax_version: that its doses were computed with.
    prescription_gy: of the patient.
    steps: what was done, as it was written.
  """

  path: str | os.PathLike[str]
  jax_version: str
  prescription_gy: float
  steps: list[dict[str, Any]]

  def require(
    self, number: int, dose: np.ndarray, achieved: Table, atol: float
  ) -> None:
    """Raises a SessionError unless a dose is that of a step.

    Args:
      number: of the step, from 0.
      dose: `[X, Y, Z]` that the step gives now.
      achieved: its metrics, see `plan_metrics.achieved`.
      atol: what doses of structures may differ by, a fraction of the
        prescription; 0 requires the identical dose.
    """
    step = self.steps[number]
    if checksum(dose) == step['dose_sha256']:
      return
    apart = _doses_apart(achieved, step['metrics']['achieved'])
    if not (atol > 0 and apart / self.prescription_gy <= atol):
      raise errors.SessionError(
        f'{self.path}, step {number} gives another dose than is recorded '
        f'(doses of structures at most {apart:.2g} Gy apart): jax was '
        f'{self.jax_version}, is {jax.__version__}; replay on the same '
        'machine with the same versions, or allow a difference with atol'
      )


def write(
  path: str | os.PathLike[str],
  subject: Mapping[str, Any],
  steps: Sequence[Mapping[str, Any]],
) -> None:
  """Writes a trail, whole or not at all.

  Args:
    path: of the file.
    subject: what the trail is about: `checkpoint`, `patient`.
    steps: what was done; JSON-serialisable.
  """
  trail: dict[str, Any] = {
    'schema_version': _SCHEMA,
    'use': USE,
    **subject,
    'jax': jax.__version__,
    'steps': files.without_nan(steps),
  }
  trail['sha256'] = digest(trail)
  files.write_text(path, json.dumps(trail, indent=1) + '\n')


def read(path: str | os.PathLike[str], subject: Mapping[str, Any]) -> Trail:
  """Reads a trail.

  Args:
    path: of the file.
    subject: what it has to be about, see `write`.

  Raises:
    SessionError: a trail that is unreadable, was changed, or is about another
      patient or checkpoint.
  """
  trail = _read_json(path)
  for key, mine in subject.items():
    if trail[key] != mine:
      raise errors.SessionError(f'{path} {_other(key, trail[key], mine)}')
  prescription_gy = trail['patient']['prescription_gy']
  jax_version = str(trail.get('jax', 'unknown'))
  return Trail(path, jax_version, prescription_gy, trail['steps'])


def digest(trail: Mapping[str, Any]) -> str:
  """SHA-256 of a trail without its own: against damage, not forgery."""
  content = {k: v for k, v in trail.items() if k != 'sha256'}
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def first_dose_of(step: Mapping[str, Any]) -> str:
  """Which of `FIRST_DOSES` a step of a trail is."""
  asked = step.get('asked')
  if asked is None:
    # Not told before there were networks within others.
    return 'anatomy' if step.get('desired_dvh') is None else 'mean_dvh'
  return asked['of']


def _read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
  try:
    with open(path, encoding='utf-8') as file:
      trail = json.load(file)
  except (OSError, ValueError, RecursionError) as error:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    raise errors.SessionError(
      f'{path} cannot be read: {errors.plain(reason or "", 200)}'
    ) from None
  version = trail.get('schema_version') if isinstance(trail, dict) else None
  if version not in _READ:
    raise errors.SessionError(
      f'{path} is not an audit trail of this version: schema_version is '
      f'{version}, not {_SCHEMA}'
    )
  if trail.get('sha256') != digest(trail):
    raise errors.SessionError(
      f'{path} was changed since it was saved: its checksum does not fit'
    )
  steps = trail.get('steps')
  if not all(isinstance(trail.get(k), dict) for k in ('checkpoint', 'patient')):
    raise errors.SessionError(f'{path} does not say whose trail it is')
  if not isinstance(steps, list) or not all(map(_is_step, steps)):
    raise errors.SessionError(f'{path} has damaged steps: restore the file')
  return trail


def _is_step(step: Any) -> bool:
  """Whether a step has what is needed to take it again."""
  if not isinstance(step, dict) or not all(
    isinstance(step.get(key, ''), str | None) for key in ('time', 'who')
  ):
    return False
  action, asked = step.get('action'), step.get('asked')
  if action in _OTHERS:
    return _is_other(step)
  if action not in DOSES:
    return False
  if action == 'tune' and not (_is_asked(asked) and _is_held(step.get('held'))):
    return False
  told = isinstance(asked, dict) and asked.get('of') in FIRST_DOSES
  # Not always told of a first dose, see `first_dose_of`.
  if action != 'tune' and not (
    told or (asked is None and action == 'first_dose')
  ):
    return False
  achieved = step.get('metrics')
  return isinstance(step.get('dose_sha256'), str) and (
    isinstance(achieved, dict) and isinstance(achieved.get('achieved'), dict)
  )


def _is_other(step: Mapping[str, Any]) -> bool:
  if step['action'] == 'rename':
    return isinstance(step.get('number'), int)
  if step['action'] == 'lock':
    names = step.get('structures')
    return isinstance(names, list) and all(isinstance(n, str) for n in names)
  return True


def _is_asked(asked: Any) -> bool:
  """Whether points, curves and their reference are what `tune` takes."""
  if not isinstance(asked, dict) or not isinstance(asked.get('points'), list):
    return False
  curves, gy = asked.get('curves', []), asked.get('reference_gy')
  return (
    all(isinstance(point, str) for point in asked['points'])
    and (gy is None or (_is_number(gy) and gy > 0))
    and (curves is None or _is_table(curves))
  )


def _is_table(rows: Any) -> bool:
  """Whether these are lists of numbers, all of one length."""
  return isinstance(rows, list) and all(
    isinstance(row, list)
    and len(row) == len(rows[0])
    and all(map(_is_number, row))
    for row in rows
  )


def _is_number(value: Any) -> bool:
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return False
  # A whole number may be too large for a float.
  return abs(value) < _MOST and math.isfinite(value)


def _is_held(held: Any) -> bool:
  return held is None or (
    isinstance(held, dict)
    and set(held) == {'share', 'by', 'why'}
    and _is_number(held['share'])
    and 0 <= held['share'] <= 1
    and isinstance(held['by'], str)
    and isinstance(held['why'], str)
  )


def _doses_apart(one: Table, other: Table) -> float:
  """Largest difference in Gy of doses that move little with rounding."""
  names = ('mean', 'max', 'D98%', 'D95%', 'D2%')
  apart = [0.0]
  for structure, row in one.items():
    recorded: Any = other.get(structure)
    for name in names:
      value: Any = recorded.get(name) if isinstance(recorded, dict) else None
      # What is not told, or no number, may be any.
      apart.append(abs(row[name] - value) if _is_number(value) else math.inf)
  return max(apart)


def _other(key: str, told: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
  """Why what a trail is about is not what there is here, for an error."""
  if key != 'patient' or told.get('id') != mine['id']:
    return f'is of another {key}: {_short(told)}, here {_short(mine)}'
  who = f'is of patient {errors.shown(mine["id"])}'
  if told.get('masks_sha256') != mine['masks_sha256']:
    return (
      f'{who} with other masks than here: read the files again with the names '
      'of structures that they were read with then'
    )
  gy = errors.shown(told.get('prescription_gy'), 20)
  return (
    f'{who} with another prescription: {gy} Gy, here '
    f'{mine["prescription_gy"]:g} Gy; read the files again with that one'
  )


def _short(value: Mapping[str, Any]) -> str:
  """JSON without its quotes, for an error."""
  return json.dumps(value, default=str).replace('"', '')
