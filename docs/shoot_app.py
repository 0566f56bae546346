"""Takes the pictures of the page: docs/app_dark.png, docs/app_light.png.

python docs/shoot_app.py [--network=prostate | --workdir=RUN] [--folder=docs]

Needs Debian's Chromium and Playwright. A patient is opened, and the curves of
rectum and bladder are pulled down; the pictures are of the page after that,
dark, and of the difference to the step before, light.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

from playwright.sync_api import sync_playwright

CHROMIUM = '/usr/bin/chromium'
READY = 'body[data-ready="true"]'
SIZES = {'': (1440, 810)}
# With --all: as the page is looked at before a release.
MORE = {'_1280': (1280, 720), '_4k': (3840, 2160)}


def serve(network, sessions):
  process = subprocess.Popen(
    [
      *(sys.executable, '-m', 'dvhflax', 'app', '--nobrowser'),
      *(network, f'--sessions={sessions}'),
    ],
    stdout=subprocess.PIPE,
    text=True,
  )
  for line in process.stdout:
    if found := re.search(r'http://\S+', line):
      return process, found[0]
  raise SystemExit('the server ended without an address')


def pull(page, structure, which, dx, dy):
  """Drags a handle of a structure, and waits for the step."""
  step = int(page.locator('body').get_attribute('data-step')) + 1
  handle = page.locator(f'.handle[data-structure={structure}]').nth(which)
  box = handle.bounding_box()
  x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
  page.mouse.move(x, y)
  page.mouse.down()
  page.mouse.move(x + dx, y + dy, steps=8)
  page.wait_for_timeout(300)
  page.mouse.up()
  page.wait_for_selector(f'{READY}[data-step="{step}"]', timeout=60_000)


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--network', default='prostate')
  parser.add_argument('--workdir')
  parser.add_argument('--folder', type=pathlib.Path, default='docs')
  parser.add_argument('--patient', help='key; by default the first')
  parser.add_argument('--all', action='store_true')
  given = parser.parse_args()
  chosen = (
    f'[data-patient={given.patient}]' if given.patient else '[data-patient]'
  )
  source = f'--network={given.network}'
  if given.workdir:
    source = f'--workdir={given.workdir}'
  with tempfile.TemporaryDirectory() as sessions:
    process, url = serve(source, sessions)
    try:
      with sync_playwright() as play:
        browser = play.chromium.launch(
          executable_path=CHROMIUM, args=['--no-sandbox']
        )
        for name, (width, height) in {
          **SIZES,
          **(MORE if given.all else {}),
        }.items():
          for scheme in ('dark', 'light'):
            context = browser.new_context(
              viewport={'width': width, 'height': height},
              color_scheme=scheme,
            )
            page = context.new_page()
            page.goto(url)
            page.locator(chosen).first.click()
            page.wait_for_selector(READY, timeout=120_000)
            page.wait_for_selector('#dvh[data-painted]')
            page.wait_for_timeout(500)
            scale = width / SIZES[''][0]
            pull(page, 'rectum', 1, -40 * scale, 25 * scale)
            pull(page, 'bladder', 1, -15 * scale, 12 * scale)
            if scheme == 'light':
              page.get_by_text('A − B', exact=True).click()
            page.mouse.move(5, 5)
            page.wait_for_timeout(500)
            page.screenshot(path=given.folder / f'app_{scheme}{name}.png')
            context.close()
        browser.close()
    finally:
      process.terminate()
      process.wait()


if __name__ == '__main__':
  main()
