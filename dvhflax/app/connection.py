"""A connection that has to say what it wants in time."""

import asyncio
import logging
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the first byte of a request, or the connection's start, to the end of
# the headers.
HEADERS_S = 10.0
# Of the request line and the headers together.
MOST_BYTES = 2**14


class Connection(H11Protocol):
  """uvicorn's, which waits for the end of the headers for ever."""

  _deadline: asyncio.TimerHandle | None = None

  def connection_made(self, transport: Any) -> None:
    """Begins to wait."""
    super().connection_made(transport)
    self._watch()

  def data_received(self, data: bytes) -> None:
    """Waits anew where a request has begun and has not all its headers."""
    super().data_received(data)
    self._watch()

  def connection_lost(self, exc: Exception | None) -> None:
    """Waits no longer."""
    self._stop_waiting()
    super().connection_lost(exc)

  def _watch(self) -> None:
    if self.conn.their_state is not h11.IDLE:
      self._stop_waiting()
    elif self._deadline is None:
      self._deadline = self.loop.call_later(HEADERS_S, self._give_up)

  def _give_up(self) -> None:
    self._deadline = None
    if self.conn.their_state is h11.IDLE:
      self.transport.abort()

  def _stop_waiting(self) -> None:
    if self._deadline is not None:
      self._deadline.cancel()
      self._deadline = None


class WithoutContent(logging.Filter):
  """Leaves out of the server's log what requests and errors hold."""

  def filter(self, record: logging.LogRecord) -> bool:
    """Keeps the kind of an error, not its text."""
    if record.exc_info:
      kind = record.exc_info[0]
      record.msg = f'{record.msg} ({kind.__name__ if kind else "error"})'
      record.args = None if '%' not in str(record.msg) else record.args
      record.exc_info = record.exc_text = None
    return True
