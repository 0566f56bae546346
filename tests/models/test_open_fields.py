"""Open fields: where the beams go, and how they fall off."""

import dataclasses
import functools

from conftest import make_config, make_patient, write_cohort
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.evaluation import export, predictors
from dvhflax.models import build
from dvhflax.models.open_fields import (
  ATTENUATION_PER_MM,
  SAD_MM,
  open_field_dose,
  open_field_dose_each,
)
from dvhflax.models.unet import UNet
from dvhflax.training import feed
from dvhflax.training import runs as networks
from dvhflax.training.runs import data_item
from dvhflax.training.sampler import Sampler

GRID, SPACING = (33, 33, 9), (5.0, 5.0, 6.0)


def dose(beams, centre=(16, 16, 4)):
  target = np.zeros((1, *GRID), np.uint8)
  x, y, z = centre
  target[0, x - 2 : x + 3, y - 2 : y + 3, z - 1 : z + 2] = 1
  return np.asarray(open_field_dose(jnp.asarray(target), SPACING, beams))[0]


def test_one_beam_enters_from_the_front_and_falls_off():
  field = dose(1)
  assert field[16, 16, 4] == pytest.approx(1)
  # Anterior is where y is small.
  along = (np.arange(33) - 16) * 5.0
  expected = (
    np.exp(-ATTENUATION_PER_MM * along) * (SAD_MM / (SAD_MM + along)) ** 2
  )
  np.testing.assert_allclose(field[16, :, 4], expected, rtol=1e-5)
  # Beside, and above the margin of a voxel, there is nothing.
  assert (field[:10] == 0).all() and (field[:, :, :2] == 0).all()


def test_fields_cover_the_target_and_turn_with_the_beams():
  field = dose(7)
  assert field[14:19, 14:19, 3:6].min() > 0.9
  # Mirrored beams: the same on the left and on the right.
  np.testing.assert_allclose(field, field[::-1], atol=1e-5)
  # Seven beams face no other: each leaves between two that enter, weaker.
  assert 0 < field[16, 31, 4] < field[16, 1, 4]


def test_fields_follow_the_target():
  moved = dose(7, centre=(20, 12, 5))
  assert moved[18:23, 10:15, 4:7].min() > 0.8
  assert moved[:, :, :3].max() == 0


def test_nothing_to_treat():
  empty = jnp.zeros((2, *GRID))
  assert not np.asarray(open_field_dose(empty, SPACING, 7)).any()


SIZES = ((5.0, 5.0, 6.0), (2.7, 4.1, 2.5), (3.0, 9.5, 2.0))


@pytest.mark.parametrize('beams', [1, 7])
def test_each_patient_on_voxels_of_its_own(beams):
  rng = np.random.default_rng(0)
  target = np.zeros((3, *GRID), np.uint8)
  target[:, 12:20, 14:18, 3:6] = rng.random((3, 8, 4, 3)) < 0.7
  each = open_field_dose_each(jnp.asarray(target), jnp.asarray(SIZES), beams)
  # The last one's bins are wider, so that its long columns find a place.
  for one, size, dose_of_one in list(zip(target, SIZES, each))[:2]:
    alone = open_field_dose(jnp.asarray(one[None]), size, beams)[0]
    np.testing.assert_allclose(dose_of_one, alone, atol=1e-5)
  assert np.isfinite(each).all() and float(each[2].max()) > 0.8


def with_sizes(tmp_path, sizes):
  """A cohort of one anatomy on voxels of these sizes, and its run's config."""
  patients = [
    dataclasses.replace(
      make_patient(0), id=f'p{i}', spacing_mm=sizes[i % len(sizes)]
    )
    for i in range(6)
  ]
  splits = ['train'] * 4 + ['validation', 'test']
  write_cohort(tmp_path / 'cohort', patients, splits)
  config = make_config(str(tmp_path / 'cohort'))
  config.model.beams = 3
  config.model.base_channels = 2
  return Cohort.open(str(tmp_path / 'cohort')), config


@functools.partial(jax.jit, static_argnums=0)
def applied(model, *args):
  return model.apply(*args, train=False)


@pytest.mark.slow
def test_a_network_sees_the_voxels_of_each_patient(tmp_path):
  """In training, evaluation and prediction alike."""
  sizes = ((3.0, 3.0, 5.0), (9.0, 9.0, 5.0))
  cohort, config = with_sizes(tmp_path, sizes)
  data = data_item(cohort)
  model = build.build_unet(config, data)
  begin = functools.partial(build.initial_variables, model)
  variables = jax.jit(begin)(jax.random.key(0))
  # The dose's layer begins at 0.
  variables['params']['dose']['kernel'] += 1.0
  masks = cohort.masks(0)
  wish = cohort.dvh[0, :1]
  alone = {}
  for size in sizes:
    fixed = model.clone(spacing_mm=size, own_spacing=False)
    alone[size] = applied(fixed, variables, masks[None], wish)[0]
  a, b = alone.values()
  assert np.abs(a - b).max() > 1e-2 * np.abs(a).max()

  sampler = Sampler(cohort, 'train', seed=0, own_wish_share=1.0)
  draw = sampler.draw(0, 4)
  predict = predictors.make_predict(model, variables, 2)
  for placement in ('device', 'memory', 'store'):
    source = feed.Source(cohort, sampler.patients, placement)
    batch = feed.unpack(source.cohort, source.batch(sampler, draw))
    np.testing.assert_array_equal(
      batch['spacing_mm'], np.float32([sizes[p % 2] for p in draw.patients])
    )
  wishes = wish.repeat(4, 0)
  fed = applied(model, variables, batch['masks'], wishes, batch['spacing_mm'])
  network = networks.Network(
    *build.halves(model), mean_dvh=None, identity={}, own_spacing=True
  )
  tolerance = {'atol': 1e-5 * np.abs(a).max()}
  for row, p in enumerate(draw.patients):
    wanted = alone[sizes[p % 2]]
    np.testing.assert_allclose(fed[row], wanted, **tolerance)
    (dose,) = predictors.for_patient(predict, cohort, int(p))(masks, wish)
    np.testing.assert_allclose(dose, wanted, **tolerance)
    encode = functools.partial(network.encode, variables)
    ours = dataclasses.replace(network, encode=encode)
    features = ours.features(masks, cohort.patients[p].spacing_mm)
    dose = network.decode(variables, features, wish)[0]
    np.testing.assert_allclose(dose, wanted, **tolerance)
  with pytest.raises(ValueError, match='voxel size of each'):
    model.apply(variables, masks[None], wish, train=False)


def test_voxels_of_one_size_change_nothing(tmp_path):
  cohort, config = with_sizes(tmp_path, ((3.0, 3.0, 5.0), (3.001, 3.0, 5.0)))
  data = data_item(cohort)
  assert 'own_spacing' not in data
  assert not build.build_unet(config, data).own_spacing
  assert feed.Source(cohort, cohort.split('train'), 'store')._spacings is None


def test_a_run_that_began_on_the_median_keeps_to_it(tmp_path):
  cohort, _ = with_sizes(tmp_path, SIZES)
  before = data_item(cohort)
  assert data_item(cohort, before)['own_spacing']
  del before['own_spacing']
  assert 'own_spacing' not in data_item(cohort, before)


def test_a_file_is_for_one_voxel_size():
  model = UNet(GRID, (3, 5), beams=3, targets=(2,), own_spacing=True)
  with pytest.raises(errors.UserError, match='say which, --spacing_mm=1,1,1'):
    export.on_voxels(model, None)
  with pytest.raises(errors.UserError, match='three positive'):
    export.on_voxels(model, [3.0, float('nan'), 3.0])
  one = export.on_voxels(model, [3.0, 4.0, 5.0])
  assert one.spacing_mm == (3.0, 4.0, 5.0) and not one.own_spacing
  with pytest.raises(errors.UserError, match='leave it out'):
    export.on_voxels(one, [3.0, 4.0, 5.0])
