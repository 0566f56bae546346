"""What nobody would do on purpose, in a browser: one thing amid another."""

import re

import pytest

from app.browsing import (
  READY,
  grab,
  need_a_browser,
  open_patient,
  pull,
  rectum_handle,
  state,
  watched,
)

need_a_browser()
from playwright.sync_api import expect  # noqa: E402

expect.set_options(timeout=60_000)
pytestmark = pytest.mark.slow

# Of all that this page asks of the server, a new dose is answered late.
SLOW = """
  const ask = window.fetch;
  window.fetch = async (url, ...rest) => {
    if (/steps$/.test(url)) await new Promise((go) => setTimeout(go, 500));
    return ask(url, ...rest);
  };
  null;  // else Playwright calls the function
"""


def body(page):
  return page.locator('body')


def lock(page, name):
  page.click(f'#structures [data-structure={name}] .lock')
  page.locator(f'.handle.locked[data-structure={name}]').first.wait_for()
  page.wait_for_selector(READY)


def test_a_pinned_handle_does_not_keep_a_locked_structure_from_others(page):
  pull(page)  # pins a handle of the rectum
  lock(page, 'rectum')
  x, y = grab(page, page.locator('.handle[data-structure=PTV]').first)
  page.mouse.move(x - 20, y + 10, steps=5)
  page.wait_for_selector('body:not([data-preview=""])')
  page.mouse.up()
  page.wait_for_selector(f'{READY}[data-step="2"]')
  expect(page.locator('#messages .message')).to_have_count(0)


def test_a_locked_handle_is_not_held(page):
  lock(page, 'rectum')
  x, y = grab(page, rectum_handle(page))
  page.mouse.move(x + 90, y + 60, steps=3)
  page.mouse.up()
  page.keyboard.press('ArrowDown')
  # Else the keys' rest would make a step of nothing.
  page.wait_for_timeout(1200)
  assert state(page, 'step') == '0'
  lock_again = page.locator('#structures [data-structure=rectum] .lock')
  lock_again.click()
  expect(page.locator('.handle.locked')).to_have_count(0)
  pull(page)
  expect(page.locator('#undo')).to_be_enabled()


def test_nothing_is_undone_while_a_handle_is_held(page):
  pull(page)
  x, y = grab(page, rectum_handle(page))
  page.mouse.move(x - 20, y + 15, steps=4)
  page.wait_for_selector('body:not([data-preview=""])')
  page.keyboard.press('Control+z')
  page.mouse.move(x - 25, y + 20, steps=4)
  page.mouse.up()
  page.wait_for_selector(f'{READY}[data-step="2"]')
  page.keyboard.press('Control+z')
  page.wait_for_selector(f'{READY}[data-step="1"]')


def test_a_pull_is_compared_with_the_step_that_it_starts_from(page):
  chips = page.locator('.chip[data-step] .ab')
  pull(page)
  expect(chips).to_have_text(['B', 'A'])
  was = float(page.get_attribute('#reading', 'data-gy'))
  x, y = grab(page, page.locator('.handle[data-structure=PTV]').first)
  page.mouse.move(x - 20, y + 15, steps=4)
  page.wait_for_selector('body:not([data-preview=""])')
  expect(chips).to_have_text(['', 'B'])
  # Both in one go: previews go on.
  gy, change = page.evaluate("""() => [
    Number(document.querySelector('#reading').dataset.gy),
    Number.parseFloat(document.querySelector('#reading-change')
      .textContent.replace('\u2212', '-').replace('\u00b1', ''))]""")
  assert change == pytest.approx(gy - was, abs=0.06)
  page.keyboard.press('Escape')
  page.mouse.up()
  expect(chips).to_have_text(['B', 'A'])


def test_a_pull_by_keys_ends_where_one_turns_away(page):
  """No dose stays on the screen that is none of a step."""
  handle = rectum_handle(page)
  handle.focus()
  page.keyboard.press('Shift+ArrowDown')
  grab(page, page.locator('.handle[data-structure=PTV]').first)
  page.mouse.up()
  page.wait_for_selector(f'{READY}[data-step="1"][data-preview=""]')
  # Nor is the focus taken from where one types.
  rectum_handle(page).focus()
  page.keyboard.press('Shift+ArrowDown')
  page.click('#goal-added')
  page.wait_for_selector(f'{READY}[data-step="2"]')
  expect(page.locator('#goal-added')).to_be_focused()


def test_a_patient_that_is_left_does_not_come_back(page):
  page.evaluate(SLOW)
  x, y = grab(page, rectum_handle(page))
  page.mouse.move(x - 20, y + 15, steps=4)
  page.mouse.up()
  page.click('#to-start')
  with page.expect_response('**/steps'):
    pass
  expect(body(page)).to_have_attribute('data-busy', '')
  expect(page.locator('#start')).to_be_visible()
  assert state(page, 'session') == ''
  # The step was taken all the same.
  page.locator('#session-list button').first.click()
  page.wait_for_selector(f'{READY}[data-step="1"]')


def test_the_patient_that_was_chosen_last_is_shown(page):
  page.click('#to-start')
  # The answer for the first comes after that for the second.
  page.evaluate("""
    const ask = window.fetch;
    let asked = 0;
    window.fetch = async (url, ...rest) => {
      const answer = await ask(url, ...rest);
      if (/sessions$/.test(url) && rest[0]?.method === 'POST' && !asked++) {
        await new Promise((go) => setTimeout(go, 3000));
        window.firstIsThere = true;
      }
      return answer;
    };
    null;
  """)
  page.click('[data-patient=p5]')
  page.click('[data-patient=p7]')
  page.wait_for_selector(READY)
  expect(page.locator('#who')).to_have_text('p7')
  page.wait_for_function('window.firstIsThere')
  expect(body(page)).to_have_attribute('data-busy', '')
  session = state(page, 'session')
  expect(page.locator('#who')).to_have_text('p7')
  # A pull is of the patient that is shown.
  pull(page)
  assert state(page, 'session') == session


def test_names_of_templates(page):
  page.click('#goals .menu summary')
  name = page.locator('[aria-label="Name of the template"]')
  save = page.locator('#goals .menu form button')
  name.fill('前立腺')
  name.press('Enter')
  expect(page.locator('.message.error')).to_contain_text('a to z')
  name.fill('Größe Ä')
  name.press('Enter')
  mine = page.locator('.templates button', has_text='gro-e-a')
  expect(mine).to_have_count(1)
  # It is said before another one is written over.
  name.fill('GRÖ-E  a')
  expect(save).to_have_text('replace')
  name.fill('gro')
  expect(save).to_have_text('save')


def test_goals_that_cannot_be_pulled_to_and_edits_that_are_none(
  browser, server
):
  with watched(browser, refusals=True) as context:
    page = open_patient(context.new_page(), server)
    type_impossible_goals(page)


def type_impossible_goals(page):
  before = page.locator('[data-goal]').count()
  # What no dose can be told to keep is refused, and can be mended.
  page.fill('#goal-added', 'rectum V1000 <= 5%')
  page.press('#goal-added', 'Enter')
  expect(page.locator('.message.error')).to_contain_text('are they cGy?')
  expect(page.locator('#goal-added')).to_have_value('rectum V1000 <= 5%')
  assert page.locator('[data-goal]').count() == before
  # More than this organ has: it is there, and the next one can be typed.
  page.fill('#goal-added', 'rectum   D5000cc  <= 5 Gy')
  page.press('#goal-added', 'Enter')
  row = page.locator('[data-goal="rectum D5000cc <= 5 Gy"]')
  expect(row).to_have_attribute('data-met', 'unknown')
  sign = row.locator('.sign')
  expect(sign).to_have_attribute('aria-label', re.compile('all the volume'))
  expect(page.locator('.message.error')).to_contain_text('all the volume')
  expect(page.locator('#goal-added')).to_have_value('')
  # One that is kept needs no step, however it is spaced.
  page.fill('#goal-added', 'rectum  V0 >=  100 %')
  page.press('#goal-added', 'Enter')
  page.locator('[data-goal="rectum V0 >= 100 %"][data-met=true]').wait_for()
  page.wait_for_selector(READY)
  assert state(page, 'step') == '0'
  # What was refused does not stay beside another goal's numbers.
  field = row.locator('.goal-text')
  field.fill('rectum V20 <= -5%')
  field.press('Enter')
  expect(page.locator('.message.error')).to_contain_text('is not a point')
  expect(field).to_be_focused()
  page.click('#note')
  expect(field).to_have_value('rectum D5000cc <= 5 Gy')
  assert page.locator('[data-goal]').count() == before + 2
