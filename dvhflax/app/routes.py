"""The addresses of the app: reading and tuning."""

import mimetypes
import pathlib
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket
from starlette.exceptions import HTTPException

from dvhflax import errors
from dvhflax.app import access, faults, http, live, messages, state, volumes
from dvhflax.app.desk import Desk
from dvhflax.app.opened import Opened

_STATIC = pathlib.Path(__file__).parent / 'static'
_OCTETS = 'application/octet-stream'


def make_app(desk: Desk, *, token: str, port: int) -> ASGIApp:
  """The guarded app.

  Args:
    desk: what it serves.
    token: see `access.Guard`.
    port: that it is served at.
  """
  api = _Api(desk)
  one = '/api/v1/sessions/{session}'
  routes: list[Any] = [
    ('GET', '/api/v1/health', api.health),
    ('GET', '/api/v1/about', api.about),
    ('GET', '/api/v1/patients', api.patients),
    ('GET', '/api/v1/sessions', api.sessions),
    ('POST', '/api/v1/sessions', api.begin),
    ('GET', one, api.state),
    ('GET', f'{one}/doses/{{dose}}', api.dose),
    ('GET', f'{one}/masks', api.masks),
    ('GET', f'{one}/ct', api.ct),
    ('POST', f'{one}/steps', api.tune),
    ('POST', f'{one}/undo', api.undo),
    ('GET', '/', api.static),
    ('GET', '/{name:path}', api.static),
  ]
  app = Starlette(
    routes=[
      *(
        Route(path, http.guarded(endpoint), methods=[method])
        for method, path, endpoint in routes
      ),
      WebSocketRoute(f'{one}/live', api.live),
    ],
    exception_handlers={
      errors.UserError: http.user_error,
      HTTPException: http.http_error,
    },
  )
  return access.Guard(app, token=token, port=port)


class _Api:
  """The endpoints."""

  def __init__(self, desk: Desk):
    self._desk = desk

  async def health(self, _: Request) -> Response:
    return http.answer({'ok': True})

  async def about(self, _: Request) -> Response:
    return http.answer(self._desk.about())

  async def patients(self, _: Request) -> Response:
    return http.answer(await self._desk.patients())

  async def sessions(self, _: Request) -> Response:
    await self._desk.loaded()
    return http.answer(self._desk.sessions())

  async def begin(self, request: Request) -> Response:
    body = await http.body(request, messages.MOST_TRAIL_BYTES)
    asked: messages.NewSession = messages.read(body, messages.NewSession)
    if (asked.patient is None) == (asked.trail is None):
      raise errors.UserError('give either a patient or a trail')
    if asked.patient is None:
      raise errors.UserError('trails are not read yet')
    opened = await self._desk.begin(asked.patient)
    return await self._state(opened)

  async def state(self, request: Request) -> Response:
    return await self._state(await self._opened(request))

  async def dose(self, request: Request) -> Response:
    opened = await self._opened(request)
    dose_gy = await self._desk.dose_gy(opened, request.path_params['dose'])
    body, unit = volumes.dose_bytes(dose_gy)
    return Response(
      body, media_type=_OCTETS, headers={'X-Gy-Per-Unit': repr(unit)}
    )

  async def masks(self, request: Request) -> Response:
    opened = await self._opened(request)
    body, size = volumes.mask_bytes(opened.session.masks)
    return Response(body, media_type=_OCTETS, headers={'X-Bytes': str(size)})

  async def ct(self, request: Request) -> Response:
    opened = await self._opened(request)
    if opened.ct is None:
      raise faults.NotThere('there is no CT of this patient')
    return Response(volumes.ct_bytes(opened.ct), media_type=_OCTETS)

  async def tune(self, request: Request) -> Response:
    opened = await self._opened(request)
    body = await http.body(request, messages.MOST_BYTES)
    wish: messages.Wish = messages.read(body, messages.Wish)
    return await self._change(opened, opened.tune, wish)

  async def undo(self, request: Request) -> Response:
    opened = await self._opened(request)
    return await self._change(opened, opened.session.undo)

  async def live(self, websocket: WebSocket) -> None:
    try:
      opened = await self._desk.opened(websocket.path_params['session'])
    except errors.UserError as error:
      await websocket.close(1008, errors.plain(str(error), 100))
      return
    await live.live(websocket, opened, self._desk.compute)

  async def static(self, request: Request) -> Response:
    """A file of the page: one of those that there are, by its name."""
    name = request.path_params.get('name') or 'index.html'
    there = {
      path.relative_to(_STATIC).as_posix(): path
      for path in _STATIC.rglob('*')
      if path.is_file()
    }
    if name not in there:
      raise HTTPException(404)
    kind = mimetypes.guess_type(name)[0] or _OCTETS
    if name.endswith('.js'):
      kind = 'text/javascript'
    return Response(there[name].read_bytes(), media_type=kind)

  async def _opened(self, request: Request) -> Opened:
    await self._desk.loaded()
    return await self._desk.opened(request.path_params['session'])

  async def _change(
    self, opened: Opened, function: Any, *arguments: Any
  ) -> Response:
    async with opened.changing:
      await self._desk.compute.run(function, *arguments)
      opened.changed()
      return await self._state(opened)

  async def _state(self, opened: Opened) -> Response:
    return http.answer(await self._desk.compute.run(state.state, opened))
