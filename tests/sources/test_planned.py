"""Planning the patients of a store."""

import numpy as np
import pytest

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.cohort.validate import validate_cohort
from dvhflax.cohort.writer import CohortWriter
from dvhflax.normalisation import Normalisation
from dvhflax.patient import Patient
from dvhflax.planning.trade_offs import TradeOffs
from dvhflax.sites.prostate import STRUCTURES
from dvhflax.sources.anatomy import sample_anatomy
from dvhflax.sources.build import build_cohort


def configure(path, **fields):
  config = config_lib.default()
  config.cohort.path = str(path)
  config.cohort.patients = 3
  config.cohort.validation_patients = config.cohort.test_patients = 1
  config.cohort.grid = (32, 32, 16)
  config.cohort.spacing_mm = (15.0, 10.0, 12.0)
  config.cohort.plans = 2
  config.planning.beamlet_mm = 10.0
  config.planning.gap = 0.5
  config.cohort.update(fields)
  config_lib.validate(config)
  return config


@pytest.fixture(scope='module')
def simulated(tmp_path_factory):
  """A store that says its plans are of the configuration's protocol."""
  path = tmp_path_factory.mktemp('planned') / 'simulated'
  config = configure(path)
  protocol = config_lib.protocol(config)
  writer = CohortWriter(
    str(path),
    structures=STRUCTURES,
    grid=(32, 32, 16),
    dvh=config_lib.dvh_spec(config),
    max_plans=2,
    patient_ids=['a', 'b', 'c'],
    splits=['train', 'validation', 'test'],
    provenance={},
    normalisation=Normalisation('target_mean'),
  )
  for index, name in enumerate('abc'):
    rng = np.random.default_rng(index)
    anatomy = sample_anatomy(rng, (32, 32, 16), (15.0, 10.0, 12.0))
    masks = np.stack([anatomy.masks[s.name] for s in STRUCTURES], -1)
    dose = rng.random((2, 32, 32, 16), np.float32) * masks[..., 0]
    mean = dose[:, masks[..., 3] > 0].mean(1)
    trade_offs = TradeOffs.of(protocol, list(anatomy.masks))
    patient = Patient(
      id=name,
      masks=masks,
      present=np.ones(4, bool),
      spacing_mm=anatomy.spacing_mm,
      dose=dose / mean[:, None, None, None],
      reference_gy=78 * mean,
      prescription_gy=78.0,
      plan_weights=trade_offs.weights(trade_offs.anchors()[:2]),
      provenance={'protocol': protocol.to_dict(), 'gap': [0.1, 0.2]},
    )
    writer.write(index, patient)
  assert writer.finish()
  return path


@pytest.mark.slow
def test_plans_are_added_to_those_of_the_protocol(simulated, tmp_path):
  options = {'source': 'store', 'raw': str(simulated), 'plans': 1}
  config = configure(tmp_path / 'more', **options)
  for shard in range(2):
    assert build_cohort(config, (shard, 2)) == (shard == 1)
  old, new = Cohort.open(str(simulated)), Cohort.open(config.cohort.path)
  assert not validate_cohort(config.cohort.path)
  for p, record in enumerate(new.patients):
    assert record.split == old.patients[p].split and record.plans == 3
    assert len(record.provenance['gap']) == 3
    assert len(np.unique(np.round(record.plan_weights, 9), axis=0)) == 3
    np.testing.assert_array_equal(new.doses(p)[:2], old.doses(p))
    # Fractions of each plan's target mean, the new one's too.
    target = new.masks(p)[..., 3] > 0
    mean = new.doses(p)[:, target].mean(1)
    np.testing.assert_allclose(mean, 1, atol=2e-3)


@pytest.mark.slow
def test_plans_of_another_protocol_are_not_mixed(simulated, tmp_path):
  options = {'source': 'store', 'raw': str(simulated), 'plans': 1}
  config = configure(tmp_path / 'other', **options)
  config.planning.beams = 5
  with pytest.raises(errors.CohortError, match='replace_plans'):
    build_cohort(config)
  # The half-built store is of these settings.
  config.cohort.replace_plans = True
  with pytest.raises(errors.CohortError, match='begun with another'):
    build_cohort(config)
  config.cohort.path = str(tmp_path / 'replaced')
  assert build_cohort(config)
  cohort = Cohort.open(config.cohort.path)
  assert {p.plans for p in cohort.patients} == {1}
  assert cohort.patients[0].provenance['protocol']['beams'] == 5


@pytest.mark.parametrize(
  'change, match',
  [
    ({'plans': 0}, 'how many plans'),
    ({'raw': None}, 'cohort.raw is not set'),
    ({'grid': (64, 64, 32)}, 'they must agree'),
  ],
)
def test_impossible_requests(simulated, tmp_path, change, match):
  options = {'source': 'store', 'raw': str(simulated), **change}
  with pytest.raises(errors.UserError, match=match):
    build_cohort(configure(tmp_path / 'none', **options))


def test_structures_of_the_protocol_must_be_there(simulated, tmp_path):
  config = configure(tmp_path / 'none', source='store', raw=str(simulated))
  config.planning.oars = {
    'bowel': {'threshold_gy': 30.0, 'weights': (0.01, 0.1), 'mean_share': 0.2}
  }
  with pytest.raises(errors.ConfigError, match='bowel'):
    build_cohort(config)


def test_a_patient_who_cannot_be_planned_is_named(simulated, tmp_path):
  config = configure(tmp_path / 'none', source='store', raw=str(simulated))
  config.cohort.replace_plans = True
  config.planning.most_iterations, config.planning.gap = 40, 1e-9
  with pytest.raises(errors.PlanningError, match='patient a: after 40'):
    build_cohort(config)


@pytest.mark.slow
def test_contours_alone_are_planned(tmp_path):
  """NIfTI masks, no dose: a user without a planning system."""
  nibabel = pytest.importorskip('nibabel')
  spacing = (15.0, 10.0, 12.0)
  for index in range(3):
    rng = np.random.default_rng(index)
    anatomy = sample_anatomy(rng, (32, 32, 16), spacing)
    folder = tmp_path / 'in' / f'p{index}'
    folder.mkdir(parents=True)
    for name in ('body', 'PTV', 'rectum', 'bladder'):
      # Axes to left, posterior, superior; NIfTI's are right, anterior.
      affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
      image = nibabel.Nifti1Image(anatomy.masks[name], affine)
      nibabel.save(image, folder / f'{name}.nii.gz')
  config = configure(
    tmp_path / 'planned', source='nifti', raw=str(tmp_path / 'in'), plans=2
  )
  config.cohort.normalisation = 'prescription'
  assert build_cohort(config)
  cohort = Cohort.open(config.cohort.path)
  assert not validate_cohort(config.cohort.path)
  for p, record in enumerate(cohort.patients):
    assert record.plans == 2 and record.reference_gy == (78.0, 78.0)
    target = cohort.masks(p)[..., 3] > 0
    d95 = np.quantile(cohort.doses(p)[:, target], 0.05, axis=1)
    np.testing.assert_allclose(d95, 1, atol=2e-3)
