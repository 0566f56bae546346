"""The processes of one training: how they meet, and how they leave.

When one is killed or crashes, the others notice it in a collective operation
that fails, or JAX's coordination service aborts them with pages of C++
messages. Either way the user reads one line.
"""

from collections.abc import Iterator
import contextlib
import itertools
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from typing import Any

import jax
from jax._src import distributed
from jax.experimental import multihost_utils
import numpy as np

from dvhflax import errors
from dvhflax.training import messages

GONE = (
  'another process of this training is missing: killed, stopped by an error of '
  'its own, or not started; see what it said last, then start all of them '
  'again; they resume from the last checkpoint'
)
# A process without a heartbeat for so long counts as gone.
_HEARTBEAT_S = 20
# Processes that leave wait so long for each other.
_PARTING_S = 5
# The one that the others report to leaves so much later.
_LAST_S = 0.5
# They may build or copy a cohort first.
_MEETING_S = 7 * 24 * 3600

_MEETINGS = itertools.count()

_LOST = re.compile(
  r'gloo|nccl|connection (closed|reset|refused)|socket|coordination service'
  r'|heartbeat|barrier|UNAVAILABLE|DEADLINE_EXCEEDED|peer',
  re.IGNORECASE,
)


def initialize(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Joins the processes of several hosts; see `parallel.initialize`.

  Raises:
    ConfigError: if it is not said which process this is, of how many.
    PartnerError: if they do not find each other.
  """
  if process_id == 0 and coordinator is not None:
    _check_free(coordinator)
  _filter_messages()
  handlers = _handlers()
  try:
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      heartbeat_timeout_seconds=_HEARTBEAT_S,
      shutdown_timeout_seconds=4 * _PARTING_S,
    )
  except (TypeError, ValueError) as error:
    raise errors.ConfigError(
      f'--distributed: {error}; outside of a cluster manager give each process '
      '--coordinator, --num_processes and --process_id'
    ) from None
  except RuntimeError as error:
    raise errors.PartnerError(
      'the processes have not found each other at '
      f'{coordinator or "the address that the cluster tells"}: '
      f'{str(error).splitlines()[0][:160]}'
    ) from error
  # JAX has set one for SIGTERM, which then would not even end a process that
  # is not training yet.
  for number, handler in handlers.items():
    signal.signal(number, handler)


def _check_free(coordinator: str) -> None:
  """Raises a ConfigError if a port is in use: JAX would crash."""
  port = coordinator.rpartition(':')[2]
  try:
    with socket.socket() as probe:
      probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      probe.bind(('', int(port)))
  except (OverflowError, OSError, ValueError) as error:
    raise errors.ConfigError(
      f'--coordinator={coordinator}: {error}; give host:port with a free port '
      'of the host of process 0'
    ) from None


def _handlers() -> dict[int, Any]:
  if threading.current_thread() is not threading.main_thread():
    return {}
  handlers = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
  return {n: h for n, h in handlers.items() if h is not None}


def meet() -> None:
  """Waits for all processes, for as long as none of them is gone.

  All call it equally often. The collective operations give up after half a
  minute; this one does not.
  """
  client = distributed.global_state.client
  if client is not None and jax.process_count() > 1:
    with noticed():
      client.wait_at_barrier(f'dvhflax/{next(_MEETINGS)}', _MEETING_S * 1000)


def greatest(value: int) -> int:
  """The greatest of all processes' values; all call it equally often."""
  if jax.process_count() == 1:
    return value
  return int(np.max(multihost_utils.process_allgather(np.int32(value))))


@contextlib.contextmanager
def noticed() -> Iterator[None]:
  """Makes what fails because another process is gone a PartnerError."""
  try:
    yield
  except (errors.UserError, errors.Interrupted):
    raise
  except Exception as error:
    if jax.process_count() == 1 or not _LOST.search(_told(error)):
      raise
    raise errors.PartnerError(GONE) from error


def _told(error: BaseException | None) -> str:
  text = ''
  while error is not None:
    text += f'{error}\n'
    error = error.__cause__ or error.__context__
  return text


@contextlib.contextmanager
def parting() -> Iterator[None]:
  """Lets a process of several that fails leave without C++ messages.

  JAX would wait for the others first, who may wait for this one. What is said
  and the status are as of `cli.run`.
  """
  try:
    yield
  except BaseException as error:
    if jax.process_count() == 1:
      raise
    stored = errors.of_storage(error) if isinstance(error, OSError) else None
    if isinstance(error, errors.UserError) or stored:
      status, text = 2, f'error: {" ".join(str(stored or error).split())}'
    elif isinstance(error, SystemExit) and isinstance(error.code, int):
      status, text = error.code, ''
    elif isinstance(error, KeyboardInterrupt):
      status, text = 128 + signal.SIGINT, ''
    else:
      status, text = 1, ''.join(traceback.format_exception(error)).rstrip()
    if text:
      print(text, file=sys.stderr)
    _leave(status, alone=isinstance(error, errors.PartnerError))


def _leave(status: int, *, alone: bool) -> None:
  client = distributed.global_state.client
  if client is not None and not alone:
    # All may be about to leave, for the same reason.
    with contextlib.suppress(Exception):
      client.wait_at_barrier('dvhflax/parting', _PARTING_S * 1000)
  sys.stdout.flush()
  sys.stderr.flush()
  os.write(2, messages.QUIET)
  if jax.process_index() == 0 and not alone:
    time.sleep(_LAST_S)
  os._exit(status)


def _filter_messages() -> None:
  """Gives C++ a standard error of its own, which a small process filters."""
  sys.stderr.flush()
  outer = os.dup(2)
  script = pathlib.Path(__file__).with_name('messages.py')
  # In a session of its own, so that Ctrl-C leaves it to say the last word.
  helper = subprocess.Popen(
    [sys.executable, '-I', '-S', str(script), GONE],
    stdin=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    start_new_session=True,
  )
  if sys.stderr is sys.__stderr__:
    sys.stderr = os.fdopen(outer, 'w', buffering=1, errors='backslashreplace')
  assert helper.stdin is not None
  os.dup2(helper.stdin.fileno(), 2)
  helper.stdin.close()
  # It ends with this process, and is not to be waited for.
  helper.returncode = 0
