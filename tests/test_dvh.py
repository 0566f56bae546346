"""DVH vectors: what holds of all of them, and which there cannot be."""

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


def test_impossible_vectors():
  with pytest.raises(ValueError, match="DVH kind 'volume'"):
    dvh.DVHSpec(kind='volume')
  with pytest.raises(ValueError, match='points'):
    dvh.DVHSpec(points=1)
