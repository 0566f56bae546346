"""requirements.lock has a version of all that is asked for."""

import configparser
import pathlib
import re
import tomllib

from packaging.requirements import Requirement
import pytest

ROOT = pathlib.Path(__file__).parents[1]
LOCK = (ROOT / 'requirements.lock').read_text()


@pytest.fixture(scope='module')
def locked() -> dict[str, str]:
  entries = re.split(r'\n(?=\w)', LOCK.strip())
  found = {}
  for entry in entries:
    pinned = re.match(r'([\w.-]+)==([\w.]+)( ; .+)? \\\n', entry)
    assert pinned, entry
    hashes = entry[pinned.end() :].split()
    assert {h for h in hashes if h != '\\'} == set(
      re.findall(r'--hash=sha256:[0-9a-f]{64}(?!\S)', entry)
    )
    found[pinned[1]] = pinned[2]
  return found


def asked() -> list[Requirement]:
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  texts = [setup['options']['install_requires']]
  texts += [setup['options.extras_require'][k] for k in ('dev', 'docs')]
  texts += [
    setup['options.extras_require'][k]
    for k in ('app', 'cluster', 'dicom', 'nifti', 'onnx')
  ]
  lines = [line for text in texts for line in text.splitlines()]
  build = tomllib.loads((ROOT / 'pyproject.toml').read_text())['build-system']
  return [
    Requirement(line)
    for line in [*lines, *build['requires']]
    if line.strip() and not line.startswith(('#', 'dvhflax['))
  ]


def test_every_requirement_is_locked(locked):
  requirements = asked()
  assert len(requirements) > 30
  for requirement in requirements:
    name = re.sub('[-_.]+', '-', requirement.name).lower()
    assert name in locked, f'{name}: run .ci/lock'
    assert locked[name] in requirement.specifier, f'{requirement}: run .ci/lock'


def test_no_registry_is_named():
  assert '://' not in LOCK and '--index' not in LOCK
