"""Dx, Vx, mean and maximum of doses and of curves, against closed forms."""

import numpy as np
import pytest

from dvhflax import dose_volume
from dvhflax.dose_volume import Curve, Ranked, Voxels
from dvhflax.dvh import DVHSpec, dvh_vectors


def test_a_gradient_has_a_straight_curve():
  dose = np.linspace(0, 1, 10001)
  levels = np.linspace(0, 1, 11)
  curve = dose_volume.volume_fraction_at_dose(dose, levels)
  np.testing.assert_allclose(curve, 1 - levels, atol=2e-4)
  assert Voxels(dose).volume_percent_at_dose(0.7) == pytest.approx(30, abs=0.02)
  assert Voxels(dose).dose_at_volume_percent(95) == pytest.approx(0.05)
  np.testing.assert_allclose(
    dose_volume.dose_at_volume_fraction(dose, [1.0, 0.95, 0.0]), [0, 0.05, 1]
  )
  assert Voxels(dose).mean_dose == pytest.approx(0.5)
  assert Voxels(dose).max_dose == 1


def test_a_level_is_reached_by_an_equal_dose():
  np.testing.assert_array_equal(
    dose_volume.volume_fraction_at_dose(
      np.array([1.0, 0.5]), np.array([0.5, 1.0, 1.1])
    ),
    [1.0, 0.5, 0.0],
  )


def test_several_plans_at_once():
  dose = np.stack([np.linspace(0, top, 101) for top in (1.0, 2.0)])
  np.testing.assert_allclose(
    dose_volume.dose_at_volume_fraction(dose, 0.05), [0.95, 1.9]
  )


@pytest.mark.parametrize('percent', [-1, 101, np.nan])
def test_what_is_no_volume_is_refused(percent):
  with pytest.raises(ValueError, match='volume fraction'):
    Voxels(np.ones(3)).dose_at_volume_percent(percent)
  with pytest.raises(ValueError, match='no voxel'):
    float(Voxels(np.ones(0)).mean_dose)
  with pytest.raises(ValueError, match='no voxel'):
    Voxels(np.ones(0)).volume_percent_at_dose(1.0)


def test_a_curve_is_read_as_the_dose_that_it_is_of():
  """At many levels a curve tells what its voxels tell."""
  rng = np.random.default_rng(0)
  dose = rng.gamma(9, 0.08, (20, 20, 5)).astype(np.float32)
  masks = np.ones((*dose.shape, 1), np.uint8)
  for kind in ('volume_at_dose', 'dose_at_volume'):
    spec = DVHSpec(kind, 2001, 3.0)
    curve = spec.curve(dvh_vectors(dose, masks, spec)[0])
    voxels = Voxels(dose.ravel())
    assert curve.mean_dose == pytest.approx(voxels.mean_dose, rel=2e-3)
    assert curve.max_dose == pytest.approx(voxels.max_dose, abs=2e-3)
    for percent in (98, 95, 50, 2):
      assert curve.dose_at_volume_percent(percent) == pytest.approx(
        voxels.dose_at_volume_percent(percent), abs=4e-3
      )
    for level in (0.3, 0.7, 1.1):
      assert curve.volume_percent_at_dose(level) == pytest.approx(
        voxels.volume_percent_at_dose(level), abs=0.2
      )


def test_the_ends_of_a_curve():
  curve = Curve(np.array([0.2, 0.4, 1.0]), np.array([1.0, 0.5, 0.0]))
  assert curve.volume_percent_at_dose(0.1) == 100
  assert curve.volume_percent_at_dose(1.1) == 0
  assert curve.mean_dose == pytest.approx(0.2 + 0.15 + 0.15)
  assert curve.max_dose == 1.0


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_ranked_voxels_are_read_to_the_same_bit(dtype):
  rng = np.random.default_rng(0)
  for number in (1, 2, 3, 50, 4097):
    for dose in (
      rng.normal(0.5, 0.4, number),
      rng.integers(0, 5, number) / 5,  # ties, and levels that are doses
      np.full(number, 0.3),
    ):
      dose = dose.astype(dtype)
      plain, ranked = Voxels(dose), Ranked.of(dose)
      assert ranked.mean_dose == plain.mean_dose
      assert ranked.max_dose == plain.max_dose
      levels = np.linspace(-0.2, 1.2, 36)
      for some in (levels, levels.astype(np.float32), 0.4, np.float32(0.4), 1):
        np.testing.assert_array_equal(
          ranked.volume_fraction_at_dose(some),
          plain.volume_fraction_at_dose(some),
        )
      shares = rng.random(40)
      for share in (shares, shares.astype(np.float32), 0, 0.02, 0.5, 1.0):
        np.testing.assert_array_equal(
          ranked.dose_at_volume_fraction(share),
          plain.dose_at_volume_fraction(share),
        )
      for percent in (0, 2, 33.3, 95, 98, 100):
        assert ranked.dose_at_volume_percent(
          percent
        ) == plain.dose_at_volume_percent(percent)


def test_ranked_voxels_have_the_same_errors():
  with pytest.raises(ValueError, match='no voxel'):
    Ranked.of(np.zeros(0))
  with pytest.raises(ValueError, match=r'\[0, 1\]'):
    Ranked.of(np.ones(3)).dose_at_volume_fraction(1.1)
  # A dose that is not a number is none of a rank.
  faulty = Ranked.of(np.array([0.1, np.nan, 0.2]))
  assert np.isnan(faulty.dose_at_volume_fraction(0.5))
  assert np.isnan(faulty.max_dose)
