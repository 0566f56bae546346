"""Serves the page on the loopback."""

import asyncio
from collections.abc import Callable
import contextlib
import logging
import secrets
import socket
import threading
import webbrowser

import uvicorn

from dvhflax import errors
from dvhflax.app import http, live, routes
from dvhflax.app.desk import Desk, Loaded

HOST = '127.0.0.1'


def serve(
  load: Callable[[], Loaded],
  folder: str,
  *,
  port: int = 0,
  browser: bool = True,
  say: Callable[[str], None] = print,
) -> None:
  """Serves until it is interrupted.

  Args:
    load: see `Desk`.
    folder: of the sessions.
    port: 0 for any.
    browser: whether to open one.
    say: shows the address.

  Raises:
    UserError: if it cannot be served, or the network cannot be loaded.
  """
  listener = _listen(port)
  port = listener.getsockname()[1]
  token = secrets.token_urlsafe(24)
  asyncio.run(_serve(load, folder, listener, port, token, browser, say))


async def _serve(load, folder, listener, port, token, browser, say) -> None:
  desk = Desk(load, folder)
  app = routes.make_app(desk, token=token, port=port)
  config = uvicorn.Config(
    app,
    http='h11',
    ws='websockets-sansio',
    loop='asyncio',
    lifespan='off',
    log_config=None,
    access_log=False,
    server_header=False,
    proxy_headers=False,
    ws_max_size=live.MOST_BYTES,
    ws_max_queue=4,
    ws_per_message_deflate=False,
    h11_max_incomplete_event_size=2**14,
    limit_concurrency=200,
    timeout_graceful_shutdown=3,
  )
  server = uvicorn.Server(config)
  loading = asyncio.create_task(desk.load())
  address = f'http://{HOST}:{port}/?token={token}'
  say(f'open {address}\nCtrl-C stops it. For research, not for clinical use.')
  if browser:
    threading.Thread(
      target=webbrowser.open, args=(address,), daemon=True
    ).start()

  def stop(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
      server.should_exit = True

  loading.add_done_callback(stop)
  try:
    await server.serve(sockets=[listener])
  finally:
    if loading.done():
      loading.result()
    desk.compute.close()


def _listen(port: int) -> socket.socket:
  listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
  listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    listener.bind((HOST, port))
  except OSError as error:
    listener.close()
    raise errors.UserError(
      f'--port={port}: {error.strerror}; another program may listen there: '
      'leave --port out for any free one'
    ) from None
  return listener
