"""The state of a session as JSON; docs/app_api.md describes it."""

import dataclasses
from typing import Any

import numpy as np

from dvhflax import files
from dvhflax.app.opened import Opened
from dvhflax.dvh import DVHSpec
from dvhflax.io import placement
from dvhflax.tuning.steps import Step


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
  steps = session.steps
  found: dict[str, Any] = {
    'session': opened.key,
    'patient': {
      'key': entry.key,
      'label': entry.id,
      'prescription_gy': session.record.prescription_gy,
    },
    **_fixed(opened),
    'steps': [_step(opened, step) for step in steps],
    'current': len(steps) - 1,
    'can_undo': session.can_undo,
    'can_redo': session.can_redo,
    'goals': opened.goals,
    'revision': opened.revision,
    'locked': session.locked,
    'can_have': opened.can_have(),
    'doses': _doses(opened),
    'jobs': opened.jobs,
  }
  return dict(files.without_nan(found))


def step_name(step: Step) -> str:
  """The name that a step was given, or one for it."""
  unnamed = {'first_dose': 'First dose', 'balanced': 'Balanced'}
  return step.name or unnamed.get(step.action, f'Step {step.number}')


def _doses(opened: Opened) -> list[dict[str, str]]:
  """All that can be shown."""
  names = {step.number: step_name(step) for step in opened.session.steps}
  listed = [{'id': f'step-{n}', 'label': name} for n, name in names.items()]
  listed += [
    {'id': f'plan-{n}', 'label': f'Plan {n}'} for n in range(opened.entry.plans)
  ]
  listed += [
    {
      'id': f'deliverable-{n}',
      'label': f'{names.get(n, f"Step {n}")}, deliverable',
    }
    for n in opened.made
  ]
  return listed


def _fixed(opened: Opened) -> dict[str, Any]:
  """What is the same for all steps."""
  session, cohort = opened.session, opened.session.cohort
  record, masks = session.record, session.masks
  placed = placement.on_cohort_grid(
    np.zeros(masks.shape[:3], np.float32), record.spacing_mm, record.provenance
  )
  volumes_cc, cut_off = session.volumes_cc, session.cut_off
  return {
    'structures': [
      {
        'name': structure.name,
        'role': structure.role,
        'present': bool(session.present[s]),
        'volume_cc': float(volumes_cc[s]),
        'cut_off': structure.name in cut_off,
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


def _step(opened: Opened, step: Step) -> dict[str, Any]:
  held = step.held
  goals, distance = opened.judged(step)
  return {
    'number': step.number,
    'id': f'step-{step.number}',
    'name': step_name(step),
    'note': step.note,
    'action': step.action,
    'time': step.time,
    'reference_gy': step.reference.gy,
    'desired_reference_gy': step.desired_reference.gy,
    'desired': step.wished_dvh,
    'achieved': step.dvh,
    'points': step.points,
    'goals': goals,
    'metrics': {
      'achieved': step.metrics['achieved'],
      'desired': None
      if step.wished_dvh is None
      else step.metrics.get('desired'),
    },
    'distance': distance,
    'held': None if held is None else dataclasses.asdict(held),
  }
