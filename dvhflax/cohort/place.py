"""Where a finished store lies: in a folder, or at a URL.

A URL is one that TensorStore reads: `gs://BUCKET/PATH`, `s3://BUCKET/PATH`,
`http://HOST/PATH`, `file:///PATH`. Stores are built in folders only: builders
need locks and a rename.
"""

import functools
import os
import re
from typing import Any

import tensorstore as ts

from dvhflax import errors

# What TensorStore raises.
UNREAD = (OSError, RuntimeError, ValueError)
# Each after twice the pause of the one before, from half a second on.
_RETRIES = 4
_URL = re.compile(r'[a-zA-Z][a-zA-Z0-9+.-]*://')


def is_url(path: str) -> bool:
  """Whether a cohort's path is a URL."""
  return bool(_URL.match(path))


def absolute(path: str) -> str:
  """The same place from another working directory."""
  return path if is_url(path) else os.path.abspath(path)


def kvstore(path: str, name: str) -> str | dict[str, Any]:
  """TensorStore's key-value store of one of a cohort's arrays."""
  if is_url(path):
    return f'{path.rstrip("/")}/{name}/'
  return {'driver': 'file', 'path': os.path.join(path, name)}


@functools.cache
def context() -> ts.Context:
  """How often a server is asked again; TensorStore's own way takes minutes."""
  retries = {'max_retries': _RETRIES, 'initial_delay': '500ms'}
  return ts.Context(
    {f'{kind}_request_retries': retries for kind in ('gcs', 'http', 's3')}
  )


def not_read(what: str, error: Exception) -> str:
  """What the user is told of a URL that TensorStore cannot read."""
  return f'{what} is not read: {errors.plain(str(error), 200)}'


def read_bytes(url: str, name: str) -> bytes | None:
  """A file of the store at a URL; None if it is not there.

  Raises:
    CohortError: if TensorStore cannot read there, with what it says.
  """
  try:
    store = ts.KvStore.open(f'{url.rstrip("/")}/', context=context()).result()
    found = store.read(name).result()
  except UNREAD as error:
    raise errors.CohortError(not_read(url, error)) from None
  return bytes(found.value) if found.state == 'value' else None
