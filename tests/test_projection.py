"""Equation (4) against a plain loop."""

import os
import pathlib
import subprocess
import sys
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvhflax import native
from dvhflax.projection import project

ROOT = pathlib.Path(__file__).parents[1]
# Pure JAX, and the kernel of every instruction set.
FORMS = [(), *((name,) for name in native.available())]


def in_form(form, *arguments, **options):
  with mock.patch.object(native, 'available', lambda: form):
    return project(*arguments, **options)


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


@pytest.mark.parametrize('sets', [1, 2])
def test_nothing_is_nearest_to_nothing(sets):
  desired, none = np.zeros((2, 3)), np.zeros((sets, 0, 3))
  np.testing.assert_array_equal(
    project(desired, none, np.ones((sets, 0), bool)), [-1, -1]
  )
  assert not len(project(desired[:0], none[:0], np.ones((0, 0), bool)))


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


def nearest_of_one_set(desired, plans, valid):
  """Equation (4) in float64, all distances at once."""
  distance = np.abs(
    desired[:, None].astype(np.float64) - plans.astype(np.float64)
  ).sum(-1)
  usable = valid & np.isfinite(distance)
  index = np.where(usable, distance, np.inf).argmin(1)
  return np.where(usable.any(1), index, -1), distance


def check_one_set(form, seed, wishes, plans, points, share):
  desired, pareto, draw_valid = draw(seed, wishes, plans, points)
  pareto, valid = pareto[:1], draw_valid[:1] < share
  # Some that are not finite.
  rng = np.random.default_rng(seed)
  for strange in (np.nan, np.inf, -np.inf):
    pareto[0, rng.integers(plans), rng.integers(points)] = strange
    if rng.random() < 0.2:
      desired[rng.integers(wishes), rng.integers(points)] = strange
  with np.errstate(invalid='ignore'):
    expected, _ = nearest_of_one_set(desired, pareto[0], valid)
  got = in_form(form, desired, pareto, valid, block=8)
  assert got.dtype == jnp.int32
  np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('points', [3, 16, 37, 128])
@pytest.mark.parametrize('seed', range(4))
def test_one_set_for_the_whole_batch(seed, points):
  check_one_set((), seed, 6, 20, points, 0.8)


# Of tiles and of looks at the sums: one short, whole, one too many.
@pytest.mark.parametrize('form', FORMS[1:])
@settings(deadline=None, max_examples=60)
@given(
  seed=st.integers(0, 2**31),
  wishes=st.sampled_from([2, 3, 4, 5, 9]),
  plans=st.sampled_from([1, 5, 15, 16, 17, 31, 32, 33, 100]),
  points=st.sampled_from([1, 3, 15, 16, 17, 37, 128]),
  share=st.sampled_from([0.0, 0.1, 0.8, 1.0]),
)
def test_one_set_compiled_of_any_shape(
  form, seed, wishes, plans, points, share
):
  check_one_set(form, seed, wishes, plans, points, share)


@pytest.mark.parametrize('form', FORMS)
def test_the_compiled_kernel_is_for_one_set_for_many(form):
  def text(sets, wishes, dtype='f'):
    arrays = np.ones((wishes, 5), dtype), np.ones((sets, 7, 5), dtype)
    lowered = jax.jit(lambda *arrays: in_form(form, *arrays)).lower(
      *map(jnp.asarray, arrays), np.ones((sets, 7), bool)
    )
    return lowered.as_text()

  assert ('dvhflax_nearest' in text(1, 2)) == bool(form)
  assert 'dvhflax_nearest' not in text(2, 2) + text(1, 2, jnp.bfloat16)


@pytest.mark.parametrize('points', [16, 100, 130])
def test_one_set_all_forms_agree_when_sums_are_rounded(points):
  rng = np.random.default_rng(points)
  desired = rng.random((70, points), np.float32)
  # DVHs fall; three digits, so that many plans are nearly as near.
  pareto = -np.sort(-rng.random((1, 2000, points)).round(3)).astype('f')
  desired[::2] = -np.sort(-desired[::2])
  valid = rng.random((1, 2000)) < 0.9
  first = in_form((), desired, pareto, valid)
  _, distance = nearest_of_one_set(desired, pareto[0], valid)
  least = np.where(valid, distance, np.inf).min(1)
  np.testing.assert_allclose(
    np.take_along_axis(distance, np.asarray(first)[:, None], 1)[:, 0],
    least, rtol=points * 2**-23,
  )  # fmt: skip
  for form in FORMS[1:]:
    np.testing.assert_array_equal(in_form(form, desired, pareto, valid), first)


@pytest.mark.parametrize('form', FORMS)
def test_one_set_the_first_of_equal_plans_wherever_they_lie(form):
  rng = np.random.default_rng(0)
  desired = rng.random((3, 37), np.float32)
  plan = desired[0] + 0.01 * rng.random(37, np.float32)
  for _ in range(20):
    pareto = 2 + rng.random((1, 300, 37), np.float32)
    places = np.sort(rng.choice(300, 5, replace=False))
    pareto[0, places] = plan
    valid = np.ones((1, 300), bool)
    valid[0, places[0]] = False
    got = in_form(form, desired, pareto, valid)
    np.testing.assert_array_equal(got, places[1])


@pytest.mark.parametrize('dtype', [jnp.float16, jnp.bfloat16, jnp.int32])
def test_one_set_of_other_numbers(dtype):
  desired, pareto, _ = draw(1, 4, 20, 8)
  desired, pareto = jnp.asarray(8 * desired, dtype), 8 * pareto[:1]
  valid = np.ones((1, 20), bool)
  expected, _ = nearest_of_one_set(np.asarray(desired), pareto[0], valid)
  if dtype != jnp.int32:  # integers have no infinity
    got = project(desired, jnp.asarray(pareto, dtype), valid)
    np.testing.assert_array_equal(got, expected)
  # float64 from numpy becomes float32.
  got = project(np.float64(desired), np.float64(pareto), valid)
  np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('form', FORMS)
def test_one_set_under_transformations(form):
  desired, pareto, _ = draw(2, 12, 50, 20)
  valid = np.ones((12, 50), bool)
  expected = [
    nearest_of_one_set(desired, plans, valid[:1])[0] for plans in pareto[:3]
  ]
  with mock.patch.object(native, 'available', lambda: form):
    of_sets = jax.jit(jax.vmap(project, (None, 0, 0)))(
      desired, pareto[:3, None], valid[:3, None]
    )
    of_wishes = jax.vmap(project, (0, None, None))(
      desired.reshape(3, 4, -1), pareto[:1], valid[:1]
    )
    gradient = jax.grad(
      lambda wish: (
        wish.sum() + project(wish, pareto[:1], valid[:1]).astype('f').sum()
      )
    )(desired)
  np.testing.assert_array_equal(of_sets, expected)
  np.testing.assert_array_equal(of_wishes.reshape(-1), expected[0])
  np.testing.assert_array_equal(gradient, np.ones_like(desired))


DEVICES = """
import jax
import numpy as np
from dvhflax.projection import project
rng = np.random.default_rng(0)
desired = rng.random((8, 6, 40), np.float32)
pareto, valid = rng.random((1, 500, 40), np.float32), np.ones((1, 500), bool)
apart = np.abs(desired[:, :, None] - pareto[None]).sum(-1).argmin(-1)
mesh = jax.sharding.Mesh(np.array(jax.devices()), ('wishes',))
P = jax.sharding.PartitionSpec
def of_shard(desired, pareto, valid):
  return project(desired[0], pareto, valid)[None]
ways = {
  'pmap': jax.pmap(project, in_axes=(0, None, None)),
  'shard_map': jax.jit(jax.shard_map(
    of_shard, mesh=mesh, in_specs=(P('wishes'), P(), P()),
    out_specs=P('wishes'),
  )),
  'jit': jax.jit(lambda desired, *set: project(
    jax.device_put(
      desired.reshape(48, 40), jax.sharding.NamedSharding(mesh, P('wishes'))
    ), *set
  ).reshape(8, 6)),
}
assert jax.device_count() == 8
for name, way in ways.items():
  for _ in range(10):
    assert (np.asarray(way(desired, pareto, valid)) == apart).all(), name
"""


def test_one_set_on_eight_devices():
  flags = os.environ.get('XLA_FLAGS', '')
  flags += ' --xla_force_host_platform_device_count=8'
  subprocess.run(
    [sys.executable, '-c', DEVICES],
    check=True,
    timeout=300,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags},
  )


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('wishes', [1, 2])
def test_no_wish_no_plan(wishes, form):
  desired = np.full((wishes, 4), np.nan, np.float32)
  got = in_form(form, desired, np.ones((1, 3, 4), 'f'), np.ones((1, 3), bool))
  np.testing.assert_array_equal(got, -1)


@pytest.mark.slow
@pytest.mark.parametrize('form', FORMS)
def test_memory_stays_bounded(form):
  desired = np.zeros((770, 128), np.float32)
  pareto = np.random.default_rng(0).random((1, 100_000, 128), np.float32)
  valid = np.ones((1, 100_000), bool)
  compiled = (
    jax.jit(lambda *arrays: in_form(form, *arrays))
    .lower(desired, pareto, valid)
    .compile()
  )
  assert compiled.memory_analysis().temp_size_in_bytes < 200e6
