"""Takes the README's pictures of the page.

    python docs/shoot_app.py --workdir=runs/small

starts `dvhflax app` on a run with sessions of its own, opens a patient in
Chromium (playwright), pulls a handle of the rectum's curve, and writes
`page_dark.png` and `page_light.png`. `--size=3840x2160` is for other screens.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

from playwright import sync_api

CHROMIUM = '/usr/bin/chromium'
READY = 'body[data-ready="true"]'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', required=True, help='a run or a bundle')
  parser.add_argument('--patient', help='its name on the page; else the last')
  parser.add_argument('--size', default='1440x900')
  parser.add_argument('--output', default=str(pathlib.Path(__file__).parent))
  values = parser.parse_args()
  width, height = map(int, values.size.split('x'))
  with tempfile.TemporaryDirectory() as sessions:
    server = subprocess.Popen(
      [
        *(sys.executable, '-m', 'dvhflax', 'app', '--nobrowser'),
        f'--workdir={values.workdir}',
        f'--sessions={sessions}',
      ],
      stdout=subprocess.PIPE,
      text=True,
    )
    try:
      assert server.stdout
      found = re.search(r'http://\S+token=\S+', server.stdout.readline())
      assert found
      with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(
          executable_path=CHROMIUM, args=['--no-sandbox']
        )
        for theme in ('dark', 'light'):
          page = browser.new_page(
            viewport={'width': width, 'height': height}, color_scheme=theme
          )
          page.goto(found[0])
          shoot(page, values.patient, theme == 'light')
          path = pathlib.Path(values.output) / f'page_{theme}.png'
          page.screenshot(path=path)
          print(path)
          page.close()
        browser.close()
    finally:
      server.terminate()
      server.wait()


def shoot(page: sync_api.Page, patient: str | None, difference: bool) -> None:
  """Opens a patient, makes a step, and holds a handle or shows what changed."""
  choices = page.locator('#patient-list button')
  choices.first.wait_for()
  chosen = choices.filter(has_text=patient) if patient else choices
  chosen.last.click()
  page.locator(READY).wait_for()
  page.locator('#dvh[data-painted]').wait_for()
  pull(page, 50, -0.05, 0.02)
  page.mouse.up()
  page.locator(f'{READY}[data-step="1"]').wait_for()
  if difference:
    page.click('label:has-text("A − B")')
    area = page.locator('#dvh').bounding_box()
    assert area
    page.mouse.move(
      area['x'] + 0.42 * area['width'], area['y'] + 0.45 * area['height']
    )
    return
  pull(page, 20, -0.03, 0.02)
  page.locator('body[data-preview]:not([data-preview=""])').wait_for()


def pull(page: sync_api.Page, volume: int, right: float, down: float) -> None:
  """Drags the rectum's handle at a volume in %, by fractions of the page."""
  handle = page.locator(
    f'.handle[data-structure=rectum][data-key$=":{volume}"]'
  )
  box, size = handle.bounding_box(), page.viewport_size
  assert box and size
  x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
  page.mouse.move(x, y)
  page.mouse.down()
  page.mouse.move(x + right * size['width'], y + down * size['height'], steps=8)


if __name__ == '__main__':
  main()
