"""Pulling curves in a browser, on a server of the tiny run."""

import contextlib
import re

from conftest import STRUCTURES, make_patient
import nibabel
import numpy as np
import pydicom
import pytest

from app.browsing import (
  GOALS,
  READY,
  Server,
  curve,
  dose_of,
  drop,
  grab,
  need_a_browser,
  open_patient,
  pull,
  rectum_handle,
  set_goals,
  state,
  watched,
)

need_a_browser()
from playwright.sync_api import expect  # noqa: E402

expect.set_options(timeout=60_000)
pytestmark = pytest.mark.slow


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


def test_a_dropped_folder_and_a_broken_one(browser, server, tmp_path):
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
