"""What all requests share: bodies with limits, answers, errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
import logging
import traceback
from typing import Any

import msgspec
import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from dvhflax import errors
from dvhflax.app import faults

# A client that sends nothing of its body for so long is left.
IDLE_S = 20.0

SESSION = '/api/v1/sessions/{session}'
OCTETS = 'application/octet-stream'

Endpoint = Callable[[Request], Awaitable[Response]]
# Method, path and what answers.
Address = tuple[str, str, Endpoint]

_log = logging.getLogger('dvhflax.app')


async def chunks(
  request: Request, most: int, what: str
) -> AsyncIterator[bytes]:
  """The body, piece by piece.

  Raises:
    TooLarge: for more than so many bytes.
    UserError: if it does not come.
  """
  too_large = faults.TooLarge(
    f'{what} has more than {most // 2**20} MiB: it is not taken'
  )
  length = request.headers.get('content-length', '0')
  if length.isdecimal() and int(length[:20]) > most:
    raise too_large
  count = 0
  stream = request.stream()
  while True:
    try:
      chunk = await asyncio.wait_for(anext(stream), IDLE_S)
    except StopAsyncIteration:
      return
    except (TimeoutError, ClientDisconnect):
      raise errors.UserError(f'{what} did not come to its end') from None
    count += len(chunk)
    if count > most:
      raise too_large
    yield chunk


async def body(request: Request, most: int) -> bytes:
  """The whole body; see `chunks`."""
  return b''.join([c async for c in chunks(request, most, 'the request')])


def answer(values: Any, status: int = 200) -> Response:
  """JSON."""
  return Response(encode(values), status, media_type='application/json')


def encode(values: Any) -> bytes:
  """JSON, also of NumPy's numbers and arrays."""
  return msgspec.json.encode(values, enc_hook=_plain)


def _plain(value: Any) -> Any:
  if isinstance(value, np.generic | np.ndarray):
    return value.tolist()
  raise TypeError(type(value).__name__)


def user_error(_: Request, error: Exception) -> Response:
  """An error that says what to do."""
  assert isinstance(error, errors.UserError)
  text = ' '.join(str(error).split())
  return answer({'error': errors.plain(text, 2000)}, faults.status_of(error))


def http_error(_: Request, error: Exception) -> Response:
  """No such address, or no such method of it."""
  assert isinstance(error, HTTPException)
  text = {
    404: 'there is nothing at this address: docs/app_api.md lists them',
    405: 'this address does not take that method',
  }.get(error.status_code, error.detail)
  return answer({'error': text}, error.status_code)


def octets(content: bytes, headers: dict[str, str] | None = None) -> Response:
  """A volume."""
  return Response(content, media_type=OCTETS, headers=headers)


def guarded(endpoint: Endpoint) -> Endpoint:
  """An endpoint whose unexpected errors are logged without what they hold."""

  async def call(request: Request) -> Response:
    try:
      return await endpoint(request)
    except (errors.UserError, HTTPException, ClientDisconnect):
      raise
    except Exception as error:
      log_error(error)
      return answer(
        {'error': 'an internal error: the terminal of the server shows where'},
        500,
      )

  call.__name__ = getattr(endpoint, '__name__', 'endpoint')
  return call


def log_error(error: BaseException) -> None:
  """Where it happened; its text may have a patient's name."""
  frames = traceback.extract_tb(error.__traceback__)
  where = ' < '.join(
    f'{frame.filename.rpartition("/")[2]}:{frame.lineno} {frame.name}'
    for frame in reversed(frames[-8:])
  )
  _log.error('internal error %s at %s', type(error).__name__, where)
