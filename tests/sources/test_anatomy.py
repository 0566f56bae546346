"""Simulated anatomies: shapes and sizes."""

import numpy as np
import pytest
from scipy import ndimage

from dvhflax.sources.anatomy import sample_anatomy

GRID, SPACING = (64, 64, 32), (7.5, 5.0, 6.0)
ORGANS = (
  'prostate', 'bladder', 'rectum', 'femoral_head_left', 'femoral_head_right'
)  # fmt: skip


def draw(index, grid=GRID, spacing=SPACING):
  return sample_anatomy(np.random.default_rng([0, index]), grid, spacing)


@pytest.mark.parametrize('index', range(6))
def test_anatomy_is_sound(index):
  masks = draw(index).masks
  assert sum(masks[name].astype(int) for name in ORGANS).max() == 1
  cc = {k: v.sum() * np.prod(SPACING) / 1000 for k, v in masks.items()}
  assert 75 < cc['PTV'] < 335
  assert 30 < cc['rectum'] < 125 and 75 < cc['bladder'] < 620
  for name, mask in masks.items():
    assert (mask <= masks['body']).all(), name
  for name in ('PTV', 'rectum', 'prostate'):
    assert ndimage.label(masks[name], np.ones((3, 3, 3)))[1] == 1, name
  overlap = (masks['PTV'] & masks['rectum']).sum() / masks['rectum'].sum()
  assert 0 < overlap < 0.2


def test_anatomy_does_not_depend_on_the_grid():
  fine = draw(3, (128, 128, 64), (3.75, 2.5, 3.0)).masks
  for name, coarse in draw(3).masks.items():
    ratio = coarse.sum() * 8 / fine[name].sum()
    assert ratio == pytest.approx(1, abs=0.12), name
