"""The live WebSocket: the newest movement of handles is answered.

While one is computed later ones replace each other, so that an answer is never
older than one computation.
"""

import asyncio
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from dvhflax import errors
from dvhflax.app import http, messages
from dvhflax.app.compute import Compute
from dvhflax.app.opened import Opened

# A message of a client; handles and points of a move are few.
MOST_BYTES = 2**18


class Newest:
  """Holds the newest of what is put in, until it is taken."""

  def __init__(self) -> None:
    """Nothing is in it."""
    self._value: messages.Move | None = None
    self._there = asyncio.Event()

  def put(self, value: messages.Move) -> None:
    """Replaces what is in it."""
    self._value = value
    self._there.set()

  async def take(self) -> messages.Move:
    """What is in it, when there is something."""
    await self._there.wait()
    self._there.clear()
    assert self._value is not None
    return self._value


async def live(websocket: WebSocket, opened: Opened, compute: Compute) -> None:
  """Serves a page until it leaves."""
  await websocket.accept()
  newest, changes = Newest(), asyncio.Event()
  leave = opened.listen(changes.set)
  sending = asyncio.Lock()

  async def send(text: dict[str, Any]) -> None:
    async with sending:
      await websocket.send_text(http.encode(text).decode())

  async def receive() -> None:
    while True:
      text = await websocket.receive_text()
      try:
        newest.put(messages.read(text, messages.Move))
      except errors.UserError as error:
        await send({'type': 'refused', 'seq': None, 'error': str(error)})

  async def reply() -> None:
    while True:
      move = await newest.take()
      try:
        head, dose = await compute.run(opened.preview, move)
      except errors.UserError as error:
        text = errors.plain(' '.join(str(error).split()), 500)
        await send({'type': 'refused', 'seq': move.seq, 'error': text})
        continue
      except Exception as error:
        http.log_error(error)
        text = 'an internal error: the terminal of the server shows where'
        await send({'type': 'refused', 'seq': move.seq, 'error': text})
        continue
      async with sending:
        await websocket.send_bytes(frame(head, dose))

  async def tell() -> None:
    while True:
      await changes.wait()
      changes.clear()
      await send({'type': 'changed', 'revision': opened.revision})

  tasks = [asyncio.create_task(one()) for one in (receive, reply, tell)]
  try:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
      error = task.exception()
      if error and not isinstance(
        error, WebSocketDisconnect | TimeoutError | KeyError | RuntimeError
      ):
        http.log_error(error)
  finally:
    leave()
    for task in tasks:
      task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def frame(head: dict[str, Any], dose: bytes) -> bytes:
  """A preview: length of the head, the head as JSON, the dose.

  The head is padded by spaces so that the dose begins at a multiple of 4.
  """
  text = http.encode(head)
  text += b' ' * (-len(text) % 4)
  return len(text).to_bytes(4, 'little') + text + dose
