"""docs/app_api.md against the server."""

import pathlib
import re

from dvhflax.app import routes

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'app_api.md'
TEXT = PAGE.read_text(encoding='utf-8')
# As the page writes what is in braces in the routes.
WRITTEN = {
  'session': 'S', 'dose': 'ID', 'number': 'N', 'key': 'KEY', 'job': 'J',
  'upload': 'U',
}  # fmt: skip


def test_all_addresses_are_described(served):
  for method, path, _ in routes.addresses(served.desk):
    path = re.sub(r'{(\w+)}', lambda found: WRITTEN[found[1]], path)
    short = path.replace('/api/v1/sessions/S/', '.../').replace('.../', '')
    assert path in TEXT or f'.../{short}' in TEXT, (method, path)
    assert f'`{method}' in TEXT


def test_the_example_runs(served):
  [example] = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)
  example = example.replace("'http://127.0.0.1:8123'", repr(served.url))
  example = example.replace("'TOKEN'", repr(served.access.token))
  found = {}
  exec(example, found)
  assert found['dose_gy'].shape == (8, 8, 4) and found['dose_gy'].max() > 50
  assert found['head']['type'] == 'preview'
  assert len(found['units']) == 8 * 8 * 4
