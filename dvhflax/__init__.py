"""Individualised Pareto-optimal radiotherapy dose from masks and a DVH.

The public names. They are imported when they are first used: `import dvhflax`
alone loads neither JAX nor numpy.

```python
import dvhflax

config = dvhflax.config.default()
config.cohort.path = 'cohorts/mine'
cohort = dvhflax.open_or_build_cohort(config)
dvhflax.train(config, cohort, 'runs/mine')
print(dvhflax.evaluate('runs/mine'))
session = dvhflax.Session.open('runs/mine', 'sim-0001')
session.first_dose()
step = session.tune('rectum V70 <= 10%; bladder mean <= 30 Gy')
```

A mistake in what was given, such as a path, a key or a wish, raises a
`dvhflax.errors.UserError` whose message says what to do.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from dvhflax import config, errors
  from dvhflax.cohort.store import Cohort
  from dvhflax.cohort.validate import validate_cohort
  from dvhflax.cohort.writer import CohortWriter
  from dvhflax.dose_volume import Curve
  from dvhflax.dvh import DVHSpec, dvh_vectors
  from dvhflax.evaluation.evaluate import evaluate
  from dvhflax.losses import dose_loss, squared_error
  from dvhflax.normalisation import DoseReference, Normalisation
  from dvhflax.patient import Patient, Structure
  from dvhflax.planning.mimic import Mimicked, mimic
  from dvhflax.planning.planner import Plans, plan_patient
  from dvhflax.projection import project
  from dvhflax.schedules import dropout_rate, inverse_time_decay
  from dvhflax.sites import Organ, Site
  from dvhflax.sites.protocol import Oar, Protocol
  from dvhflax.sources.build import build_cohort, open_or_build_cohort
  from dvhflax.sources.simulated import simulate_patient
  from dvhflax.training.pretrained import pretrained
  from dvhflax.training.runs import Network, load_network
  from dvhflax.training.train import train
  from dvhflax.tuning.external import ExternalPatients
  from dvhflax.tuning.front import Front
  from dvhflax.tuning.goals import GoalResult
  from dvhflax.tuning.session import Session
  from dvhflax.tuning.steps import Preview, Step
  from dvhflax.tuning.templates import Templates

__version__ = '0.1.0'

# Where each public name is.
_MODULES = {
  'Cohort': 'cohort.store',
  'CohortWriter': 'cohort.writer',
  'Curve': 'dose_volume',
  'DVHSpec': 'dvh',
  'DoseReference': 'normalisation',
  'ExternalPatients': 'tuning.external',
  'Front': 'tuning.front',
  'GoalResult': 'tuning.goals',
  'Mimicked': 'planning.mimic',
  'Network': 'training.runs',
  'Normalisation': 'normalisation',
  'Oar': 'sites.protocol',
  'Organ': 'sites',
  'Patient': 'patient',
  'Plans': 'planning.planner',
  'Preview': 'tuning.steps',
  'Protocol': 'sites.protocol',
  'Session': 'tuning.session',
  'Site': 'sites',
  'Step': 'tuning.steps',
  'Structure': 'patient',
  'Templates': 'tuning.templates',
  'build_cohort': 'sources.build',
  'dose_loss': 'losses',
  'dropout_rate': 'schedules',
  'dvh_vectors': 'dvh',
  'evaluate': 'evaluation.evaluate',
  'inverse_time_decay': 'schedules',
  'load_network': 'training.runs',
  'mimic': 'planning.mimic',
  'open_or_build_cohort': 'sources.build',
  'plan_patient': 'planning.planner',
  'pretrained': 'training.pretrained',
  'project': 'projection',
  'simulate_patient': 'sources.simulated',
  'squared_error': 'losses',
  'train': 'training.train',
  'validate_cohort': 'cohort.validate',
}


# Written out for type checkers and editors.
__all__ = [
  'Cohort',
  'CohortWriter',
  'Curve',
  'DVHSpec',
  'DoseReference',
  'ExternalPatients',
  'Front',
  'GoalResult',
  'Mimicked',
  'Network',
  'Normalisation',
  'Oar',
  'Organ',
  'Patient',
  'Plans',
  'Preview',
  'Protocol',
  'Session',
  'Site',
  'Step',
  'Structure',
  'Templates',
  'build_cohort',
  'config',
  'dose_loss',
  'dropout_rate',
  'dvh_vectors',
  'errors',
  'evaluate',
  'inverse_time_decay',
  'load_network',
  'mimic',
  'open_or_build_cohort',
  'plan_patient',
  'pretrained',
  'project',
  'simulate_patient',
  'squared_error',
  'train',
  'validate_cohort',
]


# Kept from type checkers, to which any name would seem to be there.
if not TYPE_CHECKING:

  def __getattr__(name: str) -> Any:
    if name in ('config', 'errors'):
      return importlib.import_module(f'{__name__}.{name}')
    if name not in _MODULES:
      raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module = importlib.import_module(f'{__name__}.{_MODULES[name]}')
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
  return [*__all__, '__version__']
