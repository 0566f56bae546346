"""An organ and a tumour site that the package does not know.

They are added as a user adds them: by a configuration, files and own Python.
"""

import json

import nibabel
import numpy as np
import pytest

from dvhflax import config as config_lib
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.validate import validate_cohort
from dvhflax.patient import Structure
from dvhflax.sites import Oar, Protocol, Site
from dvhflax.sources.anatomy import sample_anatomy
from dvhflax.sources.build import build_cohort
from dvhflax.sources.simulated import Simulated
from dvhflax.training.train import train

GRID, SPACING_MM = (16, 16, 8), (24.0, 16.0, 16.0)


def tiny(path):
  config = config_lib.default()
  config.cohort.path = str(path)
  config.cohort.patients = 3
  config.cohort.plans = 2
  config.cohort.grid = GRID
  config.cohort.spacing_mm = SPACING_MM
  config.cohort.validation_patients = config.cohort.test_patients = 1
  config.cohort.dvh_points = 8
  config.planning.beams = 3
  config.planning.beamlet_mm = 20.0
  config.planning.gap = 0.5
  return config


def test_an_organ(tmp_path):
  """Contoured under a name of the clinic's own, spared and in the cohort."""
  for i in range(3):
    folder = tmp_path / 'in' / f'p{i}'
    folder.mkdir(parents=True)
    # The same in all: the planner compiles once.
    masks = sample_anatomy(np.random.default_rng(0), GRID, SPACING_MM).masks
    bundle = np.zeros(GRID, np.uint8)
    bundle[6:10, 9:11, 2:6] = 1
    masks = {
      'External': masks['body'],
      'PTV_78': masks['PTV'],
      'Rectum': masks['rectum'],
      'Blase': masks['bladder'],
      'NVB (both)': bundle,
    }
    # Axes to left, posterior, superior; NIfTI's are right, anterior.
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    for name, mask in masks.items():
      nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f'{name}.nii')
  names = tmp_path / 'names.json'
  names.write_text(json.dumps({'nerve_bundle': ['nvb.*']}))

  config = tiny(tmp_path / 'cohort')
  config.cohort.source, config.cohort.raw = 'nifti', str(tmp_path / 'in')
  config.cohort.names = str(names)
  config.cohort.structures = (*config.cohort.structures, 'nerve_bundle')
  config.planning.oars.nerve_bundle = {
    'threshold_gy': 40.0,
    'weights': (0.01, 0.1),
  }
  config_lib.validate(config)
  assert build_cohort(config) and not validate_cohort(config.cohort.path)

  cohort = Cohort.open(config.cohort.path)
  assert cohort.structures[-1] == Structure('nerve_bundle', 'oar')
  for p, record in enumerate(cohort.patients):
    assert record.present[-1] and cohort.masks(p)[..., -1].any()
    assert 'nerve_bundle' in record.provenance['protocol']['oars']
    # PTV, two for each of three OARs, body, roughness.
    assert np.shape(record.plan_weights) == (2, 9)


def chest(rng):
  """A tumour in the left lung of a cylinder, in one place: as above."""
  y_mm = rng.uniform(-30, -10)

  def ellipsoid(centre, half):
    def inside(x, y, z):
      return sum(((u - c) / h) ** 2 for u, c, h in zip((x, y, z), centre, half))

    return lambda *p: inside(*p) < 1

  tumour = ellipsoid((0, 0, 0), (40, 40, 32))
  lung = ellipsoid((40, 0, 0), (75, 75, 110))
  return {
    'body': lambda x, y, z: ((x / 170) ** 2 + (y / 115) ** 2 + 0 * z) < 1,
    'lung_left': lambda *p: lung(*p) & ~tumour(*p),
    'heart': ellipsoid((-60, y_mm, -10), (45, 40, 40)),
    'PTV': tumour,
  }


CHEST = Site(
  name='chest',
  structures=(
    Structure('body', 'body'),
    Structure('lung_left', 'oar'),
    Structure('heart', 'oar'),
    Structure('PTV', 'target'),
  ),
  organs=(),
  protocol=Protocol(
    name='chest, 3 beams',
    beams=3,
    targets={'PTV': 60.0},
    oars={
      'lung_left': Oar(20.0, (5e-3, 0.05)),
      'heart': Oar(30.0, (5e-3, 0.05)),
    },
    beamlet_mm=20.0,
    gap=0.5,
  ),
  shapes=chest,
)


@pytest.mark.slow
def test_a_site(tmp_path):
  """Simulated, planned after its own protocol, and trained on."""
  config = tiny(tmp_path / 'cohort')
  config.cohort.structures = tuple(s.name for s in CHEST.structures)
  config.planning = CHEST.protocol.to_dict()
  config.batch_size = 1
  config.max_steps = 2
  config.model.base_channels = 2
  config.model.max_channels = 4
  config.model.norm = 'group'
  config.model.remat = False
  config.data.validation_wishes = 1
  config_lib.validate(config)
  assert build_cohort(config, source=Simulated(config, CHEST))
  assert not validate_cohort(config.cohort.path)

  cohort = Cohort.open(config.cohort.path)
  assert cohort.structures == CHEST.structures
  assert {p.prescription_gy for p in cohort.patients} == {60.0}
  heart = cohort.masks(0)[..., 2] > 0
  target = cohort.masks(0)[..., 3] > 0
  for dose in cohort.doses(0):
    assert dose[heart].mean() < 0.5 * dose[target].mean()
  train(config, cohort, str(tmp_path / 'run'))
  assert (tmp_path / 'run' / 'checkpoints' / '2').is_dir()
