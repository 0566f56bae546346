"""The state of a session as JSON; docs/app_api.md describes it."""

from typing import Any

import numpy as np

from dvhflax import files, metrics
from dvhflax.app.opened import Opened
from dvhflax.dvh import DVHSpec
from dvhflax.io import placement
from dvhflax.tuning.session import Step


def dvh_of(spec: DVHSpec) -> dict[str, Any]:
  """How the DVH vectors are read."""
  return {
    'kind': spec.kind,
    'points': spec.points,
    'max_dose': spec.max_dose,
    'levels': spec.levels.tolist(),
  }


def state(opened: Opened) -> dict[str, Any]:
  """What `GET /api/v1/sessions/S` answers."""
  session, entry = opened.session, opened.entry
  steps = session._steps
  numbers = list(range(len(steps)))
  doses = [{'id': f'step-{n}', 'label': _name(opened, n)} for n in numbers]
  doses += [
    {'id': f'plan-{n}', 'label': f'plan {n}'} for n in range(entry.plans)
  ]
  doses += [
    {'id': f'deliverable-{n}', 'label': f'deliverable of step {n}'}
    for n in opened.made
  ]
  found: dict[str, Any] = {
    'session': opened.key,
    'patient': {
      'key': entry.key,
      'label': entry.id,
      'prescription_gy': session.record.prescription_gy,
    },
    **_fixed(opened),
    'steps': [_step(opened, n, step) for n, step in enumerate(steps)],
    'current': len(steps) - 1,
    'can_undo': len(steps) > 1,
    'can_redo': False,
    'goals': opened.goals,
    'locked': opened.locked,
    'can_have': None,
    'doses': doses,
  }
  return dict(files.without_nan(found))


def _fixed(opened: Opened) -> dict[str, Any]:
  """What is the same for all steps."""
  session, cohort = opened.session, opened.session.cohort
  record, masks = session.record, session.masks
  placed = placement.on_cohort_grid(
    np.zeros(masks.shape[:3], np.float32), record.spacing_mm, record.provenance
  )
  voxel_cc = float(np.prod(record.spacing_mm)) / 1000
  cut = metrics.at_edge(masks)
  counts = masks.astype(bool).sum((0, 1, 2))
  return {
    'structures': [
      {
        'name': structure.name,
        'role': structure.role,
        'present': bool(session.present[s]),
        'volume_cc': float(counts[s]) * voxel_cc,
        'cut_off': bool(cut[s]),
      }
      for s, structure in enumerate(cohort.structures)
    ],
    'grid': {
      'shape': list(masks.shape[:3]),
      'spacing_mm': list(record.spacing_mm),
      'origin_mm': [float(axis[0]) for axis in placed.axes],
      'isocentre': _isocentre(opened),
    },
    'has_ct': opened.ct is not None,
    'dvh': dvh_of(cohort.dvh_spec),
  }


def _isocentre(opened: Opened) -> list[float]:
  """Centre of mass of the targets, in voxels."""
  masks = opened.session.masks
  targets = [
    s
    for s, one in enumerate(opened.session.cohort.structures)
    if one.role == 'target'
  ]
  inside = masks[..., targets].any(-1)
  if not inside.any():
    return [(n - 1) / 2 for n in inside.shape]
  return [float(axis.mean()) for axis in np.nonzero(inside)]


def _name(opened: Opened, number: int) -> str:
  return opened.names.get(number) or (
    'first dose' if number == 0 else f'step {number}'
  )


def _step(opened: Opened, number: int, step: Step) -> dict[str, Any]:
  desired = step.desired_dvh
  return {
    'number': number,
    'id': f'step-{number}',
    'name': _name(opened, number),
    'note': opened.notes.get(number, ''),
    'action': 'tune' if number else 'first_dose',
    'time': opened.session._entries[number]['time'],
    'reference_gy': step.reference.gy,
    'desired_reference_gy': step.desired_reference.gy,
    'desired': None if desired is None else desired.tolist(),
    'achieved': step.dvh.tolist(),
    'points': step.metrics['points'],
    'goals': [],
    'metrics': {
      'achieved': step.metrics['achieved'],
      'desired': step.metrics.get('desired'),
    },
    'distance': None,
  }
