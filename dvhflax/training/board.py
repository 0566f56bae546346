"""TensorBoard's events of a run, written at once.

tensorboardX's own writer has a thread, which dies unseen on a full disk and
then keeps the run waiting; and it names files by the second, so that a clock
that is put back, or two starts within a second, cost the events of before.
"""

from collections.abc import Mapping
import contextlib
import os
import re
import socket
import time

from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

_NAME = re.compile(r'events\.out\.tfevents\.(\d+)\.')


class Board:
  """A new file of events beside those that are there.

  Attributes:
    folder: of the files.
  """

  def __init__(self, folder: str, step: int):
    """Begins a file.

    Args:
      folder: made if missing.
      step: events of this one and later ones, of a run that was killed, no
        longer count.

    Raises:
      OSError: if the disk does not take it.
    """
    self.folder = folder
    os.makedirs(folder, exist_ok=True)
    found = [_NAME.match(name) for name in os.listdir(folder)]
    before = [int(match[1]) for match in found if match]
    # TensorBoard reads them in the order of their names.
    stamp = max([int(time.time()), *(number + 1 for number in before)])
    name = f'events.out.tfevents.{stamp}.{socket.gethostname()}'
    self._writer = RecordWriter(os.path.join(folder, name))
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(0, file_version='brain.Event:2')
    self._write(step, session_log=start)
    self._writer.flush()

  def add(self, values: Mapping[str, float], step: int) -> None:
    """Adds scalars by name; raises OSError if the disk does not take them."""
    for name, value in values.items():
      self._write(step, summary=summary.scalar(name, value))
    self._writer.flush()

  def _write(self, step: int, **what: object) -> None:
    event = event_pb2.Event(wall_time=time.time(), step=step, **what)
    self._writer.write(event.SerializeToString())

  def close(self) -> None:
    """Closes the file, of which all is written."""
    # What was not taken has been said by `add`.
    with contextlib.suppress(OSError):
      self._writer.close()
