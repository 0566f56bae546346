"""The page's pure functions, run in the browser without a server."""

import http.server
import pathlib
import threading

import numpy as np
import pytest

from app.browsing import need_a_browser
import dvhflax
from dvhflax.dvh import DVHSpec
from dvhflax.wishes import bending
from dvhflax.wishes.points import Point

need_a_browser()
pytestmark = pytest.mark.slow

STATIC = pathlib.Path(dvhflax.__file__).parent / 'app' / 'static'


class _Static(http.server.SimpleHTTPRequestHandler):
  def __init__(self, *arguments):
    super().__init__(*arguments, directory=str(STATIC))

  def log_message(self, *_):
    pass


@pytest.fixture(scope='module')
def run(browser):
  """A function that runs JavaScript with a module of the page as `m`."""
  address = ('127.0.0.1', 0)
  with http.server.ThreadingHTTPServer(address, _Static) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f'http://127.0.0.1:{server.server_port}/icon.svg')

    def run(module, script, *values):
      return page.evaluate(
        'async ([module, values]) => {'
        f'const m = await import(module); return ({script})(m, ...values); }}',
        [f'/{module}', list(values)],
      )

    yield run
    page.close()
    server.shutdown()


def test_isolines_of_a_cone_are_circles(run):
  rows, columns = np.indices((40, 50))
  cone = 30 - np.hypot(rows - 19.3, columns - 24.6)
  (line,) = run(
    'isolines.js',
    '(m, v) => m.joined(m.isolinePieces(v, 50, 40, 18))',
    cone.ravel().tolist(),
  )
  x, y = np.array(line).reshape(-1, 2).T
  assert (x[0], y[0]) == (x[-1], y[-1])
  np.testing.assert_allclose(np.hypot(x - 24.6, y - 19.3), 12, atol=0.02)


def test_isolines_of_masks_close_at_the_edge_and_keep_saddles_apart(run):
  mask = [1, 0, 0, 1]  # two voxels that touch in a corner
  lines = run(
    'isolines.js',
    '(m, v) => m.joined(m.isolinePieces(v, 2, 2, 0.5, true))',
    mask,
  )
  assert all(line[:2] == line[-2:] for line in lines)
  apart = run(
    'isolines.js',
    '(m, v) => m.joined(m.isolinePieces(v, 2, 2, 0.6, true)).length',
    mask,
  )
  assert apart == 2 and len(lines) == 1
  assert (
    run('isolines.js', '(m) => m.isolinePieces([0, 0, 0, 0], 2, 2, 1)') == []
  )


@pytest.mark.parametrize('plane', ['axial', 'sagittal', 'coronal'])
def test_a_mm_is_as_long_along_both_axes_and_the_way_back_is_the_same(
  run, plane
):
  spacing = [2.0, 3.0, 5.0]
  place, back = run(
    'geometry.js',
    """(m, name, spacing) => {
      const place = m.placement(m.PLANES[name], spacing,
        m.wholeGrid([10, 20, 6]), 300, 200);
      const there = m.toScreen(place, 3.5, 2);
      return [place, m.toVoxel(place, ...there)];
    }""",
    plane,
    spacing,
  )
  across, down = {'axial': (0, 1), 'sagittal': (1, 2), 'coronal': (0, 2)}[plane]
  assert place['dx'] / spacing[across] == pytest.approx(
    abs(place['dy']) / spacing[down]
  )
  assert (place['dy'] < 0) == (plane != 'axial')
  assert back == pytest.approx([3.5, 2])
  # The grid's middle, between two voxels, is in the middle of the picture.
  shape = (10, 20, 6)
  middle = [
    place['x'] + (shape[across] - 1) / 2 * place['dx'],
    place['y'] + (shape[down] - 1) / 2 * place['dy'],
  ]
  assert middle == pytest.approx([150, 100])


@pytest.mark.parametrize('kind', ['volume_at_dose', 'dose_at_volume'])
def test_the_guess_is_a_dvh_through_the_handles_and_like_the_servers(run, kind):
  spec = DVHSpec(kind=kind, points=32)
  dose = np.random.default_rng(0).beta(2, 3, 4000)
  level = spec.levels.astype(float)
  if kind == 'volume_at_dose':
    curve = (dose[:, None] >= level).mean(0)
  else:
    curve = np.quantile(dose, 1 - level)
  handle = {'level': 0.5, 'value': float(np.interp(0.5, level, curve)) - 0.15}
  if kind == 'dose_at_volume':
    at = float(np.interp(-0.5, -level, curve))
    handle = {'level': 0.5, 'value': at - 0.1}
  bent = np.array(
    run(
      'curves.js',
      '(m, v, h, s) => m.bentGuess(v, [h], s)',
      curve.tolist(),
      handle,
      {'kind': kind, 'points': 32, 'max_dose': 1.2, 'levels': level.tolist()},
    )
  )
  falls = kind == 'volume_at_dose'
  assert (np.diff(bent) <= 1e-9).all() if falls else (np.diff(bent) >= 0).all()
  read = np.interp(
    0.5, level if falls else level[::-1], bent if falls else bent[::-1]
  )
  assert read == pytest.approx(handle['value'], abs=0.01)
  point = Point('h', 0, 'V', handle['level'], '=', handle['value'])
  if not falls:
    point = Point('h', 0, 'V', handle['value'], '=', handle['level'])
  (exact,) = bending.bend(curve[None], [point], spec)
  assert np.abs(bent - exact).mean() < np.abs(curve - exact).mean()


def test_handles_cannot_cross_in_a_way_that_no_dvh_has(run):
  pinned = {'key': 'a', 'structure': 0, 'gy': 40, 'percent': 50, 'pinned': True}
  moved = {'key': 'b', 'structure': 0, 'gy': 60, 'percent': 70, 'pinned': True}
  kept = run('handles.js', '(m, h, all) => m.kept(h, all, 90)', moved, [pinned])
  assert kept['percent'] == 50
  moved.update(gy=-3, percent=20)
  kept = run('handles.js', '(m, h, all) => m.kept(h, all, 90)', moved, [pinned])
  assert kept['gy'] > 0 and kept['percent'] == 50


def test_places_of_goals(run):
  structures = [
    {'name': 'rectum', 'volume_cc': 80},
    {'name': 'PTV', 'volume_cc': 100},
  ]

  def place(text):
    return run(
      'format.js', '(m, t, s) => m.goalPlace(t, s, 60)', text, structures
    )

  assert place('rectum V70 <= 10%') == {
    'structure': 0,
    'gy': 70,
    'percent': 10,
    'most': True,
  }
  assert place('rectum V50% <= 8 cc') == {
    'structure': 0,
    'gy': 30,
    'percent': 10,
    'most': True,
  }
  assert place('PTV D95 >= 95%') == {
    'structure': 1,
    'gy': 57,
    'percent': 95,
    'most': False,
  }
  assert place('rectum mean <= 30 Gy') is None
  assert place('nonsense') is None


def test_curves_are_read_by_interpolation(run):
  points = [[0, 100], [40, 100], [50, 60], [60, 0], [70, 0]]
  volume, dose, mean = run(
    'curves.js',
    '(m, p) => [m.volumeAtDose(p, 45), m.doseAtVolume(p, 30), m.meanDose(p)]',
    points,
  )
  assert (volume, dose, mean) == (80, 55, 51)
  assert run('format.js', '(m) => [m.signed(-0.04), m.signed(-2.25)]') == [
    '±0.0',
    '−2.3',
  ]
