"""The page without a mouse: all is reached, and the focus is never lost."""

import pytest

from app.browsing import READY, need_a_browser, rectum_handle, state, watched

need_a_browser()

from playwright.sync_api import expect  # noqa: E402

pytestmark = pytest.mark.slow

# What can be done on the page now, each with a number; a radio of several.
MARK = """() => [...document.querySelectorAll(
    'button, input, select, summary, canvas, .handle')].filter((one) =>
    one.checkVisibility() && !one.disabled && !one.closest('[hidden]') &&
    one.getAttribute('tabindex') !== '-1' &&
    !(one.type === 'radio' && !one.checked)).map((one, n) => {
      one.dataset.walked = n;
      return one.ariaLabel || one.textContent || one.id;
    })"""
# Which of them has the focus, and whether one sees it.
FOCUSED = """() => {
  const one = document.activeElement;
  const seen = (element, what) =>
    Boolean(element) && getComputedStyle(element)[what] !== 'none';
  const within = one.closest('label');
  const box = one.getBoundingClientRect();
  return [one.dataset?.walked ?? null, box.bottom > 0 &&
    box.top < innerHeight && (seen(one, 'outlineStyle') ||
    seen(within, 'outlineStyle') || seen(one.querySelector('.grip'), 'stroke'))]
}"""


def walk(page):
  """Everything that Tab reaches until it leaves the page."""
  names = page.evaluate(MARK)
  reached = set()
  for _ in range(len(names) + 20):
    page.keyboard.press('Tab')
    number, seen = page.evaluate(FOCUSED)
    if number is not None:
      assert seen, names[int(number)]
      reached.add(int(number))
  return [name for n, name in enumerate(names) if n not in reached]


def press(page, locator, *keys):
  locator.focus()
  for key in keys:
    page.keyboard.press(key)


def test_everything_is_reached_and_seen(browser, server):
  with watched(browser) as context:
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector('#start[data-listed]')
    assert not walk(page)
    press(page, page.locator('[data-patient=p6]'), 'Enter')
    page.wait_for_selector(READY)
    page.wait_for_selector('#dvh[data-painted]')
    # On from the top, not from where the list of patients was.
    expect(page.locator('#who')).to_be_focused()
    press(page, rectum_handle(page), 'Shift+ArrowDown')
    page.wait_for_selector(f'{READY}[data-step="1"]')
    press(page, page.locator('#goal-added'))
    page.keyboard.type('rectum V40 <= 90%')
    page.keyboard.press('Enter')
    page.wait_for_selector('[data-goal="rectum V40 <= 90%"]')
    page.wait_for_selector(READY)
    page.locator('#who').focus()
    assert not walk(page)
    press(page, page.locator('#to-start'), 'Enter')
    expect(page.locator('#patient-search')).to_be_focused()


def test_menus_give_the_focus_back(page):
  for menu in ('#export', '#goals .menu'):
    summary = page.locator(f'{menu} summary')
    press(page, summary, 'Enter', 'Tab', 'Escape')
    expect(summary).to_be_focused()
    expect(page.locator(f'{menu}[open]')).to_have_count(0)
  # And close when one goes on.
  press(page, page.locator('#export summary'), 'Enter', *['Tab'] * 7)
  expect(page.locator('#theme')).to_be_focused()
  expect(page.locator('#export[open]')).to_have_count(0)
  with page.expect_download():
    press(page, page.locator('#export summary'), 'Enter', *['Tab'] * 5, 'Enter')
  expect(page.locator('#export summary')).to_be_focused()


def test_what_is_made_anew_keeps_the_focus(page):
  press(page, rectum_handle(page), 'Shift+ArrowDown')
  page.wait_for_selector(f'{READY}[data-step="1"]')
  # Steps: A, B with Shift, back and forth.
  chips = page.locator('.chip')
  press(page, chips.nth(0), 'Enter')
  page.wait_for_selector('#dose[data-a=step-0]')
  expect(chips.nth(0)).to_be_focused()
  press(page, chips.nth(1), 'Shift+Enter')
  page.wait_for_selector('#dose[data-a=step-0][data-b=step-1]')
  expect(chips.nth(1)).to_be_focused()
  press(page, chips.nth(1), 'Enter')
  press(page, page.locator('#undo'), 'Enter')
  page.wait_for_selector(f'{READY}[data-step="0"]')
  expect(page.locator('#redo')).to_be_focused()  # there is no more to undo
  page.keyboard.press('Enter')
  page.wait_for_selector(f'{READY}[data-step="1"]')
  # Isodoses, also where one passes another.
  levels = page.locator('.isodoses input[type=number]')
  press(page, page.locator('.isodoses [type=checkbox]').nth(1), 'Space')
  expect(page.locator('.isodoses [type=checkbox]').nth(1)).to_be_focused()
  levels.nth(1).focus()
  for _ in range(8):
    page.keyboard.press('ArrowUp')
    page.wait_for_timeout(50)
  expect(levels.nth(0)).to_be_focused()
  expect(levels.nth(0)).to_have_value('108')
  # Goals: changed, removed.
  added = page.locator('#goal-added')
  for text in ('rectum V40 <= 90%', 'rectum mean <= 70 Gy'):
    added.fill(text)
    press(page, added, 'Enter')
    page.wait_for_selector(f'[data-goal="{text}"]')
    page.wait_for_selector(READY)
  row = page.locator('[data-goal="rectum V40 <= 90%"] .goal-text')
  row.fill('rectum V40 <= 95%')
  press(page, row, 'Enter')
  changed = page.locator('[data-goal="rectum V40 <= 95%"]')
  expect(changed.get_by_text('pull')).to_be_focused()
  while page.locator('[data-goal]').count():
    left = page.locator('[data-goal]').count()
    press(page, page.locator('[data-goal] .icon').first, 'Enter')
    expect(page.locator('[data-goal]')).to_have_count(left - 1)
    page.wait_for_selector(READY)
    if left > 1:
      expect(page.locator('[data-goal] .icon').first).to_be_focused()
  expect(added).to_be_focused()


def test_handles_structures_and_planes_by_keys(page):
  press(page, rectum_handle(page), '+')
  expect(page.locator('.handle.pinned[data-structure=rectum]')).to_be_focused()
  page.keyboard.press('ArrowDown')
  page.keyboard.press('Enter')
  page.wait_for_selector(f'{READY}[data-step="1"]')
  press(page, page.locator('.swatch').nth(1), 'Shift+Enter')
  expect(page.locator('.swatch[aria-pressed=true]')).to_have_count(1)
  press(page, page.locator('[data-plane=sagittal] .enlarge'), 'Enter')
  canvas = page.locator('[data-plane=sagittal] canvas')
  expect(canvas).to_be_focused()
  before = canvas.get_attribute('data-voxel')
  page.keyboard.press('PageUp')
  expect(canvas).not_to_have_attribute('data-voxel', before)
  assert state(page, 'step') == '1'
