"""Who is served: the holder of the token, from the page's own address.

Other pages in the same browser, other users of the machine and other machines
that a name was made to point here by are refused before anything is read.
"""

import asyncio
import hmac
import json
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A client that does not take its answer for so long is left.
SEND_S = 60.0
_MOST_ADDRESS, _MOST_HEADERS = 2048, 2**14
_LIVES_S = 30 * 24 * 3600
_POLICY = "default-src 'self'; img-src 'self' blob: data:; " + (
  "object-src 'none'; base-uri 'none'; form-action 'none'; "
  "frame-ancestors 'none'"
)
_HEADERS = {
  'Content-Security-Policy': _POLICY,
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
}
_PROMPT = (
  'Open the address that `dvhflax app` printed: it holds the token that this '
  'page asks for.'
)


class Guard:
  """Refuses whom the app does not serve; adds headers to every answer."""

  def __init__(self, app: ASGIApp, *, token: str, port: int):
    """Wraps an app.

    Args:
      app: what is guarded.
      token: what who is served has to know.
      port: that the server listens on.
    """
    self._app = app
    self._token = token
    self._cookie = f'dvhflax-{port}'
    self._hosts = {f'127.0.0.1:{port}', f'localhost:{port}'}
    self._origins = {f'http://{host}' for host in self._hosts}

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """As ASGI has it."""
    if scope['type'] == 'lifespan':
      await self._app(scope, receive, send)
      return
    send = _timed(_with_headers(send))
    headers = Headers(scope=scope)
    status, error = self._fault(scope, headers)
    if not error and scope['type'] == 'http':
      given = _token_in(scope)
      if given is not None:
        status, error = await self._enter(given, send)
        if not error:
          return
    if not error and not self._knows_token(headers):
      status, error = 401, _PROMPT
    if error:
      await refuse(scope, send, status, error)
      return
    await self._app(scope, receive, send)

  def _fault(self, scope: Scope, headers: Headers) -> tuple[int, str]:
    """What is wrong whoever asks; no text if nothing is."""
    size = len(scope.get('raw_path') or b'') + len(scope['query_string'])
    if size > _MOST_ADDRESS:
      return 400, f'an address has at most {_MOST_ADDRESS} characters'
    # The limit of the connection is for headers that come in pieces.
    sizes = [len(name) + len(value) for name, value in headers.raw]
    if sum(sizes) > _MOST_HEADERS:
      return 400, f'headers have at most {_MOST_HEADERS} characters'
    hosts = headers.getlist('host')
    if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
      return (
        403,
        f'this server is reached as {" or ".join(sorted(self._hosts))}',
      )
    origins = headers.getlist('origin')
    if len(origins) > 1 or not self._origins.issuperset(origins):
      return 403, 'a page of another origin may not ask this server'
    by_browser = 'authorization' not in headers
    if scope['type'] == 'websocket' and by_browser and not origins:
      return 403, 'a WebSocket has to send its Origin'
    # Pages of other ports of this host are of the same site, and sent cookies.
    if headers.get('sec-fetch-site', 'none') not in ('none', 'same-origin'):
      navigates = headers.get('sec-fetch-mode') == 'navigate'
      if not (navigates and scope['path'] == '/'):
        return 403, 'a page of another site may not ask this server'
    return 200, ''

  def _knows_token(self, headers: Headers) -> bool:
    kind, _, bearer = headers.get('authorization', '').partition(' ')
    if kind:
      return kind.lower() == 'bearer' and self._same(bearer)
    return self._same(
      cookie_parser(headers.get('cookie', '')).get(self._cookie)
    )

  def _same(self, given: str | None) -> bool:
    given = given or ''
    return hmac.compare_digest(given.encode(), self._token.encode())

  async def _enter(self, given: str, send: Send) -> tuple[int, str]:
    """Takes the token out of the address, into a cookie."""
    if not self._same(given):
      return 401, f'that is not the token of this server. {_PROMPT}'
    cookie = (
      f'{self._cookie}={self._token}; Path=/; Max-Age={_LIVES_S}; HttpOnly; '
      'SameSite=Strict'
    )
    headers = [(b'location', b'/'), (b'set-cookie', cookie.encode())]
    await _answer(send, 303, headers, b'')
    return 303, ''


async def refuse(scope: Scope, send: Send, status: int, error: str) -> None:
  """Answers with an error; a WebSocket is not opened then."""
  if scope['type'] == 'websocket':
    await send({'type': 'websocket.close', 'code': 1008, 'reason': error[:120]})
    return
  body = json.dumps({'error': error}).encode()
  await _answer(send, status, [(b'content-type', b'application/json')], body)


async def _answer(
  send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
  # What was not read of the request is not waited for.
  headers = [
    *headers,
    (b'content-length', str(len(body)).encode()),
    (b'connection', b'close'),
  ]
  start = {'type': 'http.response.start', 'status': status, 'headers': headers}
  await send(start)
  await send({'type': 'http.response.body', 'body': body})


def _token_in(scope: Scope) -> str | None:
  """The token in the address of the page, None without one."""
  if scope['path'] != '/' or scope['method'] != 'GET':
    return None
  try:
    query = scope['query_string'].decode('ascii')
    return dict(parse_qsl(query, True, max_num_fields=4)).get('token')
  except ValueError:
    return None


def _with_headers(send: Send) -> Send:
  async def sent(message: Message) -> None:
    if message['type'] == 'http.response.start':
      there: list[Any] = list(message.get('headers', []))
      names = {name.lower() for name, _ in there}
      there += [
        (name.lower().encode(), value.encode())
        for name, value in _HEADERS.items()
        if name.lower().encode() not in names
      ]
      message = {**message, 'headers': there}
    await send(message)

  return sent


def _timed(send: Send) -> Send:
  async def sent(message: Message) -> None:
    await asyncio.wait_for(send(message), SEND_S)

  return sent
