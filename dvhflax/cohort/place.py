"""Where a finished store lies: in a folder, or at a URL.

A URL is one that TensorStore reads: `gs://BUCKET/PATH`, `s3://BUCKET/PATH`,
`http://HOST/PATH`, `file:///PATH`. Stores are built in folders only: builders
need locks and a rename.

An S3 server of one's own is named as for Amazon's tools, by `AWS_ENDPOINT_URL`.
"""

from collections.abc import Mapping
import functools
import os
import re
from typing import Any
import urllib.parse

import tensorstore as ts

from dvhflax import errors

# What TensorStore raises.
UNREAD = (OSError, RuntimeError, ValueError)
# A part of that, and what the user can do.
_ADVICE = {
  'NoSuchBucket': 'make the bucket, or correct its name',
  'AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|'
  'PERMISSION_DENIED|UNAUTHENTICATED': 'give credentials that may do this, '
  'such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
  'Could not connect|Couldn.t connect|resolve': 'is the server up, and its '
  'name right?',
}
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
    return at_url(f'{path.rstrip("/")}/{name}')
  return {'driver': 'file', 'path': os.path.join(path, name)}


def at_url(
  url: str, environment: Mapping[str, str] = os.environ
) -> str | dict[str, Any]:
  """TensorStore's key-value store of a folder at a URL."""
  url = f'{url.rstrip("/")}/'
  endpoint = environment.get('AWS_ENDPOINT_URL_S3') or environment.get(
    'AWS_ENDPOINT_URL'
  )
  if not endpoint or not url.startswith('s3://'):
    return url
  bucket, _, path = url.removeprefix('s3://').partition('/')
  return {
    'driver': 's3',
    'bucket': bucket,
    'path': urllib.parse.unquote(path),
    'endpoint': endpoint,
    'aws_region': environment.get('AWS_REGION')
    or environment.get('AWS_DEFAULT_REGION')
    or 'us-east-1',
  }


@functools.cache
def context(retries: int | None = None) -> ts.Context:
  """How often a server is asked again; TensorStore's own way takes minutes.

  Args:
    retries: each after a pause twice as long; None: those of some ten seconds.
  """
  retry = {
    'max_retries': _RETRIES if retries is None else retries,
    'initial_delay': '500ms',
  }
  options: dict[str, Any] = {
    f'{kind}_request_retries': retry for kind in ('gcs', 'http', 's3')
  }
  if 'AWS_ACCESS_KEY_ID' in os.environ:
    # Else files that are not needed are reported as missing.
    options['aws_credentials'] = {'type': 'environment'}
  return ts.Context(options)


def not_read(what: str, error: Exception) -> str:
  """What the user is told of a URL that TensorStore cannot read."""
  return f'{what} is not read: {said(error)}'


def said(error: Exception) -> str:
  """What TensorStore says of a URL, and what the user can do."""
  # The server's whole answer follows.
  text = errors.plain(str(error).partition(' [http_response')[0], 200)
  for pattern, advice in _ADVICE.items():
    if re.search(pattern, str(error)):
      return f'{text}: {advice}'
  return text


def read_bytes(url: str, name: str) -> bytes | None:
  """A file of the store at a URL; None if it is not there.

  Raises:
    CohortError: if TensorStore cannot read there, with what it says.
  """
  try:
    store = ts.KvStore.open(at_url(url), context=context()).result()
    found = store.read(name).result()
  except UNREAD as error:
    raise errors.CohortError(not_read(url, error)) from None
  return bytes(found.value) if found.state == 'value' else None
