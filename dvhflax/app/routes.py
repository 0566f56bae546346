"""The addresses of the app, and what is read at them."""

import mimetypes
import pathlib
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from dvhflax import errors
from dvhflax.app import (
  access,
  faults,
  file_routes,
  http,
  live,
  tuning_routes,
  volumes,
)
from dvhflax.app.desk import Desk

_STATIC = pathlib.Path(__file__).parent / 'static'


def make_app(desk: Desk, *, token: str, port: int) -> ASGIApp:
  """The guarded app.

  Args:
    desk: what it serves.
    token: see `access.Guard`.
    port: that it is served at.
  """

  async def follow(websocket: WebSocket) -> None:
    try:
      opened = await desk.opened(websocket.path_params['session'])
    except errors.UserError as error:
      await websocket.close(1008, errors.plain(str(error), 100))
      return
    await live.live(websocket, opened, desk.compute)

  routes = [
    *addresses(desk),
    # Last: it has all other names.
    ('GET', '/{name:path}', _static),
  ]
  app = Starlette(
    routes=[
      WebSocketRoute(f'{http.SESSION}/live', follow),
      *(
        Route(path, http.guarded(endpoint), methods=[method])
        for method, path, endpoint in routes
      ),
    ],
    exception_handlers={
      errors.UserError: http.user_error,
      HTTPException: http.http_error,
    },
    lifespan=desk.lifespan,
  )
  return access.Guard(app, token=token, port=port)


def addresses(desk: Desk) -> list[http.Address]:
  """Those of the API: method, path and endpoint."""
  return [
    *_reading(desk),
    *tuning_routes.routes(desk),
    *file_routes.routes(desk),
  ]


def _reading(desk: Desk) -> list[http.Address]:
  async def health(_: Request) -> Response:
    return http.answer({'ok': True})

  async def about(_: Request) -> Response:
    return http.answer(desk.about())

  async def patients(_: Request) -> Response:
    await desk.loaded()
    return http.answer([entry.to_json() for entry in desk.entries])

  async def sessions(_: Request) -> Response:
    await desk.loaded()
    return http.answer(desk.sessions())

  async def dose(request: Request) -> Response:
    opened = await desk.opened(request.path_params['session'])
    dose_gy = await desk.doses.gy(opened, request.path_params['dose'])
    body, unit = await desk.files.run(volumes.dose_bytes, dose_gy)
    return http.octets(body, {'X-Gy-Per-Unit': repr(unit)})

  async def dvh(request: Request) -> Response:
    opened = await desk.opened(request.path_params['session'])
    return http.answer(
      await desk.doses.dvh(opened, request.path_params['dose'])
    )

  async def plans(request: Request) -> Response:
    opened = await desk.opened(request.path_params['session'])
    return http.answer(await desk.files.run(opened.plans))

  async def masks(request: Request) -> Response:
    opened = await desk.opened(request.path_params['session'])
    body, size = await desk.files.run(volumes.mask_bytes, opened.session.masks)
    return http.octets(body, {'X-Bytes': str(size)})

  async def ct(request: Request) -> Response:
    opened = await desk.opened(request.path_params['session'])
    if opened.ct is None:
      raise faults.NotThere('there is no CT of this patient')
    return http.octets(await desk.files.run(volumes.ct_bytes, opened.ct))

  return [
    ('GET', '/api/v1/health', health),
    ('GET', '/api/v1/about', about),
    ('GET', '/api/v1/patients', patients),
    ('GET', '/api/v1/sessions', sessions),
    ('GET', f'{http.SESSION}/doses/{{dose}}', dose),
    ('GET', f'{http.SESSION}/doses/{{dose}}/dvh', dvh),
    ('GET', f'{http.SESSION}/plans', plans),
    ('GET', f'{http.SESSION}/masks', masks),
    ('GET', f'{http.SESSION}/ct', ct),
  ]


async def _static(request: Request) -> Response:
  """A file of the page: one of those that there are, by its whole name."""
  name = request.path_params['name'] or 'index.html'
  there: dict[str, Any] = {
    path.relative_to(_STATIC).as_posix(): path
    for path in _STATIC.rglob('*')
    if path.is_file()
  }
  if name not in there:
    raise HTTPException(404)
  kind = mimetypes.guess_type(name)[0] or http.OCTETS
  if name.endswith('.js'):  # whatever this machine's table says
    kind = 'text/javascript'
  return Response(there[name].read_bytes(), media_type=kind)
