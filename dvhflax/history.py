"""The losses of a run, epoch by epoch: CSV and TensorBoard."""

import csv
import os

import tensorboardX

from dvhflax import files

COLUMNS = (
  'epoch',
  'step',
  'train_loss',
  'val_loss',
  'learning_rate',
  'samples_per_s',
  'waiting_share',
)


def read(workdir: str) -> list[dict[str, float]]:
  """The rows of a run's `history.csv`, none if there is none."""
  path = os.path.join(workdir, 'history.csv')
  if not os.path.exists(path):
    return []
  with open(path, newline='') as file:
    return [
      {k: float(v) for k, v in row.items()} for row in csv.DictReader(file)
    ]


class History:
  """Keeps `history.csv` and the TensorBoard events of a workdir."""

  def __init__(self, workdir: str, step: int, *, write: bool):
    """Goes on after `step`: rows of later steps, of a run that was killed
    before it saved, are dropped.

    Args:
      workdir: absolute path.
      step: updates made so far.
      write: False for all processes but one.
    """
    self._path = os.path.join(workdir, 'history.csv')
    self._rows = [row for row in read(workdir) if row['step'] <= step]
    self._board = None
    if write:
      self._board = tensorboardX.SummaryWriter(
        os.path.join(workdir, 'tensorboard'), purge_step=step + 1
      )

  def add(self, **row: float) -> None:
    """Adds a row with all of COLUMNS."""
    self._rows.append({name: row[name] for name in COLUMNS})
    if self._board is None:
      return
    for name in COLUMNS[2:]:
      self._board.add_scalar(name, row[name], int(row['step']))
    self._board.flush()
    with (
      files.replacing(self._path) as aside,
      open(aside, 'w', newline='') as file,
    ):
      writer = csv.DictWriter(file, COLUMNS)
      writer.writeheader()
      writer.writerows(self._rows)

  def line(self) -> str:
    """The last row, for the terminal."""
    row = self._rows[-1]
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
