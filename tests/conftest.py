"""Shared fixtures: a tiny cohort whose doses follow from their weights."""

import fcntl
import os
import tempfile

import jax
import numpy as np
import pytest

from dvhflax.cohort.store import Cohort
from dvhflax.cohort.writer import CohortWriter
from dvhflax.dvh import DVHSpec
from dvhflax.normalisation import Normalisation
from dvhflax.patient import Patient, Structure

# Runs, their subprocesses and workers compile the same small networks again
# and again: once is enough, and they run for less time than it takes to
# compile them well.
_COMPILED = tempfile.TemporaryDirectory(prefix='dvhflax-compiled-')
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=1')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _COMPILED.name)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')
jax.config.update(
  'jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR']
)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)

GRID = (8, 8, 4)
SPEC = DVHSpec(points=16)
STRUCTURES = (
  Structure('body', 'body'),
  Structure('rectum', 'oar'),
  Structure('PTV', 'target'),
)


# What 95% of the target receive, in plans for a prescription of 78 Gy.
COVERED_GY = 80.0


def make_patient(
  index: int, plans: int = 3, lacking: tuple[int, ...] = ()
) -> Patient:
  """A box of a patient; later plans give the rectum less.

  Doses are fractions of the target's mean, 85 Gy and more; half of the target
  receives 80 Gy, the dose that all plans are scaled by. 78 Gy are prescribed.
  """
  rng = np.random.default_rng(index)
  masks = np.zeros((*GRID, len(STRUCTURES)), np.uint8)
  masks[1:7, 1:7, :, 0] = 1
  masks[2:6, 4:6, :, 1] = 1
  masks[2:6, 2:4, 1:3, 2] = 1
  masks[..., list(lacking)] = 0
  dose = 0.2 * masks[..., 0] * (1 + 0.2 * rng.random(GRID))
  doses = []
  reference_gy = 85.0 + 0.5 * np.arange(plans)
  for n in range(plans):
    share = 0.9 - 0.6 * (n + rng.random() / 2) / plans
    plan = np.where(masks[..., 1], share, dose)
    # Its mean is 1, and D95% the prescription.
    low = COVERED_GY / reference_gy[n]
    target = np.where(np.arange(GRID[2]) % 2, low, 2 - low)
    plan = np.where(masks[..., 2], target, plan)
    doses.append(plan)
  return Patient(
    id=f'p{index}',
    masks=masks,
    present=masks.any((0, 1, 2)),
    spacing_mm=(3.0, 3.0, 5.0),
    dose=np.array(doses, np.float32),
    reference_gy=reference_gy,
    prescription_gy=78.0,
    plan_weights=np.zeros((plans, 0)),
    provenance={},
  )


def write_cohort(path, patients, splits, provenance=None, ct=False) -> None:
  writer = make_writer(path, patients, splits, provenance, ct)
  for i, patient in enumerate(patients):
    writer.write(i, patient)
  assert writer.finish()


def make_writer(
  path, patients, splits, provenance=None, ct=False
) -> CohortWriter:
  return CohortWriter(
    str(path),
    structures=STRUCTURES,
    grid=GRID,
    dvh=SPEC,
    max_plans=max(len(p.dose) for p in patients),
    patient_ids=[p.id for p in patients],
    splits=splits,
    provenance=provenance or {'source': 'test'},
    ct=ct,
    normalisation=Normalisation('target_mean'),
  )


SPLITS = ['train'] * 5 + ['validation'] + ['test'] * 2


def make_tiny_cohort(path) -> str:
  """Eight patients; ragged plans, one without a rectum."""
  patients = [make_patient(i, plans=3 + i % 2) for i in range(8)]
  patients[1] = make_patient(1, plans=2, lacking=(1,))
  write_cohort(path, patients, SPLITS)
  return str(path)


@pytest.fixture(scope='session')
def once(tmp_path_factory):
  """Makes a folder, to read only, that all workers of a session share.

  It is called with the folder's name and a function of its path.
  """
  shared = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    shared = shared.parent

  def of(name, make) -> str:
    path, made = shared / name, shared / f'{name}.made'
    path.parent.mkdir(exist_ok=True)
    with open(shared / f'{name}.lock', 'w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not made.exists():
        make(str(path))
        made.touch()
    return str(path)

  return of


@pytest.fixture(scope='session')
def cohort_path(once) -> str:
  """The tiny cohort, to read only."""
  return once('cohort/tiny', make_tiny_cohort)


@pytest.fixture
def cohort(cohort_path) -> Cohort:
  return Cohort.open(cohort_path)


@pytest.fixture
def config(cohort_path):
  """A configuration that trains on the tiny cohort within seconds."""
  return make_config(cohort_path)


def make_config(cohort_path):
  from dvhflax import config as config_lib

  config = config_lib.default()
  config.epochs = 2
  config.batch_size = 4
  # Enough for the target's dose to tell what 1.0 stands for after 8 updates.
  config.optimizer.learning_rate = 0.03
  config.cohort.path = cohort_path
  config.cohort.grid = GRID
  config.cohort.dvh_points = SPEC.points
  config.model.base_channels = 4
  config.model.max_channels = 8
  config.model.dropout = 0.0
  config.model.norm = 'group'
  config.model.conditioning = 'film'
  config.model.standardise_dvh = True
  config.data.validation_wishes = 3
  config.evaluation.wishes = 4
  return config


def train_in(workdir, config) -> None:
  from dvhflax.training.train import train

  train(config, Cohort.open(config.cohort.path), workdir)


@pytest.fixture(scope='session')
def trained_run(cohort_path, once) -> str:
  """Workdir of a run of two epochs on the tiny cohort, to read only."""
  return once('runs/tiny', lambda w: train_in(w, make_config(cohort_path)))


@pytest.fixture(scope='session')
def anatomy_run(cohort_path, once) -> str:
  """The same of the anatomy-only network."""
  config = make_config(cohort_path)
  config.model.conditioning = 'none'
  return once('runs/anatomy', lambda w: train_in(w, config))


@pytest.fixture(scope='session')
def evaluation(trained_run, anatomy_run, once) -> str:
  """Folder of the run's evaluation beside it, and `printed`; to read only."""
  from dvhflax.evaluation.evaluate import evaluate

  def make(folder):
    text = evaluate(trained_run, anatomy_workdir=anatomy_run, output=folder)
    with open(os.path.join(folder, 'printed'), 'w') as file:
      file.write(text)

  return once('runs/evaluation', make)


def make_matched_config(cohort_path):
  """Of a network with an anatomy-only one within."""
  config = make_config(cohort_path)
  config.model.conditioning = 'matched'
  config.model.prior = 'first_dose'
  config.model.patch = 2
  config.model.beams = 3
  config.data.mirrored_share = 0.5
  config.first_dose.max_steps = 4
  config.max_steps = 4
  return config


@pytest.fixture(scope='session')
def matched_run(cohort_path, once) -> str:
  """Workdir of such a network's run, to read only."""
  config = make_matched_config(cohort_path)
  return once('runs/matched', lambda w: train_in(w, config))
