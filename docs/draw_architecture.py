"""Draws docs/architecture.svg: the way of the data and of the imports.

python docs/draw_architecture.py
"""

import ast
from html import escape
import pathlib

HERE = pathlib.Path(__file__).resolve().parent

# The way of the data: x, y, width, title, what it is or where.
BOXES = {
  'files': (24, 60, 170, 'patient files', 'DICOM-RT, NIfTI, OpenKBP'),
  'simulated': (210, 60, 170, 'simulated anatomy', 'sites, sources'),
  'store': (396, 60, 170, 'another cohort', 'cohort.store'),
  'sources': (117, 160, 170, 'sources', 'read, split, build'),
  'planning': (396, 160, 170, 'planning', 'Pareto-optimal plans'),
  'cohort': (117, 260, 170, 'cohort store', 'masks, doses, DVHs'),
  'training': (117, 360, 170, 'training', 'projection, network, loss'),
  'checkpoint': (117, 460, 170, 'checkpoint', 'of a workdir'),
  'tuning': (24, 560, 170, 'tuning session', 'first dose, wish, dose'),
  'evaluation': (306, 560, 170, 'evaluation', 'all test patients'),
  'dose': (24, 660, 170, 'prediction', 'RTDOSE, NIfTI, trail'),
  'report': (306, 660, 170, 'report', 'tables, figures'),
}
HEIGHT = 56
# Points of the arrows.
ARROWS = (
  ((109, 116), (165, 160)),
  ((270, 116), (240, 160)),
  ((440, 116), (287, 172)),
  ((396, 198), (287, 198)),
  ((202, 216), (202, 260)),
  ((202, 316), (202, 360)),
  ((202, 416), (202, 460)),
  ((165, 516), (109, 560)),
  ((245, 516), (370, 560)),
  ((109, 616), (109, 660)),
  ((391, 616), (391, 660)),
  ((50, 116), (50, 560)),
  ((287, 280), (520, 280), (520, 588), (476, 588)),
)
NOTES = (
  (58, 340, 'external'),
  (58, 356, 'patients'),
  (390, 272, 'test patients'),
)
ROOMS_X, ROOM_WIDTH = 640, 200


def rooms() -> tuple[str, ...]:
  """The rooms in the order of tests/test_rooms.py, from the ground up."""
  source = (HERE.parent / 'tests/test_rooms.py').read_text(encoding='utf-8')
  for node in ast.parse(source).body:
    if isinstance(node, ast.Assign) and node.targets[0].id == 'ROOMS':
      return ast.literal_eval(node.value)
  raise LookupError('tests/test_rooms.py has no ROOMS')


def _box(x, y, width, height, title, under=''):
  middle = x + width / 2
  yield (
    f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" '
    'fill="#ffffff" stroke="#3b5b7a"/>'
  )
  line = y + height / 2 + (-3 if under else 5)
  yield f'<text x="{middle:g}" y="{line:g}" class="t">{escape(title)}</text>'
  if under:
    yield f'<text x="{middle:g}" y="{y + 43}" class="u">{escape(under)}</text>'


def _arrow(points):
  path = ' '.join(f'{x},{y}' for x, y in points)
  return (
    f'<polyline points="{path}" fill="none" stroke="#3b5b7a" '
    'stroke-width="1.5" marker-end="url(#head)"/>'
  )


def draw() -> str:
  """The drawing; its own ground makes it readable on light and dark pages."""
  lines = [
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 870 740" '
    'font-family="sans-serif">',
    '<style>text{fill:#1c2b3a}.t{font-size:15px;text-anchor:middle}'
    '.u,.n{font-size:12px}.u{text-anchor:middle}'
    '.h{font-size:16px;font-weight:bold}</style>',
    '<defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" '
    'refY="4" orient="auto"><path d="M0,0 L9,4 L0,8 Z" fill="#3b5b7a"/>'
    '</marker></defs>',
    '<rect width="870" height="740" rx="10" fill="#eef3f8"/>',
    '<text x="24" y="38" class="h">The way of the data</text>',
    f'<text x="{ROOMS_X}" y="38" class="h">Imports go down</text>',
  ]
  lines += [_arrow(points) for points in ARROWS]
  for x, y, width, title, under in BOXES.values():
    lines += _box(x, y, width, HEIGHT, title, under)
  lines += [
    f'<text x="{x}" y="{y}" class="n">{text}</text>' for x, y, text in NOTES
  ]
  storey = 656 / len(rooms())
  for i, room in enumerate(reversed(rooms())):
    y = round(60 + i * storey, 1)
    lines += _box(ROOMS_X, y, ROOM_WIDTH, round(storey - 8, 1), room)
  lines.append(_arrow(((ROOMS_X - 18, 60), (ROOMS_X - 18, 708))))
  return '\n'.join([*lines, '</svg>']) + '\n'


if __name__ == '__main__':
  (HERE / 'architecture.svg').write_text(draw(), encoding='utf-8')
