"""Equations (5), (6), (7) against their numbers."""

import jax
import numpy as np
import pytest

from dvhflax import losses, schedules


def test_learning_rate_halves_after_500_updates():
  schedule = schedules.inverse_time_decay(1e-3, 0.002)
  np.testing.assert_allclose(
    [schedule(0), schedule(500), schedule(77000)],
    [1e-3, 5e-4, 1e-3 / 155],
    rtol=1e-6,
  )


def test_dropout_grows_to_its_initial_rate():
  rates = [schedules.dropout_rate(level, 7, 0.2) for level in range(1, 9)]
  assert rates == pytest.approx([0.2 * k / 7 for k in range(1, 8)] + [0.2])


def test_squared_error_is_per_sample():
  dose = np.zeros((2, 2, 2, 1), np.float16)
  predicted = np.zeros((2, 2, 2, 1), np.float32)
  predicted[1, 0] = 2
  np.testing.assert_allclose(losses.squared_error(predicted, dose), [0, 2])


def test_structure_error_counts_structures_alike_and_skips_empty_ones():
  predicted = np.zeros((1, 2, 2, 1))
  dose = np.array([[[[3.0], [1.0]], [[1.0], [2.0]]]])
  masks = np.zeros((1, 2, 2, 1, 3))
  masks[0, 0, 0, 0, 0] = 1  # error 9
  masks[0, 1, :, 0, 1] = 1  # mean of 1 and 4
  expected = (9 + 2.5) / 2
  np.testing.assert_allclose(
    losses.structure_squared_error(predicted, dose, masks), [expected]
  )


def test_mean_dose_error_lets_opposite_errors_cancel():
  predicted = np.zeros((1, 2, 2, 1))
  dose = np.array([[[[3.0], [-1.0]], [[1.0], [2.0]]]])
  masks = np.zeros((1, 2, 2, 1, 3))
  masks[0, 0, :, 0, 0] = 1  # mean of 3 and -1
  masks[0, 1, :, 0, 1] = 1  # mean of 1 and 2
  np.testing.assert_allclose(
    losses.mean_dose_squared_error(predicted, dose, masks),
    [(1**2 + 1.5**2) / 2],
  )


def test_dose_loss_weighs_its_terms():
  rng = np.random.default_rng(0)
  predicted, dose = rng.random((2, 2, 4, 4, 4))
  masks = rng.random((2, 4, 4, 4, 3)) < 0.5
  terms = [
    term(predicted, dose, masks)
    for term in (
      losses.structure_squared_error,
      losses.mean_dose_squared_error,
    )
  ]
  loss = losses.dose_loss(
    predicted, dose, masks, structure_weight=0.5, mean_dose_weight=3
  )
  voxel = losses.squared_error(predicted, dose)
  np.testing.assert_allclose(
    loss.total, voxel + 0.5 * terms[0] + 3 * terms[1], rtol=1e-6
  )
  for name, term in zip(('voxel', 'structure', 'mean_dose'), (voxel, *terms)):
    np.testing.assert_array_equal(loss.terms[name], term)


def test_a_term_of_weight_zero_is_no_term():
  dose = np.zeros((1, 2, 2, 2))
  loss = losses.dose_loss(dose, dose, dose[..., None], structure_weight=0.0)
  assert list(loss.terms) == ['voxel']


def test_maximum_error_is_of_each_structure():
  predicted = np.array([[[[5.0], [1.0]], [[2.0], [9.0]]]])
  dose = np.array([[[[3.0], [4.0]], [[1.0], [0.0]]]])
  masks = np.zeros((1, 2, 2, 1, 3))
  masks[0, 0, :, 0, 0] = 1  # 5 for 4
  masks[0, 1, 0, 0, 1] = 1  # 2 for 1
  np.testing.assert_allclose(
    losses.max_dose_squared_error(predicted, dose, masks), [1]
  )
  masks[0, 1, 1, 0, 1] = 1  # 9 for 1
  np.testing.assert_allclose(
    losses.max_dose_squared_error(predicted, dose, masks), [(1 + 64) / 2]
  )


def test_maximum_pulls_at_one_voxel_of_each_structure():
  rng = np.random.default_rng(0)
  predicted, dose = rng.normal(size=(2, 2, 4, 3, 5)).astype(np.float32)
  masks = (rng.random((2, 4, 3, 5, 3)) < 0.4).astype(np.uint8)
  masks[0, ..., 1] = 0
  loss, gradient = jax.value_and_grad(
    lambda x: losses.max_dose_squared_error(x, dose, masks).sum()
  )(predicted)
  expected, hottest = 0.0, []
  for b in range(2):
    errors = []
    for s in np.flatnonzero(masks[b].any((0, 1, 2))):
      inside = masks[b, ..., s] > 0
      errors.append(predicted[b][inside].max() - dose[b][inside].max())
      hottest.append((b, *np.argwhere(inside)[predicted[b][inside].argmax()]))
    expected += np.square(errors).mean()
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  assert {tuple(x) for x in np.argwhere(gradient)} == {
    tuple(map(int, x)) for x in hottest
  }


def test_gradient_error_is_of_pairs_within_structures():
  dose = np.zeros((1, 3, 2, 1))
  masks = np.zeros((1, 3, 2, 1, 2))
  masks[0, :2, :, 0, 0] = 1
  masks[0, 2, 0, 0, 1] = 1  # one voxel stays outside
  predicted = np.array([[[[1.0], [-1.0]], [[-1.0], [1.0]], [[1.0], [50.0]]]])
  # Three pairs along x, two along y, none along z.
  expected = (4 + 4 / 1 + 0) / 3
  np.testing.assert_allclose(
    losses.gradient_squared_error(predicted, dose, masks), [expected]
  )


def test_gradient_error_knows_no_offset():
  rng = np.random.default_rng(0)
  dose = rng.random((2, 4, 3, 5), np.float32)
  masks = np.ones((2, 4, 3, 5, 1), np.uint8)
  np.testing.assert_allclose(
    losses.gradient_squared_error(dose + 1, dose, masks), 0, atol=1e-12
  )
  assert losses.gradient_squared_error(0 * dose, dose, masks).min() > 0.05


def test_cosine_rises_then_falls_to_a_hundredth_at_the_last_update():
  schedule = schedules.learning_rate(
    'cosine', 2e-3, decay=0.1, warmup=10, total=110
  )
  np.testing.assert_allclose(
    [schedule(0), schedule(5), schedule(10), schedule(60), schedule(110)],
    [0, 1e-3, 2e-3, 2e-3 * (0.01 + 0.99 / 2), 2e-5],
    rtol=1e-5,
  )


def test_equation_6_begins_after_the_warm_up():
  schedule = schedules.learning_rate(
    'inverse_time', 1e-3, decay=0.002, warmup=4, total=0
  )
  np.testing.assert_allclose(
    [schedule(2), schedule(4), schedule(504)], [5e-4, 1e-3, 5e-4], rtol=1e-6
  )


def test_moving_average_soon_forgets_its_start():
  decays = np.array([schedules.average_decay(0.999, n) for n in range(200)])
  assert decays[0] == pytest.approx(0.1)
  assert np.prod(decays) < 1e-9
  assert schedules.average_decay(0.999, 10**6) == pytest.approx(0.999)
