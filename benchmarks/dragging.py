"""How fast doses follow a handle that is dragged, the browser included.

python benchmarks/dragging.py --workdir=RUN [--patient=KEY] [--seconds=15]
  [--patients=20]

Starts `dvhflax app` and headless Chromium (Debian's, with Playwright), opens a
patient, drags a handle of its rectum back and forth at 60 movements a second,
and rests from time to time. Prints how many doses were shown a second while it
moved, how long after its last movement before a rest the dose for it was shown,
and the memory of the server at the beginning and at the end. Then opens so many
patients one after another, in turn where there are fewer, moves a handle in
each, and prints the memory of the server after each.
"""

import argparse
import math
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np
from playwright.sync_api import sync_playwright
import psutil

CHROMIUM = '/usr/bin/chromium'
READY = 'body[data-ready="true"]'
# Movements a second; seconds of moving before each rest.
RATE, MOVING_S = 60, 1.5
# When each dose was on the screen: `data-preview` is set when it is painted.
WATCH = """
  window.shown = [];
  new MutationObserver(() => {
    const seq = document.body.dataset.preview;
    if (seq) requestAnimationFrame(() =>
      window.shown.push([performance.now(), Number(seq)]));
  }).observe(document, {subtree: true, attributeFilter: ['data-preview']});
"""


def serve(workdir, sessions):
  """The process of `dvhflax app`, and its address."""
  process = subprocess.Popen(
    [
      *(sys.executable, '-m', 'dvhflax', 'app', '--nobrowser'),
      *(f'--workdir={workdir}', f'--sessions={sessions}'),
    ],
    stdout=subprocess.PIPE,
    text=True,
  )
  for line in process.stdout:
    if found := re.search(r'http://\S+', line):
      return process, found[0]
  raise SystemExit('the server ended without an address')


def drag(page, x, y, seconds):
  """Doses a second while moving, and seconds after each last movement."""
  rates, waits = [], []
  end = time.perf_counter() + seconds
  while time.perf_counter() < end:
    before = page.evaluate('shown.length')
    start = time.perf_counter()
    n = 0
    while time.perf_counter() < start + MOVING_S:
      turn = 2 * math.pi * n / RATE
      page.mouse.move(
        x - 20 + 15 * math.sin(turn), y + 15 + 10 * math.cos(turn)
      )
      n += 1
      time.sleep(max(0, start + n / RATE - time.perf_counter()))
    moved = page.evaluate('performance.now()')
    moving = time.perf_counter() - start
    rates.append((page.evaluate('shown.length') - before) / moving)
    page.wait_for_timeout(1000)
    last = page.evaluate('shown.at(-1)[0]')
    waits.append(max(0.0, (last - moved) / 1000))
  return rates, waits


def visit(page, process, patients):
  """MB of the server after each of so many patients, a step taken in each."""
  found = []
  for n in range(patients):
    page.click('#to-start')
    choices = page.locator('#patient-list button:enabled')
    choices.first.wait_for()
    choices.nth(n % choices.count()).click()
    page.wait_for_selector(READY, timeout=120_000)
    page.wait_for_selector('.handle[data-structure=rectum]')
    page.wait_for_function("document.body.dataset.step === '0'")
    box = page.locator('.handle[data-structure=rectum]').first.bounding_box()
    x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 20, y + 15, steps=10)
    page.mouse.up()
    page.wait_for_selector(f'{READY}[data-step="1"]', timeout=120_000)
    found.append(psutil.Process(process.pid).memory_info().rss / 1e6)
  return found


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--patient', help='key; by default the first')
  parser.add_argument('--seconds', type=float, default=15)
  parser.add_argument('--patients', type=int, default=20)
  given = parser.parse_args()
  chosen = (
    f'[data-patient={given.patient}]' if given.patient else '[data-patient]'
  )
  folder = tempfile.TemporaryDirectory()
  begun = time.perf_counter()
  process, url = serve(given.workdir, folder.name)
  listening = time.perf_counter() - begun
  try:
    with sync_playwright() as play:
      browser = play.chromium.launch(
        executable_path=CHROMIUM, args=['--no-sandbox']
      )
      page = browser.new_page(viewport={'width': 1920, 'height': 1080})
      page.add_init_script(WATCH)
      page.goto(url)
      page.locator(chosen).first.click()
      page.wait_for_selector(READY, timeout=120_000)
      page.wait_for_selector('#dvh[data-painted]')
      first = time.perf_counter() - begun
      box = page.locator('.handle[data-structure=rectum]').first.bounding_box()
      x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
      page.mouse.move(x, y)
      page.mouse.down()
      drag(page, x, y, 3)  # compiled, warm
      memory = psutil.Process(process.pid).memory_info().rss
      rates, waits = drag(page, x, y, given.seconds)
      grown = psutil.Process(process.pid).memory_info().rss - memory
      page.mouse.up()
      page.wait_for_selector(f'{READY}[data-step="1"]', timeout=120_000)
      visited = visit(page, process, given.patients)
      browser.close()
  finally:
    process.terminate()
    process.wait()
    folder.cleanup()
  print(f'address after {listening:.1f} s, first dose after {first:.1f} s')
  print(
    f'doses a second while dragging: median {np.median(rates):.1f}, '
    f'least {min(rates):.1f}'
  )
  print(
    f'dose of the last movement after: median {np.median(waits):.3f} s, '
    f'95% within {np.quantile(waits, 0.95):.3f} s'
  )
  print(f'memory of the server: {memory / 1e6:.0f} MB, {grown / 1e6:+.0f} MB')
  print(
    f'after each of {given.patients} patients, MB: '
    f'{" ".join(f"{mb:.0f}" for mb in visited)}'
  )


if __name__ == '__main__':
  main()
