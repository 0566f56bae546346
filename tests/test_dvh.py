"""DVHs against closed forms, and the device's against numpy's."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dvhflax import dvh


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31))
def test_vector_never_rises_and_starts_full(seed):
  rng = np.random.default_rng(seed)
  dose = rng.gamma(2, 0.3, (4, 4, 2)).astype(np.float32)
  masks = (rng.random((4, 4, 2, 3)) < 0.5).astype(np.uint8)
  curves = dvh.dvh_vectors(dose, masks, dvh.DVHSpec())
  assert (np.diff(curves, axis=-1) <= 0).all()
  assert (curves[masks.any((0, 1, 2)), 0] == 1).all()


def test_device_agrees_with_numpy():
  rng = np.random.default_rng(0)
  dose = rng.gamma(2, 0.3, (2, 4, 4, 2)).astype(np.float32)
  masks = (rng.random((2, 4, 4, 2, 3)) < 0.5).astype(np.uint8)
  masks[1, ..., 2] = 0
  spec = dvh.DVHSpec()
  expected = [dvh.dvh_vectors(d, m, spec) for d, m in zip(dose, masks)]
  got = dvh.volume_at_dose_curves(dose, masks, spec.levels)
  np.testing.assert_allclose(got, expected, atol=1e-6)


def test_impossible_vectors():
  with pytest.raises(ValueError, match='unknown DVH kind'):
    dvh.DVHSpec(kind='volume')
  with pytest.raises(ValueError, match='points'):
    dvh.DVHSpec(points=1)
