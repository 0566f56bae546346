"""The page in a browser: a server of its own, and what a user does."""

import contextlib
import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

CHROMIUM = pathlib.Path('/usr/bin/chromium')
ROOT = pathlib.Path(__file__).parents[2]
READY = 'body[data-ready="true"]'
GOALS = ['rectum mean <= 5 Gy', 'PTV D95 >= 10 Gy']


def need_a_browser():
  """Skips a module without one, or fails where they are wanted."""
  lacking = [
    name
    for name in ('starlette', 'uvicorn', 'websockets', 'playwright')
    if not importlib.util.find_spec(name)
  ]
  if not CHROMIUM.exists():
    lacking.append(str(CHROMIUM))
  if not lacking:
    return
  reason = f'browser tests need {", ".join(lacking)}'
  if os.environ.get('DVHFLAX_BROWSER_TESTS') == 'required':
    pytest.fail(reason, pytrace=False)
  pytest.skip(reason, allow_module_level=True)


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


def launch(play):
  """Chromium, which has no sandbox for root."""
  return play.chromium.launch(
    executable_path=str(CHROMIUM), args=['--no-sandbox']
  )


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
  assert not complaints and not elsewhere, (complaints, elsewhere)


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
