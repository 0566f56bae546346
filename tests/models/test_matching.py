"""The matched dose, its ranks, its prior, and voxels as channels."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from dvhflax.dvh import DVHSpec, dvh_vectors
from dvhflax.models import matching, patches, prior

GRID = (16, 12, 8)
SPECS = [DVHSpec('volume_at_dose', 48, 1.2), DVHSpec('dose_at_volume', 48)]


@pytest.fixture
def masks():
  """A body, an organ that a target overlaps, the target, and none."""
  x, y, z = np.meshgrid(*map(np.arange, GRID), indexing='ij')
  body = (x - 8) ** 2 / 60 + (y - 6) ** 2 / 30 < 1
  organ = (abs(x - 8) < 4) & (abs(y - 3) < 3) & (z > 1)
  target = (abs(x - 8) < 3) & (abs(y - 6) < 3) & (z > 2)
  return np.stack([body, organ, target, np.zeros(GRID, bool)], -1).astype('u1')


def matched(dvh, spec, prior_dose, masks):
  place = matching.places(
    jnp.asarray(prior_dose)[None], jnp.asarray(masks)[None], (0, 1, 2, 3)
  )
  table = matching.doses_of_ranks(jnp.asarray(dvh)[None], spec)
  return np.asarray(matching.matched_dose(place, table))[0]


@pytest.mark.parametrize('spec', SPECS, ids=lambda spec: spec.kind)
def test_it_has_the_desired_dvh(masks, spec):
  rng = np.random.default_rng(0)
  dose = rng.gamma(4, 0.12, GRID).astype(np.float32).clip(0, 1.15)
  wished = dvh_vectors(dose, masks, spec)
  # Ranked by the dose itself, or by anything else.
  for order in (dose, rng.random(GRID, np.float32)):
    found = dvh_vectors(matched(wished, spec, order, masks), masks, spec)
    # Of the target all voxels have its own curve.
    np.testing.assert_allclose(found[2], wished[2], atol=0.06)
    assert np.abs(found[2] - wished[2]).mean() < 0.01
  again = matched(wished, spec, dose, masks)
  inside = masks.any(-1)
  assert np.abs(again - dose)[inside].mean() < 0.01


def test_later_structures_decide_and_ranks_are_of_whole_ones(masks):
  spec = SPECS[0]
  flat = (spec.levels[None] <= np.array([0.2, 0.4, 0.8, 0.6])[:, None]) * 1.0
  found = matched(flat.astype('f4'), spec, np.ones(GRID, 'f4'), masks)
  step = spec.levels[1]
  wanted = np.select(
    [masks[..., 2] > 0, masks[..., 1] > 0, masks[..., 0] > 0], [0.8, 0.4, 0.2]
  )
  assert (found[~masks.any(-1)] == 0).all()
  inside = masks.any(-1)
  np.testing.assert_allclose(found[inside], wanted[inside], atol=step)


def test_less_is_never_more(masks):
  spec, rng = SPECS[0], np.random.default_rng(1)
  order = rng.random(GRID, np.float32)
  dose = rng.gamma(4, 0.12, GRID).astype(np.float32)
  wished = dvh_vectors(dose, masks, spec)
  less = dvh_vectors(0.8 * dose, masks, spec)
  assert (matched(less, spec, order, masks)
          <= matched(wished, spec, order, masks) + 1e-6).all()  # fmt: skip


def test_ranks_are_those_of_a_sort(masks):
  order = np.random.default_rng(2).normal(size=GRID).astype('f4')
  place = matching.places(
    jnp.asarray(order)[None], jnp.asarray(masks)[None], (0, 1, 2, 3)
  )
  place = np.asarray(place)[0]
  target = masks[..., 2] > 0
  descending = np.argsort(np.argsort(-order[target]))
  rank = (descending + 0.5) / target.sum()
  found = (place[target] - 2 * matching.RANKS + 0.5) / matching.RANKS
  # Values in one bin share a rank.
  assert np.abs(found - rank).max() < 1.5 / target.sum()
  assert (place[~masks.any(-1)] == 4 * matching.RANKS).all()


def test_a_prior_without_differences_gives_all_the_median(masks):
  spec = SPECS[0]
  wished = dvh_vectors(
    np.random.default_rng(3).random(GRID).astype('f4'), masks, spec
  )
  found = matched(wished, spec, np.ones(GRID, 'f4'), masks)
  median = np.interp(-0.5, -wished[2], spec.levels)
  np.testing.assert_allclose(found[masks[..., 2] > 0], median, atol=0.01)


def test_blur_is_that_of_scipy():
  x = np.zeros((1, 24, 20, 16), 'f4')
  x[0, 9:14, 8:12, 7:9] = 1
  spacing_mm = (2.0, 3.0, 4.0)
  found = prior.blurred(jnp.asarray(x), jnp.asarray([spacing_mm]), 6.0)
  wanted = ndimage.gaussian_filter(
    x[0].astype(float),
    [6 / mm for mm in spacing_mm],
    mode='constant',
    truncate=8,
  )
  # scipy's weights add up to 1 over all of space, these over the grid, for the
  # voxel in its middle.
  for voxels, mm in zip(x.shape[1:], spacing_mm):
    apart = np.arange(-200, 201) * mm
    weights = np.exp(-0.5 * (apart / 6) ** 2)
    middle = voxels // 2
    wanted *= (
      weights.sum() / weights[200 - middle : 200 - middle + voxels].sum()
    )
  np.testing.assert_allclose(found[0], wanted, atol=1e-6)


@pytest.mark.parametrize('patch', [1, 2, 4])
def test_voxels_become_channels_and_return(patch):
  rng = np.random.default_rng(4)
  x = rng.random((2, 8, 4, 12, 3)).astype('f4')
  cells = patches.space_to_depth(jnp.asarray(x), patch)
  assert cells.shape == (2, 8 // patch, 4 // patch, 12 // patch, 3 * patch**3)
  np.testing.assert_array_equal(patches.depth_to_space(cells, patch), x)
  # A cell's channels are its own voxels.
  np.testing.assert_array_equal(
    np.asarray(cells)[1, 1, 0, 2].reshape(patch, patch, patch, 3),
    x[1, patch : 2 * patch, :patch, 2 * patch : 3 * patch],
  )
  window = (patch, patch, patch)
  np.testing.assert_allclose(
    patches.mean_pool(jnp.asarray(x), window)[0, 0, 0, 0],
    x[0, :patch, :patch, :patch].mean((0, 1, 2)),
    rtol=1e-6,
  )
