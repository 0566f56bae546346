"""The browser of the tests, or the reason why there is none."""

import importlib
import os
import pathlib
from typing import Any

import pytest

CHROMIUM = pathlib.Path('/usr/bin/chromium')
# Where it is set, a test that finds no browser fails.
REQUIRED = 'DVHFLAX_BROWSER_TESTS_REQUIRED'


def required() -> Any:
  """`playwright.sync_api`; a module of tests is skipped without it."""
  lacking = []
  for name in ('playwright.sync_api', 'starlette', 'uvicorn', 'websockets'):
    try:
      importlib.import_module(name)
    except ImportError:
      lacking.append(name.partition('.')[0])
  if not CHROMIUM.exists():
    lacking.append(str(CHROMIUM))
  if lacking:
    why = f'browser tests need {", ".join(lacking)}'
    if os.environ.get(REQUIRED):
      pytest.fail(f'{why}, and {REQUIRED} is set')
    pytest.skip(why, allow_module_level=True)
  return importlib.import_module('playwright.sync_api')


def launch(play: Any) -> Any:
  """A browser, without the sandbox that root has none of."""
  return play.chromium.launch(
    executable_path=str(CHROMIUM), args=['--no-sandbox']
  )
