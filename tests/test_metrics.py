"""Plan metrics and OpenKBP scores against closed forms and plain loops."""

import numpy as np
import pytest

from dvhflax import metrics, openkbp_scores
from dvhflax.patient import Structure


def test_metrics_of_a_gradient():
  dose = np.linspace(0, 1, 1001)
  assert metrics.homogeneity_index(dose) == pytest.approx(0.96 / 0.5)
  assert metrics.homogeneity_index(np.ones(9)) == 0


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
  gap = metrics.pareto_gap(desired, plans, np.array([True, True, False]))
  assert gap == pytest.approx(0.6)


def test_openkbp_scores_equal_a_plain_loop():
  rng = np.random.default_rng(0)
  structures = (
    Structure('PossibleDose', 'body'),
    Structure('SpinalCord', 'oar'),
    Structure('Larynx', 'oar'),
    Structure('PTV70', 'target'),
  )
  masks = (rng.random((8, 8, 4, 4)) < 0.4).astype(np.uint8)
  masks[..., 2] = 0
  reference, predicted = 70 * rng.random((2, 8, 8, 4))
  case = openkbp_scores.Case(
    reference, predicted, masks[..., 0], masks, (4.0, 4.0, 2.5)
  )
  inside = masks[..., 0] > 0
  shown = np.where(inside, predicted, 0)
  dose_score = np.abs(reference - shown).sum() / inside.sum()
  cells = []
  for s, k in ((1, 'oar'), (3, 'target')):
    a, b = reference[masks[..., s] > 0], shown[masks[..., s] > 0]
    if k == 'oar':
      share = 100 - 100 * max(1, round(100 / 40)) / len(a)
      cells.append(abs(np.percentile(a, share) - np.percentile(b, share)))
      cells.append(abs(a.mean() - b.mean()))
    else:
      for q in (1, 5, 99):
        cells.append(abs(np.percentile(a, q) - np.percentile(b, q)))
  scores = openkbp_scores.scores([case], structures)
  assert scores.dose == pytest.approx(dose_score)
  assert scores.dvh == pytest.approx(np.mean(cells))
