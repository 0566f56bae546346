"""The matched dose in a network: which DVH it has, what it keeps, mirrors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvhflax.dvh import DVHSpec, dvh_vectors
from dvhflax.models.build import initial_variables
from dvhflax.models.matching import RANKS
from dvhflax.models.unet import UNet

GRID, SPACING = (16, 16, 8), (2.0, 3.5, 5.0)
SPECS = [DVHSpec('volume_at_dose', 33, 1.2), DVHSpec('dose_at_volume', 33)]


def made(spec=SPECS[0], **fields):
  """A network of body, two organs and a target; its variables."""
  model = UNet(
    grid=GRID,
    dvh_shape=(4, spec.points),
    base_channels=2,
    max_channels=4,
    conditioning='matched',
    dvh=spec,
    norm='group',
    targets=(3,),
    body=0,
    spacing_mm=SPACING,
    **{'beams': 7, **fields},
  )
  begin = jax.jit(functools.partial(initial_variables, model))
  return model, begin(jax.random.key(0))


def boxes():
  """Four structures apart: none has a voxel of another."""
  masks = np.zeros((*GRID, 4), np.uint8)
  masks[:, :3, :, 0] = 1
  masks[1:8, 4:7, 1:6, 1] = 1
  masks[9:15, 4:8, :, 2] = 1
  masks[2:12, 9:12, 2:7, 3] = 1
  return masks


def plan(masks, seed=0):
  """A dose, and the DVH vectors that it has."""
  rng = np.random.default_rng(seed)
  dose = rng.gamma(5, 0.1, GRID).astype(np.float32).clip(0, 1.15)
  return dose, functools.partial(dvh_vectors, dose, masks)


def prepared(model, variables, masks):
  apply = jax.jit(functools.partial(model.apply, method=UNet.prepare))
  return apply(variables, masks[None])


def matched_dose(model, variables, masks, wish):
  """The dose under the network's own, and the usual one."""

  def of_way(net, masks, wish):
    once = net.prepare(masks)['ways'][0]
    return net.ways[0](wish, None, None, once).dose, once['usual']

  apply = jax.jit(functools.partial(model.apply, method=of_way))
  dose, usual = apply(variables, masks[None], jnp.asarray(wish)[None])
  return np.asarray(dose)[0], np.asarray(usual)[0]


@pytest.mark.parametrize('spec', SPECS, ids=lambda spec: spec.kind)
def test_structures_apart_get_the_dvh_of_a_plan(spec):
  masks = boxes()
  _, curves = plan(masks)
  wish = curves(spec)
  network = made(spec)
  dose, usual = matched_dose(*network, masks, wish)
  # The mean DVH is still one of zeros.
  assert not usual.any()
  found = dvh_vectors(dose, masks, spec)
  place = np.asarray(prepared(*network, masks)['ways'][0]['place'])[0]
  for s in range(4):
    # Ranks that are not told apart: of a bin of the prior, and of a voxel.
    _, equals = np.unique(place[masks[..., s] > 0], return_counts=True)
    off = (equals.max() + 1) / equals.sum() + 2 / RANKS
    if spec.kind == 'volume_at_dose':
      assert np.abs(found[s] - wish[s]).max() <= off
    else:
      volumes = spec.levels[::-1]
      more, less = (
        np.interp(spec.levels + shift, volumes, wish[s, ::-1])
        for shift in (-off, off)
      )
      assert (found[s] <= more + 1e-5).all()
      assert (found[s] >= less - 1e-5).all()
    assert off < 0.05


@pytest.mark.parametrize('prior', ['geometry', 'first_dose'])
def test_without_a_wish_a_structure_keeps_the_usual_dose(prior):
  masks = boxes()
  model, variables = made(prior=prior)
  variables = jax.tree.map(lambda x: x + 0.05, variables)
  mean = plan(masks, 1)[1](SPECS[0])
  variables['dvh_statistics']['mean'] = jnp.asarray(mean)
  wish = plan(masks)[1](SPECS[0])
  wish[[0, 2]] = 0
  dose, usual = matched_dose(model, variables, masks, wish)
  assert np.ptp(usual) > 0.01
  for s in (0, 2):
    inside = masks[..., s] > 0
    np.testing.assert_array_equal(dose[inside], usual[inside])
  for s in (1, 3):
    inside = masks[..., s] > 0
    assert np.abs(dose[inside] - usual[inside]).mean() > 0.01
  # An absent structure has no voxel to change.
  absent = masks.copy()
  absent[..., 1] = 0
  dose, usual = matched_dose(model, variables, absent, wish)
  inside, target = absent.any(-1), masks[..., 3] > 0
  assert (dose[~inside] == 0).all()
  assert (dose != usual)[target].any()
  np.testing.assert_array_equal(dose[inside & ~target], usual[inside & ~target])


@pytest.mark.parametrize('own_spacing', [False, True])
def test_a_mirrored_patient_has_the_mirrored_arrays(own_spacing):
  model, variables = made(own_spacing=own_spacing)
  variables['dvh_statistics']['mean'] = jnp.asarray(
    plan(boxes(), 1)[1](SPECS[0])
  )
  apply = jax.jit(functools.partial(model.apply, method=UNet.prepare))
  spacing_mm = np.array([SPACING], np.float32)
  whole, mirrored = (
    apply(variables, masks[None], spacing_mm)
    for masks in (boxes(), boxes()[::-1])
  )
  assert set(whole) == {'open_fields', 'ways'}
  flipped = jax.tree.map(lambda x: np.asarray(x)[:, ::-1], whole)
  fields, fields_of_mirrored = flipped['open_fields'], mirrored['open_fields']
  assert np.abs(fields - fields[:, ::-1]).max() > 0.1
  np.testing.assert_allclose(fields, fields_of_mirrored, atol=1e-5)
  (once,), (once_mirrored,) = flipped['ways'], mirrored['ways']
  apart = np.abs(once['place'].astype(int) - once_mirrored['place'])
  # Where a prior is at the border of two bins, rounding decides.
  assert np.mean(apart > 0) < 0.01
  usual_apart = np.abs(once['usual'] - once_mirrored['usual'])
  assert np.mean(usual_apart > 1e-6) < 0.01
