"""The rooms of the package, and that imports go one way, down."""

import ast
import pathlib

import dvhflax

PACKAGE = pathlib.Path(dvhflax.__file__).parent

# From the ground up: a module may import from its own room and from those
# before it. docs/architecture.md draws it.
ROOMS = (
  'native',
  'ground',  # modules that lie in dvhflax/ itself
  'sites',
  'wishes',
  'models',
  'planning',
  'io',
  'config',
  'cohort',
  'sources',
  'training',
  'tuning',
  'report',
  'evaluation',
  'app',
  'cli',
)


def room_of(module: str) -> str:
  parts = module.split('.')
  inside = len(parts) > 2 or (PACKAGE / parts[-1]).is_dir()
  return parts[1] if inside else 'ground'


def imports() -> list[tuple[str, str]]:
  """(importing module, imported module), also of imports within functions."""
  found = []
  for path in sorted(PACKAGE.rglob('*.py')):
    inner = path.relative_to(PACKAGE).with_suffix('')
    module = '.'.join(('dvhflax', *inner.parts)).removesuffix('.__init__')
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom) and node.level == 0:
        names = [f'{node.module}.{alias.name}' for alias in node.names]
      found += [(module, n) for n in names if n.startswith('dvhflax.')]
  return found


def test_every_folder_is_a_room():
  folders = {p.parent.relative_to(PACKAGE) for p in PACKAGE.rglob('*.py')}
  rooms = {folder.parts[0] for folder in folders if folder.parts}
  assert rooms == set(ROOMS) - {'ground'}


def test_imports_go_down():
  up = []
  for importing, imported in imports():
    # `dvhflax.files.read` is of the ground: what is imported may be a name.
    parts = imported.split('.')
    room = parts[1] if (PACKAGE / parts[1]).is_dir() else 'ground'
    # The public names, of all rooms, imported when asked for; the command.
    if importing in ('dvhflax', 'dvhflax.__main__'):
      continue
    if ROOMS.index(room) > ROOMS.index(room_of(importing)):
      up.append(f'{importing} imports {imported}')
  assert not up
