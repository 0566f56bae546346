"""Trade-offs, and sets of plans that cover a front."""

import dataclasses
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dvhflax.planning import pareto
from dvhflax.planning.trade_offs import TradeOffs
from dvhflax.sites.prostate import PROTOCOL
from dvhflax.sites.protocol import Oar

STRUCTURES = ('body', 'PTV', 'rectum', 'bladder')


def test_axes_are_what_varies_and_is_there():
  fixed = dataclasses.replace(
    PROTOCOL,
    oars={**PROTOCOL.oars, 'cord': Oar(30.0, (1.0, 1.0))},
    body_weights=(9.0, 9.0),
  )
  assert TradeOffs.of(fixed, [*STRUCTURES, 'cord']).axes == (
    'rectum',
    'bladder',
  )
  assert TradeOffs.of(fixed, ['PTV', 'bladder']).axes == ('bladder',)


def test_anchors_spare_all_and_each():
  anchors = TradeOffs.of(PROTOCOL, STRUCTURES).anchors()
  np.testing.assert_array_equal(
    anchors, [[0.5, 0.5, 0.5], [1, 1, 0.5], [1, 0, 0.5], [0, 1, 0.5]]
  )


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_places_and_weights_are_inverse(places):
  trade_offs = TradeOffs.of(PROTOCOL, STRUCTURES)
  weights = trade_offs.weights(np.array(places))
  assert (weights > 0).all() and (weights[:, 0] == 1).all()
  np.testing.assert_allclose(trade_offs.places(weights), places, atol=1e-9)


def test_bounds_of_the_weights():
  trade_offs = TradeOffs.of(PROTOCOL, STRUCTURES)
  least, most = trade_offs.weights(np.array([[0.0] * 3, [1.0] * 3]))
  rectum, bladder = PROTOCOL.oars['rectum'], PROTOCOL.oars['bladder']
  for column, bounds in ((1, rectum.weights), (3, bladder.weights)):
    np.testing.assert_allclose([least[column], most[column]], bounds)
  np.testing.assert_allclose([least[5], most[5]], PROTOCOL.body_weights)


def test_choice_is_near_the_best_of_all():
  points = np.random.default_rng(0).random((12, 2))
  distance = pareto.distances(points, points)

  def cost(chosen):
    return distance[:, list(chosen)].min(1).sum()

  best = min(map(cost, itertools.combinations(range(12), 3)))
  assert cost(pareto.choose(distance, 3, 0)) <= 1.1 * best


@given(st.integers(1, 10), st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_choice_keeps_the_fixed_and_repeats_none(count, fixed):
  points = np.random.default_rng(count).random((30, 3))
  distance = pareto.distances(points, points)
  chosen = pareto.choose(distance, count, fixed)
  assert len(set(chosen)) == count
  first = min(fixed, count)
  np.testing.assert_array_equal(chosen[:first], np.arange(first))


def test_coverage_of_itself_and_by_hand():
  curves = np.array([[[0.0, 0.0]], [[1.0, 1.0]]])
  assert pareto.coverage(curves, curves) == (0, 0)
  mean, worst = pareto.coverage(curves, np.array([[[0.0, 0.5]], [[1.0, 0.0]]]))
  assert mean == pytest.approx(0.75) and worst == pytest.approx(0.975)
