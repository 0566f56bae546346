"""What the page shows, and where: in a browser, on the tiny run."""

import io

from conftest import GRID
import numpy as np
from PIL import Image
import pytest

from app.browsing import (
  curve,
  grab,
  need_a_browser,
  open_patient,
  pull,
  rectum_handle,
  watched,
)

need_a_browser()
from playwright.sync_api import expect  # noqa: E402

expect.set_options(timeout=60_000)
pytestmark = pytest.mark.slow

# Of the tiny cohort's patients, and a voxel of theirs.
SPACING = np.array([3.0, 3.0, 5.0])
MARKER = (5, 2, 1)


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
    # Letters are as warm.
    page.locator('.letter').evaluate_all(
      "all => all.forEach((letter) => { letter.style.visibility = 'hidden'; })"
    )
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
  # Neither what is in the rim nor the purple of low doses.
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
