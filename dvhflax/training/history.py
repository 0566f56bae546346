"""The losses of a run, epoch by epoch: CSV and TensorBoard.

`history.csv` follows from the configuration alone, so that a run that was
killed and resumed has the same file as one that was not. So does `terms.csv`,
the terms of the loss, without their weights, in training and validation. What
the machine did, samples a second and the share of time that waited for data, is
in `speed.csv`.
"""

from collections.abc import Mapping, Sequence
import csv
import math
import os
import sys

from dvhflax import errors, files
from dvhflax.training import remote
from dvhflax.training.board import Board

COLUMNS = ('epoch', 'step', 'train_loss', 'val_loss', 'learning_rate')
SPEED_COLUMNS = ('epoch', 'step', 'samples_per_s', 'waiting_share')
_WHOLE = ('epoch', 'step')

Row = dict[str, float]


def read(workdir: str) -> list[Row]:
  """The rows of a run's `history.csv`, none if there is none.

  Raises:
    UserError: for a row that cannot be read.
  """
  path = os.path.join(workdir, 'history.csv')
  rows, faults = _read(path, COLUMNS)
  if faults:
    raise errors.UserError(
      f'{path}, line {faults[0]} is damaged: remove the line, or resume the '
      'run, which drops it'
    )
  return rows


def _read(path: str, columns: Sequence[str]) -> tuple[list[Row], list[int]]:
  """Rows that are whole, and the numbers of the lines that are not."""
  rows: list[Row] = []
  faults: list[int] = []
  try:
    lines = remote.read_text(*os.path.split(path)).split('\n')
  except FileNotFoundError:
    return rows, faults
  if lines[-1]:
    # Every row ends in a newline: a number that was cut may look whole.
    faults.append(len(lines))
  names = lines[0].rstrip('\r').split(',')
  if not set(columns) <= set(names):
    return rows, [1]
  for number, line in enumerate(lines[1:-1], 2):
    cells = line.rstrip('\r').split(',')
    try:
      row = dict(zip(names, map(float, cells), strict=True))
      last = rows[-1]['step'] if rows else 0
      if not last < row['step'] < math.inf:
        raise ValueError
      rows.append({c: int(row[c]) if c in _WHOLE else row[c] for c in columns})
    except (OverflowError, ValueError):
      faults.append(number)
  return rows, sorted(faults)


class History:
  """Keeps the CSV files and TensorBoard's events of a workdir."""

  def __init__(
    self, workdir: str, step: int, terms: Sequence[str], *, write: bool
  ):
    """Goes on after `step`: rows of later steps, of a run that was killed
    before it saved, are dropped.

    Lines that cannot be read are left out, which is said, and a copy of the
    file kept.

    Args:
      workdir: absolute path.
      step: updates made so far.
      terms: names of the loss's terms.
      write: False for all processes but one.

    Raises:
      StorageError: if the disk does not take it.
    """
    columns = [f'{of}_{term}' for of in ('train', 'val') for term in terms]
    self._columns: dict[str, Sequence[str]] = {
      'history': COLUMNS,
      'speed': SPEED_COLUMNS,
      'terms': ('epoch', 'step', *columns),
    }
    self._paths = {
      name: os.path.join(workdir, f'{name}.csv') for name in self._columns
    }
    rows, faults = _read(self._paths['history'], COLUMNS)
    # Older runs had the speed in the history.
    speed = 'speed' if os.path.exists(self._paths['speed']) else 'history'
    found = {
      'history': rows,
      'speed': _read(self._paths[speed], SPEED_COLUMNS)[0],
      'terms': _read(self._paths['terms'], self._columns['terms'])[0],
    }
    self._rows = {
      name: [row for row in rows if row['step'] <= step]
      for name, rows in found.items()
    }
    self._board: Board | None = None
    if not write:
      return
    files.remove_leftovers(workdir)
    if faults:
      _keep_damaged(self._paths['history'], faults)
    folder = os.path.join(workdir, 'tensorboard')
    try:
      self._board = Board(folder, step + 1)
    except OSError as error:
      raise _not_written(folder, error) from error
    if len(self._rows['history']) < len(rows) or faults:
      self._write()

  def add(self, **row: float) -> None:
    """Adds a row with all columns of all files.

    Raises:
      StorageError: if the disk does not take it.
    """
    for name, columns in self._columns.items():
      self._rows[name].append({column: row[column] for column in columns})
    if self._board is None:
      return
    self._write()
    values = {name: row[name] for name in sorted(row.keys() - set(_WHOLE))}
    try:
      self._board.add(values, int(row['step']))
    except OSError as error:
      raise _not_written(self._board.folder, error) from error

  def _write(self) -> None:
    for name, path in self._paths.items():
      try:
        _write(path, self._columns[name], self._rows[name])
      except OSError as error:
        raise _not_written(path, error) from error

  def line(self) -> str:
    """The last row, for the terminal."""
    row = self._rows['history'][-1] | self._rows['speed'][-1]
    return (
      f'epoch {row["epoch"]:.0f}  step {row["step"]:.0f}  '
      f'train {row["train_loss"]:.3e}  validation {row["val_loss"]:.3e}  '
      f'lr {row["learning_rate"]:.2e}  {row["samples_per_s"]:.2f} samples/s  '
      f'waiting for data {row["waiting_share"]:.1%}'
    )

  def close(self) -> None:
    """Closes the TensorBoard file."""
    if self._board is not None:
      self._board.close()


def _not_written(path: str, error: OSError) -> errors.StorageError:
  said = errors.storage(error.strerror or str(error))
  return errors.StorageError(f'{path} cannot be written: {said}')


def _write(
  path: str, columns: Sequence[str], rows: Sequence[Mapping[str, float]]
) -> None:
  with (
    files.replacing(path) as aside,
    open(aside, 'w', newline='', encoding='utf-8') as file,
  ):
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    writer.writerows(rows)


def _keep_damaged(path: str, faults: Sequence[int]) -> None:
  kept = path.removesuffix('.csv') + '.damaged.csv'
  with open(path, 'rb') as file, files.replacing(kept) as aside:
    aside.write_bytes(file.read())
  lines = ', '.join(map(str, faults[:8])) + (', ...' * (len(faults) > 8))
  print(
    f'{path}: damaged and left out: line {lines}; the file as it was is {kept}',
    file=sys.stderr,
  )
