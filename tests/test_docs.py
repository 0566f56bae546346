"""The documentation against the code: names, paths, links, drawing, tour."""

import ast
import importlib
import pathlib
import re
import runpy

import pytest
from test_rooms import ROOMS

import dvhflax

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')])
# CONTRIBUTING.md also names modules that its reader is to write.
REFERENCES = [page for page in PAGES if page.name != 'CONTRIBUTING.md']
# Of pyRadPlan.
OF_OTHERS = {'util.py'}
ARCHITECTURE = (ROOT / 'docs/architecture.md').read_text(encoding='utf-8')
TOUR = (ROOT / 'docs/tour.py').read_text(encoding='utf-8')


def for_each(pages: list[pathlib.Path]) -> pytest.MarkDecorator:
  ids = [str(page.relative_to(ROOT)) for page in pages]
  return pytest.mark.parametrize('page', pages, ids=ids)


def resolve(dotted: str) -> object:
  """What a dotted name is of: a module, or an attribute of one."""
  parts = dotted.split('.')
  found, module = importlib.import_module(parts[0]), True
  for i, part in enumerate(parts[1:], 2):
    try:
      found = getattr(found, part)
    except AttributeError:
      if not module:
        raise
      found = importlib.import_module('.'.join(parts[:i]))
    module = hasattr(found, '__file__')
  return found


@for_each(REFERENCES)
def test_names_exist(page):
  text = page.read_text(encoding='utf-8')
  # Lookbehind: no file names such as `my/dvhflax.txt`.
  for dotted in set(re.findall(r'(?<![\w/.])dvhflax(?:\.[A-Za-z_]\w*)+', text)):
    resolve(dotted)


@for_each(REFERENCES)
def test_source_paths_exist(page):
  """A path may leave out folders above it, as `influence.py` does."""
  text = page.read_text(encoding='utf-8')
  paths = re.findall(r'`((?:\w+/)*\w+\.py|dvhflax/[\w/]*)[`:]', text)
  ours = [f'/{p.relative_to(ROOT)}' for p in ROOT.rglob('*.py')]
  missing = [
    path
    for path in paths
    if not (ROOT / path).exists()
    and not any(file.endswith(f'/{path}') for file in ours)
  ]
  assert not set(missing) - OF_OTHERS


@for_each(PAGES)
def test_links_resolve(page):
  text = page.read_text(encoding='utf-8')
  links = re.findall(r'\]\(([^)\s]+)\)', text)
  links = [link.split('#')[0] for link in links if '://' not in link]
  missing = [x for x in links if x and not (page.parent / x).exists()]
  assert not missing


def test_architecture_describes_each_room():
  described = re.findall(r'^\| ([\w ]+) \|', section('Rooms'), re.MULTILINE)
  assert tuple(described[1:]) == ROOMS


def test_drawing_is_of_these_rooms():
  draw = runpy.run_path(str(ROOT / 'docs/draw_architecture.py'))['draw']
  assert draw() == (ROOT / 'docs/architecture.svg').read_text(encoding='utf-8')


def section(title: str) -> str:
  return ARCHITECTURE.split(f'## {title}\n')[1].split('\n## ')[0]


def test_api_pages_hold_each_public_name_once():
  pages = (ROOT / 'docs/api').glob('*.md')
  text = '\n'.join(page.read_text(encoding='utf-8') for page in pages)
  shown = re.findall(r'^::: dvhflax\.(.*)$', text, re.MULTILINE)
  of_config = [n for n in dvhflax.__all__ if n != 'config']
  of_config += [f'config.{n}' for n in dvhflax.config.__all__]
  assert sorted(shown) == sorted(of_config)


def test_tour_uses_public_names_only():
  tree = ast.parse(TOUR)
  used = {
    node.attr
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id == 'dvhflax'
  }
  assert used <= set(dvhflax.__all__)
  assert 'from dvhflax' not in TOUR and 'import dvhflax.' not in TOUR


def test_tour_page_is_of_its_source():
  render = runpy.run_path(str(ROOT / 'docs/render_tour.py'))
  page = (ROOT / 'docs/tour.md').read_text(encoding='utf-8')
  printed = re.compile(r'```text\n(.*?)```', re.DOTALL)
  sources = [text for text, code in render['cells']() if code]
  # The cells that import, and that draw, print nothing.
  outputs = iter(printed.findall(page))
  silent = ['print(' not in text for text in sources]
  assert page == render['page'](
    ['' if quiet else next(outputs) for quiet in silent]
  )


@pytest.fixture
def run_tour(tmp_path, monkeypatch):
  """Runs the cells in a folder of their own; what each printed."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('MPLBACKEND', 'agg')
  return runpy.run_path(str(ROOT / 'docs/render_tour.py'))['run']


@pytest.mark.slow
def test_tour_runs(run_tour):
  outputs = run_tour()
  assert 'rectum' in outputs[-1]
  assert pathlib.Path('tour.png').stat().st_size > 0


def test_cells_of_the_tour_run(run_tour, monkeypatch):
  """With a cohort and a network that are smaller still."""
  build, train = dvhflax.open_or_build_cohort, dvhflax.train

  def build_smaller(config):
    config.cohort.patients = 3
    config.cohort.test_patients = 1
    config.cohort.plans = 2
    config.cohort.grid = (16, 16, 8)
    config.cohort.spacing_mm = (24.0, 16.0, 16.0)
    config.planning.beamlet_mm = 20.0
    config.planning.gap = 0.05
    return build(config)

  def train_smaller(config, cohort, workdir):
    config.epochs = 1
    config.batch_size = 1
    config.model.base_channels = 2
    config.model.max_channels = 2
    config.data.validation_wishes = 1
    config.evaluation.wishes = 2
    return train(config, cohort, workdir)

  monkeypatch.setattr(dvhflax, 'open_or_build_cohort', build_smaller)
  monkeypatch.setattr(dvhflax, 'train', train_smaller)
  outputs = run_tour()
  assert 'shuffled wish' in outputs[-1]
  assert pathlib.Path('tour.png').stat().st_size > 0
