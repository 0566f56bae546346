"""The page in a browser, on a server of the tiny run."""

import contextlib
import io
import os
import pathlib
import re
import signal
import subprocess
import sys

from conftest import GRID, STRUCTURES
import nibabel
import numpy as np
from PIL import Image
import pydicom
import pytest

from app import browsing

playwright = browsing.required()
expect = playwright.expect
pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
READY = 'body[data-ready="true"]'
# Of the tiny cohort's patients, and a voxel of theirs.
SPACING = np.array([3.0, 3.0, 5.0])
MARKER = (5, 2, 1)
GOALS = ['rectum mean <= 5 Gy', 'PTV D95 >= 10 Gy']


class Server:
  """`dvhflax app` on a run; it can be stopped and started again."""

  def __init__(self, workdir, sessions):
    self._workdir, self._sessions = str(workdir), str(sessions)
    self.url, self.port = '', 0

  def start(self):
    self._process = subprocess.Popen(
      [
        *(sys.executable, '-m', 'dvhflax', 'app', '--nobrowser'),
        f'--workdir={self._workdir}',
        f'--sessions={self._sessions}',
        f'--port={self.port}',
      ],
      cwd=ROOT,
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    assert self._process.stdout
    for line in self._process.stdout:
      if found := re.search(r'http://127\.0\.0\.1:(\d+)/\?token=\S+', line):
        self.url, self.port = found[0], int(found[1])
        return self
    raise AssertionError('the server ended without an address')

  def stop(self):
    self._process.send_signal(signal.SIGTERM)
    self._process.wait(30)
    self._process.stdout.close()

  def __enter__(self):
    return self.start()

  def __exit__(self, *_):
    self.stop()


@pytest.fixture(scope='module')
def server(trained_run, tmp_path_factory):
  with Server(trained_run, tmp_path_factory.mktemp('sessions')) as server:
    yield server


@pytest.fixture(scope='module')
def browser():
  with playwright.sync_playwright() as play:
    browser = browsing.launch(play)
    yield browser
    browser.close()


@contextlib.contextmanager
def watched(browser, refusals=False, **options):
  """A browser's context whose pages may neither complain nor call elsewhere.

  Args:
    refusals: whether the server refuses something, of which the console tells.
  """
  context = browser.new_context(
    viewport={'width': 1280, 'height': 720}, **options
  )
  context.set_default_timeout(60_000)
  expect.set_options(timeout=60_000)
  complaints, elsewhere = [], []

  def told(message):
    mere = refusals and 'Failed to load resource' in message.text
    if message.type in ('error', 'warning') and not mere:
      complaints.append(f'{message.text} {message.location}')

  def asked(request):
    if not re.match(r'(http|ws)://127\.0\.0\.1:|blob:http://127', request.url):
      elsewhere.append(request.url)

  context.on('console', told)
  context.on('weberror', lambda error: complaints.append(str(error.error)))
  context.on('request', asked)
  yield context
  context.close()
  assert not complaints and not elsewhere


@pytest.fixture
def page(browser, server):
  with watched(browser) as context:
    yield open_patient(context.new_page(), server)


def open_patient(page, server, patient='p6'):
  page.goto(server.url)
  page.click(f'[data-patient={patient}]')
  page.wait_for_selector(READY)
  page.wait_for_selector('#dvh[data-painted]')
  return page


def state(page, key):
  return page.locator('body').get_attribute(f'data-{key}')


def rectum_handle(page):
  """Of the free ones that which asks for the most volume."""
  return page.locator('.handle[data-structure=rectum]').first


def grab(page, handle):
  """Presses on a handle; returns where."""
  box = handle.bounding_box()
  x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
  page.mouse.move(x, y)
  page.mouse.down()
  return x, y


def pull(page, dx=-30, dy=25):
  """Drags the rectum's handle and lets go of it: a step."""
  step = int(state(page, 'step')) + 1
  x, y = grab(page, rectum_handle(page))
  page.mouse.move(x + dx, y + dy, steps=6)
  page.mouse.up()
  page.wait_for_selector(f'{READY}[data-step="{step}"]')


def curve(page, kind):
  return page.locator(f'path[data-kind={kind}].of-1').get_attribute('d')


def set_goals(page):
  for text in GOALS:
    page.fill('#goal-added', text)
    page.press('#goal-added', 'Enter')
    page.wait_for_selector(f'[data-goal="{text}"]')
    page.wait_for_selector(READY)


def dose_of(page, step):
  """Bytes of a step's dose from the server."""
  return page.evaluate(
    """async ([session, step]) => {
      const got = await fetch(`/api/v1/sessions/${session}/doses/${step}`);
      return Array.from(new Uint8Array(await got.arrayBuffer()));
    }""",
    [state(page, 'session'), step],
  )


def test_a_dragged_handle_bends_the_curve_and_the_dose_follows(page):
  set_goals(page)
  while int(state(page, 'step')):  # typing goals pulled curves, too
    page.click('#undo')
    page.wait_for_selector(READY)
  first = state(page, 'fingerprint')
  before = dose_of(page, 'step-0')
  desired, achieved = curve(page, 'desired'), curve(page, 'achieved')
  goals = page.locator('#goals').get_attribute('data-achieved')
  picture = page.locator('[data-plane=axial] canvas').screenshot()

  x, y = grab(page, rectum_handle(page))
  page.mouse.move(x - 40, y + 30, steps=5)
  # While it is held: the handle is under the pointer, the curve bends at once,
  # dose, goals and picture follow.
  box = page.locator('.handle.pulled').bounding_box()
  assert box['x'] + box['width'] / 2 == pytest.approx(x - 40, abs=1)
  assert box['y'] + box['height'] / 2 == pytest.approx(y + 30, abs=1)
  page.wait_for_selector('body[data-preview]:not([data-preview=""])')
  expect(page.locator('#goals')).not_to_have_attribute('data-achieved', goals)
  assert curve(page, 'desired') != desired
  assert curve(page, 'achieved') != achieved
  assert page.locator('[data-plane=axial] canvas').screenshot() != picture
  assert state(page, 'step') == '0'
  page.mouse.up()
  page.wait_for_selector(f'{READY}[data-step="1"]')
  assert state(page, 'fingerprint') != first
  assert curve(page, 'before') == achieved
  assert dose_of(page, state(page, 'dose')) != before

  page.click('#undo')
  page.wait_for_selector(f'{READY}[data-step="0"]')
  assert state(page, 'fingerprint') == first
  assert dose_of(page, 'step-0') == before
  page.keyboard.press('Control+Shift+Z')
  page.wait_for_selector(f'{READY}[data-step="1"]')
  assert state(page, 'fingerprint') != first


def test_the_wish_goes_through_the_handle(page):
  pull(page)
  handle = page.locator('.handle.pinned')
  assert handle.count() == 1
  dose = float(handle.get_attribute('data-gy'))
  volume = float(handle.get_attribute('data-percent'))
  wished = page.evaluate(
    """async ([session, dose]) => {
      const api = await import('/api.js');
      const curves = await import('/curves.js');
      const state = await api.session(session);
      const step = state.steps[1];
      return curves.volumeAtDose(curves.curvePoints(
        step.desired[1], state.dvh, step.desired_reference_gy), dose);
    }""",
    [state(page, 'session'), dose],
  )
  assert wished == pytest.approx(volume, abs=0.1)


def test_a_handle_by_keys(page):
  handle = rectum_handle(page)
  key = handle.get_attribute('data-key')
  volume = float(handle.get_attribute('data-percent'))
  handle.focus()
  page.keyboard.press('Shift+ArrowDown')
  page.wait_for_selector(f'{READY}[data-step="1"]')
  moved = page.locator(f'.handle[data-key="{key}"]')
  assert float(moved.get_attribute('data-percent')) == pytest.approx(
    volume - 5, abs=0.01
  )
  expect(moved).to_be_focused()
  # Escape takes a pull back.
  page.keyboard.press('ArrowDown')
  page.keyboard.press('Escape')
  page.wait_for_selector(f'{READY}[data-step="1"]')
  assert float(moved.get_attribute('data-percent')) == pytest.approx(
    volume - 5, abs=0.01
  )
  page.keyboard.press('Delete')
  expect(page.locator('.handle.pinned')).to_have_count(0)


def test_typing_a_goal_bends_the_curve(page):
  desired = curve(page, 'desired')
  set_goals(page)
  for text in GOALS:
    expect(page.locator(f'[data-goal="{text}"]')).to_have_attribute(
      'data-met', re.compile('true|false')
    )
  expect(page.locator(f'{READY}')).not_to_have_attribute('data-step', '0')
  assert curve(page, 'desired') != desired


def test_export_has_the_gy_of_the_screen(page, tmp_path):
  pull(page)
  shown = page.locator('#reading')
  i, j, k = map(int, shown.get_attribute('data-voxel').split(','))
  dose_gy = float(shown.get_attribute('data-gy'))
  assert dose_gy > 1
  page.click('#export summary')
  with page.expect_download() as download:
    page.click('[data-what=rtdose]')
  path = tmp_path / 'dose.dcm'
  download.value.save_as(path)
  assert 'p6' not in download.value.suggested_filename
  dataset = pydicom.dcmread(path)
  written = dataset.pixel_array * float(dataset.DoseGridScaling)
  assert written[k, j, i] == pytest.approx(dose_gy, abs=0.01)


def test_reload_and_a_second_tab(page):
  pull(page)
  fingerprint = state(page, 'fingerprint')
  assert page.title() == 'dvhflax' and 'p6' not in page.url
  page.reload()
  page.wait_for_selector(f'{READY}[data-step="1"]')
  assert state(page, 'fingerprint') == fingerprint
  second = page.context.new_page()
  second.goto(page.url)
  second.wait_for_selector(f'{READY}[data-step="1"]')
  second.wait_for_selector('#dvh[data-painted]')
  page.bring_to_front()
  pull(page)
  second.wait_for_selector(f'{READY}[data-step="2"]')
  expect(second.locator('body')).to_have_attribute(
    'data-fingerprint', state(page, 'fingerprint')
  )


def test_a_server_that_stops_and_comes_back(browser, trained_run, tmp_path):
  with (
    Server(trained_run, tmp_path) as server,
    # What the browser itself says of a lost server is no fault of the page.
    contextlib.closing(browser.new_context()) as context,
  ):
    page = open_patient(context.new_page(), server)
    pull(page)
    fingerprint = state(page, 'fingerprint')
    server.stop()
    page.wait_for_selector('body[data-connection=lost]')
    expect(page.locator('#banner')).to_be_visible()
    server.start()
    page.wait_for_selector(f'{READY}[data-connection=live][data-step="1"]')
    expect(page.locator('#banner')).to_be_hidden()
    assert state(page, 'fingerprint') == fingerprint
    pull(page)
    # Another browser finds it among the earlier sessions.
    other = context.new_page()
    other.goto(server.url)
    other.locator('#session-list button').first.click()
    other.wait_for_selector(f'{READY}[data-step="2"]')


def write_nifti(folder, patient):
  """Masks of `[X, Y, Z, S]`, a file a structure."""
  folder.mkdir(parents=True)
  affine = np.diag([-3.0, -3.0, 5.0, 1.0])
  for s, structure in enumerate(STRUCTURES):
    image = nibabel.Nifti1Image(patient.masks[..., s], affine)
    nibabel.save(image, folder / f'{structure.name}.nii.gz')


def drop(page, folder):
  """Drops a folder of this machine onto the page, as a mouse does."""
  box = page.locator('#drop').bounding_box()
  session = page.context.new_cdp_session(page)
  for kind in ('dragEnter', 'dragOver', 'drop'):
    session.send(
      'Input.dispatchDragEvent',
      {
        'type': kind,
        'x': box['x'] + 40,
        'y': box['y'] + 20,
        'data': {'items': [], 'files': [str(folder)], 'dragOperationsMask': 1},
      },
    )


def test_a_dropped_folder_and_a_broken_one(browser, server, tmp_path):
  from conftest import make_patient

  write_nifti(tmp_path / 'someone', make_patient(9))
  (tmp_path / 'broken').mkdir()
  (tmp_path / 'broken' / 'notes.txt').write_text('no image')
  with watched(browser, refusals=True) as context:
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector('[data-listed]')
    drop(page, tmp_path / 'broken')
    page.wait_for_selector('#drop[data-state=failed]')
    expect(page.locator('.message.error')).to_be_visible()
    drop(page, tmp_path / 'someone')
    page.wait_for_selector('#drop[data-state=done]')
    expect(page.locator('#upload-report')).to_contain_text('rectum')
    page.locator('#upload-patients button').first.click()
    page.wait_for_selector(READY)
    expect(page.locator('#who')).to_contain_text('someone')
    assert 'someone' not in page.url


def test_a_marker_voxel_lies_where_it_belongs(browser, server):
  """On the screen, in every plane: to less than a pixel."""
  units = np.zeros(GRID[::-1], '<u2')
  units[MARKER[::-1]] = 1000
  with watched(browser) as context:
    context.route(
      '**/doses/*',
      lambda route: route.fulfill(
        body=units.tobytes(), headers={'X-Gy-Per-Unit': '0.078'}
      ),
    )
    page = open_patient(context.new_page(), server)
    for label in ('lines', 'contours'):
      page.locator('#legend label', has_text=label).click()
    # The cross in the marker's slice, but away from it.
    for name, cross in (
      ('axial', (3, 4, 1)),
      ('sagittal', (5, 4, 3)),
      ('coronal', (3, 2, 3)),
    ):
      move_cross(page, cross)
      found = warmth(page, name)
      expected = place_on_screen(page, name, MARKER)
      assert found == pytest.approx(expected, abs=0.75)


def move_cross(page, voxel):
  """By keys on the axial plane."""
  canvas = page.locator('figure[data-plane=axial] canvas')
  canvas.focus()
  keys = (
    ('ArrowRight', 'ArrowLeft'),
    ('ArrowDown', 'ArrowUp'),
    ('PageUp', 'PageDown'),
  )
  now = map(int, canvas.get_attribute('data-voxel').split(','))
  for wanted, here, (forward, back) in zip(voxel, now, keys):
    for _ in range(abs(wanted - here)):
      page.keyboard.press(forward if wanted > here else back)
  expect(canvas).to_have_attribute('data-voxel', ','.join(map(str, voxel)))


def warmth(page, plane):
  """Where on the screen the wash of a high dose lies, within a plane."""
  box = page.locator(f'figure[data-plane={plane}] canvas').bounding_box()
  picture = page.screenshot()
  with Image.open(io.BytesIO(picture)) as image:
    red, _, blue = np.asarray(image.convert('RGB'), float).transpose(2, 0, 1)
  # Neither the letters in the rim nor the purple of low doses.
  weight = np.clip(red - blue - 25, 0, None)
  rows, columns = np.indices(weight.shape)
  inner = weight * (
    (abs(columns - box['x'] - box['width'] / 2) < box['width'] / 2 - 20)
    & (abs(rows - box['y'] - box['height'] / 2) < box['height'] / 2 - 20)
  )
  return [
    float(((axis + 0.5) * inner).sum() / inner.sum())
    for axis in (columns, rows)
  ]


def place_on_screen(page, plane, voxel):
  """Where the centre of a voxel belongs, the whole grid being in the middle."""
  box = page.locator(f'figure[data-plane={plane}] canvas').bounding_box()
  across, down, sign = {
    'axial': (0, 1, 1),
    'sagittal': (1, 2, -1),
    'coronal': (0, 2, -1),
  }[plane]
  sides = np.array([box['width'], box['height']]) - 2 * 14
  axes = [across, down]
  extent = np.array(GRID)[axes] * SPACING[axes]
  pixels_a_mm = (sides / extent).min()
  off = (np.array(voxel) - (np.array(GRID) - 1) / 2)[axes] * SPACING[axes]
  off *= [1, sign]
  return [
    box['x'] + box['width'] / 2 + off[0] * pixels_a_mm,
    box['y'] + box['height'] / 2 + off[1] * pixels_a_mm,
  ]


def test_difference_and_beside_and_an_earlier_dose(page):
  pull(page)
  canvas = page.locator('figure[data-plane=axial] canvas')
  dose = canvas.screenshot()
  page.click('label:has-text("A − B")')
  assert canvas.screenshot() != dose
  page.click('label:has-text("A | B")')
  beside = page.locator('figure[data-beside=true] canvas')
  expect(beside).to_be_visible()
  expect(beside).to_have_attribute('data-painted', 'true')
  assert beside.bounding_box()['width'] == pytest.approx(
    canvas.bounding_box()['width'], abs=2
  )
  page.select_option('#dose-b', 'plan-0')
  page.wait_for_selector('#dose[data-b=plan-0]')
  assert curve(page, 'before')  # computed from the plan's dose
  page.click('.chip[data-step="0"]')
  page.wait_for_selector('#dose[data-a=step-0]')
  expect(page.locator('.handle')).to_have_count(0)
  page.click('.chip[data-step="1"]')
  expect(page.locator('.handle').first).to_be_visible()


@pytest.mark.parametrize(
  'size', [(1280, 720), (3840, 2160)], ids=['1280x720', '4K']
)
def test_nothing_is_cut_off(browser, server, size):
  with watched(browser) as context:
    page = context.new_page()
    page.set_viewport_size({'width': size[0], 'height': size[1]})
    open_patient(page, server)
    pull(page, dx=-size[0] // 50, dy=size[1] // 40)
    outside = page.evaluate("""() => {
      const [w, h] = [innerWidth, innerHeight];
      return [...document.querySelectorAll(
        'button, select, .bar, #legend, canvas, #dvh, #steps')]
        .filter((e) => e.checkVisibility() && !e.closest('.menu-body'))
        .filter((e) => {
          const box = e.getBoundingClientRect();
          return box.left < -1 || box.right > w + 1 || box.top < -1 ||
            box.bottom > h + 1;
        }).map((e) => e.outerHTML.slice(0, 80));
    }""")
    assert outside == []
    assert page.evaluate(
      '() => document.documentElement.scrollWidth <= innerWidth'
    )


def test_every_control_has_a_name(page):
  nameless = page.evaluate("""() => [...document.querySelectorAll(
    'button, input, select, canvas, [role=slider]')]
    .filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') ||
      e.labels?.length || e.getAttribute('aria-labelledby')))
    .map((e) => e.outerHTML.slice(0, 100))""")
  assert nameless == []


def test_memory_stays_flat_over_2000_moves(page):
  session = page.context.new_cdp_session(page)
  session.send('HeapProfiler.enable')

  def used():
    session.send('HeapProfiler.collectGarbage')
    usage = session.send('Runtime.getHeapUsage')
    return usage['usedSize'] + usage.get('backingStorageSize', 0)

  x, y = grab(page, rectum_handle(page))
  sizes = []
  for _ in range(4):
    for n in range(500):
      page.mouse.move(x - 5 - n % 40, y + 5 + n % 30)
    sizes.append(used())
  page.mouse.up()
  assert sizes[-1] < sizes[0] + 2e6
