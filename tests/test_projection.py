"""Equation (4) against a plain loop."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from dvhflax.projection import project


def slow_project(desired, pareto, valid):
  indices = []
  for b in range(len(desired)):
    best, index = np.inf, -1
    for n in range(pareto.shape[1]):
      distance = np.abs(pareto[b, n] - desired[b]).sum()
      if valid[b, n] and distance < best:
        best, index = distance, n
    indices.append(index)
  return np.array(indices)


def draw(seed, batch, plans, points):
  # Multiples of 1/8 are summed without rounding, so ties are true ties.
  rng = np.random.default_rng(seed)
  desired = rng.integers(0, 9, (batch, points)) / 8
  pareto = rng.integers(0, 9, (batch, plans, points)) / 8
  return desired.astype('f'), pareto.astype('f'), rng.random((batch, plans))


@settings(deadline=None, max_examples=40)
@given(
  seed=st.integers(0, 2**31),
  plans=st.sampled_from([1, 3, 10, 37]),
  block=st.sampled_from([1, 4, 10, 256]),
  share=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_equals_a_loop_on_ties_and_ragged_sets(seed, plans, block, share):
  desired, pareto, draw_valid = draw(seed, 5, plans, 3)
  valid = draw_valid < share
  got = project(desired, pareto, valid, block=block)
  np.testing.assert_array_equal(got, slow_project(desired, pareto, valid))


def test_lowest_index_on_ties_across_blocks():
  desired = np.zeros((1, 4), np.float32)
  pareto = np.ones((1, 12, 4), np.float32)
  valid = np.ones((1, 12), bool)
  valid[0, :2] = False
  assert project(desired, pareto, valid, block=5)[0] == 2


@pytest.mark.parametrize('points', [3, 16, 37, 128])
def test_one_set_for_the_whole_batch(points):
  desired, pareto, draw_valid = draw(points, 6, 20, points)
  shared, valid = pareto[:1], draw_valid[:1] < 0.8
  expected = slow_project(
    desired, np.repeat(shared, 6, 0), np.repeat(valid, 6, 0)
  )
  got = project(desired, shared, valid, block=8)
  np.testing.assert_array_equal(got, expected)


def test_no_wish_no_plan():
  desired = np.full((1, 4), np.nan, np.float32)
  assert project(desired, np.ones((1, 3, 4), 'f'), np.ones((1, 3), bool)) == -1


@pytest.mark.slow
def test_memory_stays_bounded():
  desired = np.zeros((770, 128), np.float32)
  pareto = np.random.default_rng(0).random((1, 100_000, 128), np.float32)
  compiled = (
    jax.jit(project)
    .lower(desired, pareto, np.ones((1, 100_000), bool))
    .compile()
  )
  assert compiled.memory_analysis().temp_size_in_bytes < 200e6
