"""Work that is done in one thread, in turn."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar('Result')


class Compute:
  """Runs one function after another, in the order in which they were asked.

  Every live page asks for one thing at a time and asks for the next when that
  is answered, so that all of them get their turn.
  """

  def __init__(self, name: str) -> None:
    """Starts no thread yet; it will have this name."""
    self._pool = ThreadPoolExecutor(1, name)

  async def run(
    self, function: Callable[..., Result], *arguments: Any
  ) -> Result:
    """What the function returns, or raises."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(self._pool, function, *arguments)

  def close(self) -> None:
    """Ends the thread after what it is at; what waits is dropped."""
    self._pool.shutdown(wait=True, cancel_futures=True)
