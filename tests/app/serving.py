"""A server of the page on the tiny run, on a port of the loopback."""

import asyncio
import threading
import time

import httpx

from dvhflax.app import server as server_lib
from dvhflax.app.desk import Desk
from dvhflax.app.keeping import Folder
from dvhflax.app.server import Access


class Served:
  """A server in a thread.

  Attributes:
    access: token and port.
    desk: what it serves.
    loop: that it runs in.
  """

  def __init__(self, load, folder, port=0):
    self.folder = Folder(str(folder))
    kept = self.folder.access()
    self._listener = server_lib._listen(port, kept.port)
    self.access = Access(kept.token, self._listener.getsockname()[1])
    self.folder.keep_access(self.access)
    self._load = load
    self._started = threading.Event()
    self._thread = threading.Thread(target=self._run)
    self._thread.start()
    assert self._started.wait(30)

  @property
  def url(self):
    return f'http://127.0.0.1:{self.access.port}'

  def client(self, **headers):
    """Of a script that has the token."""
    bearer = {'Authorization': f'Bearer {self.access.token}'}
    return httpx.Client(
      base_url=self.url, headers={**bearer, **headers}, timeout=60
    )

  def _run(self):
    async def serve():
      self.loop = asyncio.get_running_loop()
      self.desk = Desk(self._load, self.folder)
      self.server = server_lib.make_server(self.desk, self.access)
      loading = asyncio.create_task(self.desk.load())
      self._started.set()
      await self.server.serve(sockets=[self._listener])
      await loading

    asyncio.run(serve())

  def stop(self):
    self.server.should_exit = True
    self._thread.join(30)
    assert not self._thread.is_alive()
    self.folder.release()


def wait_for(condition, seconds=30):
  """Waits until a function gives something true; gives that."""
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    found = condition()
    if found:
      return found
    time.sleep(0.02)
  raise AssertionError('it did not come to be')
