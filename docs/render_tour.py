"""Runs the cells of docs/tour.py and writes docs/tour.md and its picture.

python docs/render_tour.py
"""

import contextlib
import io
import os
import pathlib
import re
import shutil
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PICTURE = 'tour.png'


def cells() -> list[tuple[str, bool]]:
  """The text of each cell of the tour, and whether it is code."""
  source = (HERE / 'tour.py').read_text(encoding='utf-8')
  found = []
  for cell in re.split(r'^# %%', source, flags=re.MULTILINE)[1:]:
    kind, text = cell.split('\n', 1)
    code = '[markdown]' not in kind
    if not code:
      text = re.sub('^# ?', '', text, flags=re.MULTILINE)
    found.append((text.strip(), code))
  return found


def page(outputs: list[str]) -> str:
  """The tour as Markdown.

  Args:
    outputs: what each code cell printed.
  """
  remaining = iter(outputs)
  parts = []
  for text, code in cells():
    if not code:
      parts.append(text)
      continue
    parts.append(f'```python\n{text}\n```')
    output = next(remaining).rstrip()
    if output:
      parts.append(f'```text\n{output}\n```')
  return '\n\n'.join(parts) + '\n'


def run() -> list[str]:
  """Runs the tour in the working directory; what each code cell printed."""
  names: dict[str, object] = {}
  outputs = []
  for text, code in cells():
    if code:
      printed = io.StringIO()
      with contextlib.redirect_stdout(printed):
        exec(compile(text, 'docs/tour.py', 'exec'), names)
      # Paths as from the working directory.
      outputs.append(printed.getvalue().replace(os.getcwd() + os.sep, ''))
  return outputs


if __name__ == '__main__':
  os.environ['MPLBACKEND'] = 'agg'
  with (
    tempfile.TemporaryDirectory() as folder,
    contextlib.chdir(folder),
  ):
    rendered = page(run())
    shutil.copyfile(PICTURE, HERE / PICTURE)
  (HERE / 'tour.md').write_text(rendered, encoding='utf-8')
