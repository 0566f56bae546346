"""How patients are mapped over: one after another, or as a cluster does it.

A build has no other seam for this: what is done to a patient is the same, and
so is the store, whatever the engine, the order, and the workers that die.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, Protocol

from dvhflax import errors

# Not an item's own: no other one would fare better.
STOPPING = (errors.ConfigError, errors.StorageError)


class Engine(Protocol):
  """Maps over items, such as patients."""

  @property
  def here(self) -> bool:
    """Whether all is done in this process; else what is mapped is pickled."""

  def map(
    self,
    first: Callable[[Any], Any],
    then: Callable[[Any], Any] | None,
    items: Sequence[Any],
  ) -> Iterator[tuple[int, Any]]:
    """`then(first(item))` for each item.

    One that fails does not stop the others: its error is its result.

    Args:
      first: may need all of the machine, such as planning.
      then: may be done while the next item is at `first`, such as writing;
        None: nothing.
      items: in which order they are taken is up to the engine.

    Yields:
      The place of an item among `items`, and its result or UserError.

    Raises:
      ConfigError, StorageError: as soon as an item gives one: it is not the
        item's own.
      UserError: if the engine can do no more.
    """


class Here:
  """In this process, in order, each item when its result is asked for."""

  here = True

  def map(
    self,
    first: Callable[[Any], Any],
    then: Callable[[Any], Any] | None,
    items: Sequence[Any],
  ) -> Iterator[tuple[int, Any]]:
    """See `Engine`; one `then` is under way while the next `first` is."""
    if then is None:
      for place, item in enumerate(items):
        yield place, _tried(first, item)
      return
    # On an error, what is under way is still finished.
    with futures.ThreadPoolExecutor(1) as pool:
      before: tuple[int, futures.Future[Any]] | None = None
      for place, item in enumerate(items):
        value = _tried(first, item)
        failed = isinstance(value, errors.UserError)
        now = None if failed else pool.submit(_tried, then, value)
        if before is not None:
          yield before[0], before[1].result()
        before = None if now is None else (place, now)
        if failed:
          yield place, value
      if before is not None:
        yield before[0], before[1].result()


HERE = Here()


def _tried(function: Callable[[Any], Any], value: Any) -> Any:
  """What a function returns, or the UserError that is the value's own."""
  try:
    return function(value)
  except STOPPING:
    raise
  except errors.UserError as error:
    return error
