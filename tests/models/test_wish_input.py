"""Whatever a wish or a point is written as: a curve, or one short line."""

import json
import os
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import optimize

from dvhflax.dvh import DVHSpec
from dvhflax.errors import WishError
from dvhflax.normalisation import DoseReference, Normalisation
from dvhflax.patient import Structure
from dvhflax.tuning import wish, wish_file
from dvhflax.wishes import bending, points

REFERENCE = DoseReference.of_prescription(78.0)
STRUCTURES = (Structure('rectum', 'oar'), Structure('PTV', 'target'))
SPEC = DVHSpec(points=16)
CURVES = np.stack([1 - SPEC.levels / SPEC.max_dose] * 2)
CSV = 'structure,dose,volume\nrectum,0,1\nrectum,1,0\nPTV,0.9,1\nPTV,1.1,0\n'
JSON = json.dumps(
  [
    {'structure': 'rectum', 'dose': [0, 1], 'volume': [1, 0]},
    {'structure': 'PTV', 'dose': [0.9, 1.1], 'volume': [1, 0]},
  ]
)


def tune(text):
  """A curve, or a WishError whose message can be shown."""
  try:
    found = [
      points.parse(one, STRUCTURES, REFERENCE, (40.0, 90.0))
      for one in points.split(text)
    ]
    bending.bend(CURVES, found, SPEC)
  except WishError as error:
    assert len(str(error)) < 600 and str(error).isprintable()


def read(path, prescription_gy=78.0):
  curves, _ = wish.in_fractions(
    wish_file.read_curves(str(path), prescription_gy),
    STRUCTURES,
    Normalisation('prescription'),
    prescription_gy,
  )
  return wish.from_curves(curves, STRUCTURES, (True, True), SPEC)


def read_bytes(path, content):
  path.write_bytes(content)
  try:
    read(path)
  except WishError as error:
    assert len(str(error)) < 900 and str(error).isprintable()


WORDS = st.sampled_from(
  ['rectum', 'PTV', 'V', 'D', 'mean', 'max', ' ', '\n', '\t', ';', '<=', '>=',
   '=', '%', 'cc', 'Gy', '70', '1e9', '9' * 400, '0', '.', '-1', '\x1b[2J',
   '\u202e', '\ud800', ' ' * 300, 'x' * 300]
)  # fmt: skip
POINTS = st.lists(WORDS | st.text(max_size=4), max_size=12).map(''.join) | (
  st.tuples(
    st.sampled_from(['rectum', 'PTV']),
    st.sampled_from(['V', 'D', 'mean', 'max']),
    st.integers(0, 10**400).map(str) | st.just(''),
    st.sampled_from(['', '%', 'cc', 'Gy']),
    st.sampled_from(['<=', '>=', '=', '<']),
    st.integers(0, 10**400).map(str),
    st.sampled_from(['', '%', 'cc', 'Gy']),
  ).map(lambda p: f'{p[0]} {"".join(p[1:4])} {p[4]} {p[5]}{p[6]}')
)


@st.composite
def mutated(draw):
  """A file of curves, some of its bytes replaced, doubled or left out."""
  content = bytearray(draw(st.sampled_from([CSV, JSON])).encode())
  for _ in range(draw(st.integers(1, 6))):
    at = draw(st.integers(0, len(content) - 1))
    bit = draw(
      st.binary(max_size=3)
      | st.sampled_from(
        [b'9' * 400, b'1e999', b'NaN', b'\x00', b'"', b'\xff', b'[' * 10**5,
         b'x' * 140_000, b'\x1b[31m', b'1' + b'0' * 19, b'\n', b'true']
      )
    )  # fmt: skip
    content[at : at + draw(st.integers(0, 3))] = bit
  return bytes(content)


SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@given(text=POINTS)
@settings(max_examples=100, deadline=None)
def test_points_of_any_kind(text):
  tune(text)


@given(content=mutated())
@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
def test_files_of_any_kind(content, tmp_path):
  for ending in ('csv', 'json'):
    read_bytes(tmp_path / f'wish.{ending}', content)


@pytest.mark.slow
@given(text=POINTS)
@settings(max_examples=5000, deadline=None, suppress_health_check=SLOW)
def test_thousands_of_points(text):
  tune(text)


@pytest.mark.slow
@given(content=mutated())
@settings(max_examples=3000, deadline=None, suppress_health_check=SLOW)
def test_thousands_of_files(content, tmp_path):
  for ending in ('csv', 'json'):
    read_bytes(tmp_path / f'wish.{ending}', content)


@pytest.mark.parametrize(
  'text',
  [' ' * 10**6, 'rectum' + ' ' * 10**6 + 'V70', 'x' * 10**6,
   'rectum mean <= ' + '9' * 10**6 + ' Gy', ';' * 10**6, 'a b;' * 10**5],
)  # fmt: skip
def test_long_texts_take_no_time(text):
  start = time.monotonic()
  tune(text)
  assert time.monotonic() - start < 2


def test_many_points_that_contradict_each_other():
  texts = [f'rectum V{n} <= {60 - n / 2}%' for n in range(10, 90)]
  with pytest.raises(WishError, match='contradict') as caught:
    found = [
      points.parse(t, STRUCTURES, REFERENCE, (40.0, 90.0))
      for t in [*texts, 'rectum mean >= 60 Gy']
    ]
    bending.bend(CURVES, found, SPEC)
  assert len(str(caught.value)) < 600


def test_a_solver_that_turns_in_circles(monkeypatch):
  demands = [
    points.parse(t, STRUCTURES, REFERENCE, (40.0, 90.0))
    for t in ('rectum V70 <= 5%', 'rectum mean <= 30 Gy')
  ]
  expected = bending.bend(CURVES, demands, SPEC)

  def fails(*args, **kwargs):
    raise RuntimeError('Maximum number of iterations reached.')

  monkeypatch.setattr(optimize, 'nnls', fails)
  bent = bending.bend(CURVES, demands, SPEC)
  np.testing.assert_allclose(bent, expected, atol=1e-4)

  def fails_too(*args, **kwargs):
    raise np.linalg.LinAlgError

  monkeypatch.setattr(optimize, 'lsq_linear', fails_too)
  with pytest.raises(WishError, match='no curve through these points'):
    bending.bend(CURVES, demands, SPEC)


@pytest.mark.skipif(not os.path.exists('/dev/zero'), reason='no such device')
@pytest.mark.parametrize('ending', ['csv', 'json'])
def test_no_regular_file(ending, tmp_path):
  for target in ('/dev/zero', str(tmp_path)):
    link = tmp_path / f'{os.path.basename(target)}.{ending}'
    link.symlink_to(target)
    with pytest.raises(WishError, match='not a regular file'):
      read(link)
  os.mkfifo(tmp_path / f'pipe.{ending}')
  with pytest.raises(WishError, match='not a regular file'):
    read(tmp_path / f'pipe.{ending}')


def table(path, dose, volume, dose_scale, volume_scale):
  rows = [
    ('rectum', 0, 1),
    ('rectum', 1, 0),
    ('PTV', 0.95, 1),
    ('PTV', 1.05, 0),
  ]
  path.write_text(
    f'structure,{dose},{volume}\n'
    + ''.join(f'{n},{d * dose_scale},{v * volume_scale}\n' for n, d, v in rows)
  )
  return path


SCALES = {'dose': 1, 'dose_gy': 78, 'dose_percent': 100}


@pytest.mark.parametrize('dose', SCALES)
@pytest.mark.parametrize(
  'volume, whole', [('volume', 1), ('volume_percent', 100)]
)
def test_units_are_those_of_the_columns(dose, volume, whole, tmp_path):
  path = table(tmp_path / 'a.csv', dose, volume, SCALES[dose], whole)
  vectors = read(path)
  np.testing.assert_allclose(
    vectors[0], np.clip(1 - SPEC.levels, 0, 1), atol=1e-6
  )
  np.testing.assert_allclose(
    vectors[1], np.clip((1.05 - SPEC.levels) / 0.1, 0, 1), atol=1e-5
  )


@pytest.mark.parametrize(
  'dose, volume, dose_scale, volume_scale, words',
  [
    ('dose', 'volume', 78, 1, "under 'dose'.*'dose_gy'"),
    ('dose', 'volume', 100, 1, "under 'dose'.*'dose_percent'"),
    ('dose', 'volume', 2, 1, 'another unit'),
    ('dose', 'volume', 1, 100, "under 'volume'.*'volume_percent'"),
    ('dose_gy', 'volume', 1, 1, 'another unit'),
    ('dose_gy', 'volume', 7800, 1, "under 'dose_gy'"),
    ('dose_percent', 'volume', 1, 1, 'another unit'),
    ('dose', 'volume_percent', 1, 1, 'begins at volume 0.01'),
    ('dose_mgy', 'volume', 1, 1, r"no column of doses.*'dose_gy' \(Gy\)"),
  ],
)
def test_another_unit_is_refused(
  dose, volume, dose_scale, volume_scale, words, tmp_path
):
  path = table(tmp_path / 'a.csv', dose, volume, dose_scale, volume_scale)
  with pytest.raises(WishError, match=words):
    read(path)


def test_doses_that_no_plan_has():
  for text in ('rectum mean <= 3000 Gy', 'PTV D95 >= 7410', 'PTV V7000 <= 5%'):
    with pytest.raises(WishError):
      points.parse(text, STRUCTURES, REFERENCE, (40.0, 90.0))
