"""Plan metrics against closed forms."""

import numpy as np
import pytest

from dvhflax import metrics
from dvhflax.dose_volume import Voxels


def test_metrics_of_a_gradient():
  dose = np.linspace(0, 1, 1001)
  assert metrics.homogeneity_index(Voxels(dose)) == pytest.approx(0.96 / 0.5)
  assert metrics.homogeneity_index(Voxels(np.ones(9))) == 0


def test_dose_errors_are_true_minus_predicted_in_percent():
  masks = np.zeros((2, 2, 1, 2), np.uint8)
  masks[0, ..., 0] = 1
  true, predicted = np.zeros((2, 2, 1)), np.zeros((2, 2, 1))
  true[0, 0], predicted[0, 1] = 0.5, 0.2
  mean, maximum = metrics.dose_errors(
    true, predicted, masks, np.array([True, False])
  )
  np.testing.assert_allclose(mean[0], 100 * (0.25 - 0.1))
  np.testing.assert_allclose(maximum[0], 30)
  assert np.isnan(mean[1]) and np.isnan(maximum[1])


def test_distances_between_dvhs():
  desired = np.zeros((2, 3))
  plans = np.stack([np.full((2, 3), v) for v in (0.5, 0.1, 0.0)])
  present = np.array([True, True])
  assert metrics.dvh_fidelity(desired, plans[0], present) == 0.5
