"""Stops a run that is asked to: after a signal, all processes at one step."""

import collections
import signal
import threading
from typing import Any

import jax
import numpy as np


class Stopping:
  """SIGTERM and Ctrl-C set a flag, so that the run saves before it leaves.

  Several processes must leave their loop after the same update, or one waits
  for the other for ever. So each update carries every process's flag to all of
  them, `vote`; its result is read `lag` updates later, when it is computed
  anyway. (Orbax's `reached_preemption` knows SIGTERM only, not Ctrl-C, and
  nothing of a single process.)

  Handlers can be set by the main thread alone; another one is not stopped.
  """

  def __init__(self, lag: int):
    """Args: lag: updates after which the result of one is looked at."""
    self._lag = lag
    self._votes: collections.deque[jax.Array] = collections.deque()
    self._before: dict[int, Any] = {}
    self._noted = 0
    self._alone = jax.process_count() == 1
    self.signal = 0

  def __enter__(self) -> 'Stopping':
    def note(number: int, _: object) -> None:
      # A second one is not caught: it ends the run at once.
      signal.signal(number, self._before[number])
      self._noted = number

    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        # None is a handler that Python knows nothing of.
        before = signal.getsignal(number)
        self._before[number] = signal.SIG_DFL if before is None else before
        signal.signal(number, note)
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def vote(self) -> np.ndarray:
    """`[devices]` int32 for the next update: this process's signal, or 0."""
    return np.full(jax.local_device_count(), self._noted, np.int32)

  def count(self, votes: jax.Array) -> None:
    """Takes the greatest vote of an update, as it came out."""
    self._votes.append(votes)

  def now(self) -> bool:
    """Whether to leave the loop, the same in every process.

    `signal` then is the signal's number.
    """
    if self._alone:
      self.signal = self._noted
    while len(self._votes) > self._lag:
      self.signal = self.signal or int(self._votes.popleft())
    return self.signal != 0
