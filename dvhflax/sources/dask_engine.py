"""Maps over patients on a cluster of `dask.distributed`.

Workers read and write the same files as this process, by the same paths. Dask
gives each patient to a worker that is free, and to another one if that dies.
"""

from collections.abc import Callable, Iterator, Sequence
import functools
import importlib
from importlib import metadata
import logging
import os
from typing import Any

import dvhflax
from dvhflax import errors
from dvhflax.sources.engines import STOPPING

_CONNECT_S = 20
# Doses are equal to the bit only if these are.
_VERSIONS = (
  ('dvhflax', dvhflax.__version__),
  *(
    (name, metadata.version(name))
    for name in ('jax', 'jaxlib', 'numpy', 'scipy')
  ),
)


class Dask:
  """An engine, see `engines.Engine`; a context manager.

  Attributes:
    dashboard: address of its page of what the workers do.
    client: of the scheduler.
  """

  here = False

  def __init__(self, scheduler: str, prepare: Callable[[], None] | None = None):
    """Connects to a scheduler, or starts one.

    Args:
      scheduler: its address, such as `tcp://host:8786`; the file that it was
        started with (`dask scheduler --scheduler-file=PATH.json`); or
        `local:N`, N processes of this machine, `local` one for two cores.
      prepare: called once in each worker, before the first item.

    Raises:
      ConfigError: if `distributed` is not installed, or no scheduler answers.
    """
    try:
      self._dask: Any = importlib.import_module('distributed')
    except ModuleNotFoundError as error:
      raise errors.ConfigError(
        f"--scheduler needs {error.name}: pip install 'dvhflax[cluster]'"
      ) from None
    self._name, self._prepare, self._cluster = scheduler, prepare, None
    _quieten()
    kind, _, number = scheduler.partition(':')
    if kind == 'local':
      self._cluster = self._dask.LocalCluster(
        n_workers=_processes(scheduler, number),
        threads_per_worker=1,
        dashboard_address='127.0.0.1:0',
        # Else patients wait for memory that planning gives back at its end.
        memory_limit=0,
      )
      self.client = self._dask.Client(self._cluster)
    else:
      self.client = self._connected(scheduler)
    self.dashboard = self.client.dashboard_link

  def _connected(self, scheduler: str) -> Any:
    of_file = scheduler.endswith('.json')
    if of_file and not os.path.exists(scheduler):
      raise errors.ConfigError(
        f'--scheduler={scheduler}: there is no such file; start the scheduler '
        f'first: dask scheduler --scheduler-file={scheduler}'
      )
    where = {'scheduler_file' if of_file else 'address': scheduler}
    try:
      return self._dask.Client(**where, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
      raise errors.ConfigError(
        f'--scheduler={scheduler}: no Dask scheduler answers there '
        f'({errors.plain(str(error), 160)}); give the address that '
        '`dask scheduler` prints, tcp://HOST:PORT'
      ) from None

  def __enter__(self) -> 'Dask':
    return self

  def __exit__(self, *_: object) -> None:
    self.client.close()
    if self._cluster is not None:
      self._cluster.close()

  @property
  def words(self) -> str:
    """Where it runs, for the user."""
    workers = len(self.client.nthreads())
    waits = '' if workers else ': waits until some join'
    return f'{workers} Dask workers{waits}; dashboard {self.dashboard}'

  def map(
    self,
    first: Callable[[Any], Any],
    then: Callable[[Any], Any] | None,
    items: Sequence[Any],
  ) -> Iterator[tuple[int, Any]]:
    """See `Engine`; in the order in which the workers are done."""
    import cloudpickle

    # Workers alone unpickle it. A task of its own, and not scattered, so that
    # Dask can make it again if all that have it die.
    work = cloudpickle.dumps((self._prepare, first, then))
    given = self.client.submit(_given, work, pure=False)
    deadly = []
    for place, future in self._computed(given, list(enumerate(items))):
      if self._killed(future):
        deadly.append(place)
      else:
        yield place, self._result(future)
    # What a worker had beside the item that killed it is blamed too. Alone,
    # only that one is.
    for place in deadly:
      for _, future in self._computed(given, [(place, items[place])]):
        yield place, self._result(future)

  def _computed(
    self, given: Any, placed: Sequence[tuple[int, Any]]
  ) -> Iterator[tuple[int, Any]]:
    """Places and futures of items, as they are done."""
    tasks = self.client.map(
      functools.partial(_run, versions=_VERSIONS),
      [given] * len(placed),
      [item for _, item in placed],
      pure=False,
      key='dvhflax',
    )
    futures = {
      future: place for future, (place, _) in zip(tasks, placed, strict=True)
    }
    del tasks  # Else results are kept until the last one is there.
    try:
      for future in self._dask.as_completed(list(futures)):
        yield futures.pop(future), future
    finally:
      # Of a loop that was left, what is not begun yet is not begun.
      self.client.cancel(list(futures))

  def _killed(self, future: Any) -> bool:
    return future.status == 'error' and isinstance(
      future.exception(), self._dask.KilledWorker
    )

  def _result(self, future: Any) -> Any:
    if future.status == 'finished':
      return future.result()
    if self._killed(future):
      return errors.CohortError(
        'each of several workers died while it had this one: out of memory? '
        'Run the same command again to try anew'
      )
    error = future.exception() if future.status == 'error' else None
    if isinstance(error, STOPPING):
      raise error
    if isinstance(error, errors.UserError):
      return error
    if error is None:
      raise errors.UserError(
        f'the Dask scheduler of --scheduler={self._name} is gone: run the same '
        'command again; patients that are written are kept'
      )
    raise error


def _quieten() -> None:
  """Dask tells of every step of its scheduler; its warnings stay."""
  for name in list(logging.root.manager.loggerDict):
    if name.partition('.')[0] == 'distributed':
      logging.getLogger(name).setLevel(logging.WARNING)
  # Of workers that it ends at the end.
  logging.getLogger('distributed.nanny').setLevel(logging.ERROR)


def _processes(scheduler: str, number: str) -> int:
  if not number and scheduler == 'local':
    return max(1, (os.cpu_count() or 1) // 2)
  if not number.isdecimal() or not int(number):
    raise errors.ConfigError(
      f'--scheduler={scheduler}: give the number of processes, local:4, or '
      'tcp://HOST:PORT'
    )
  return int(number)


def _given(work: bytes) -> bytes:
  return work


def _run(work: bytes, item: Any, versions: tuple[tuple[str, str], ...]) -> Any:
  """On a worker: both steps of an item."""
  _check(versions)
  first, then = _loaded(work)
  value = first(item)
  return value if then is None else then(value)


@functools.lru_cache(maxsize=1)
def _loaded(work: bytes) -> tuple[Callable[[Any], Any], Any]:
  """Once a worker, not once a patient."""
  import cloudpickle

  prepare, first, then = cloudpickle.loads(work)
  if prepare is not None:
    prepare()
  return first, then


@functools.lru_cache(maxsize=1)
def _check(versions: tuple[tuple[str, str], ...]) -> None:
  """Raises a ConfigError if a worker would compute something else."""
  for (name, wanted), (_, found) in zip(versions, _VERSIONS):
    if found != wanted:
      raise errors.ConfigError(
        f'a Dask worker has {name} {found}, this process {wanted}: install the '
        'same versions everywhere, or plans may differ'
      )
