"""Serves the page on the loopback."""

import asyncio
from collections.abc import Callable
import logging
import socket
import threading
import webbrowser

import uvicorn

from dvhflax import errors
from dvhflax.app import connection, live, routes
from dvhflax.app.desk import Desk, Loaded
from dvhflax.app.keeping import Access, Folder

HOST = '127.0.0.1'
# Requests that are under way when the server is stopped.
_GRACE_S = 5
_MOST_CONNECTIONS = 256


def serve(
  load: Callable[[], Loaded],
  folder: str,
  *,
  port: int = 0,
  browser: bool = True,
  say: Callable[[str], None] = print,
) -> None:
  """Serves until it is interrupted or terminated; sessions are kept then.

  Args:
    load: gives the network, its cohort, and the anatomy-only network; called
      in a thread once the server listens.
    folder: of the sessions; the token and the port that it has are used again.
    port: 0: the last one, or any if that is taken.
    browser: whether to open one.
    say: shows the address.

  Raises:
    UserError: if it cannot be served, or the network cannot be loaded.
  """
  kept = Folder(folder)
  try:
    access = kept.access()
    listener = _listen(port, access.port)
    access = Access(access.token, listener.getsockname()[1])
    kept.keep_access(access)
    asyncio.run(_serve(load, kept, listener, access, browser, say))
  except KeyboardInterrupt:
    pass
  finally:
    kept.release()


async def _serve(
  load: Callable[[], Loaded],
  folder: Folder,
  listener: socket.socket,
  access: Access,
  browser: bool,
  say: Callable[[str], None],
) -> None:
  desk = Desk(load, folder)
  server = make_server(desk, access)
  loading = asyncio.create_task(desk.load())
  address = f'http://{HOST}:{access.port}/?token={access.token}'
  say(f'{address}\nCtrl-C stops it. For research, not for clinical use.')
  if browser:
    threading.Thread(
      target=webbrowser.open, args=(address,), daemon=True
    ).start()

  def stop(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
      server.should_exit = True

  loading.add_done_callback(stop)
  await server.serve(sockets=[listener])
  if loading.done():
    loading.result()


def make_server(desk: Desk, access: Access) -> uvicorn.Server:
  """The server of a desk, which is not started."""
  log = logging.getLogger('uvicorn.error')
  if not any(isinstance(f, connection.WithoutContent) for f in log.filters):
    log.addFilter(connection.WithoutContent())
  log.setLevel(logging.ERROR)
  return uvicorn.Server(
    uvicorn.Config(
      routes.make_app(desk, token=access.token, port=access.port),
      http=connection.Connection,
      ws='websockets-sansio',
      loop='asyncio',
      lifespan='on',
      log_config=None,
      access_log=False,
      server_header=False,
      proxy_headers=False,
      ws_max_size=live.MOST_BYTES,
      ws_max_queue=8,
      ws_per_message_deflate=False,
      h11_max_incomplete_event_size=connection.MOST_BYTES,
      limit_concurrency=_MOST_CONNECTIONS,
      timeout_graceful_shutdown=_GRACE_S,
    )
  )


def _listen(port: int, last: int) -> socket.socket:
  """A socket of the loopback; of the last port, where that is free."""
  for tried in [port] if port else [last, 0]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # A port that was just given up, not one that is listened on.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      listener.bind((HOST, tried))
      listener.listen(128)
      return listener
    except (OSError, OverflowError) as error:
      listener.close()
      reason = error.strerror if isinstance(error, OSError) else error
  raise errors.UserError(
    f'--port={port}: {reason}; another program may listen there: leave --port '
    'out for any free one'
  )
