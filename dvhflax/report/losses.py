"""Figure 4: training and validation loss over epochs."""

from collections.abc import Mapping
import csv
import os

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

from dvhflax import errors
from dvhflax.report import figure as figures

COLUMNS = ('epoch', 'train_loss', 'val_loss', 'learning_rate')


def read_history(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads the history that training writes.

  Args:
    path: CSV file with `COLUMNS`, one row an epoch. An empty cell is NaN. Of
      an epoch that is there twice, as after a resumed run, the last row
      counts.

  Returns:
    Column -> `[E]` float64, by ascending epoch.

  Raises:
    UserError: no such file, a column or every row is missing, or a cell is
      not a number.
  """
  try:
    with open(path, newline='', encoding='utf-8') as file:
      reader = csv.DictReader(file)
      missing = set(COLUMNS) - set(reader.fieldnames or ())
      if missing:
        raise errors.UserError(
          f'{path}: no column {", ".join(sorted(missing))}; is it the history '
          'of a training run?'
        )
      by_epoch = {}
      for row in reader:
        values = [_number(row[column]) for column in COLUMNS]
        by_epoch[values[0]] = values
  except FileNotFoundError:
    raise errors.UserError(f'{path}: no such history; train first') from None
  except ValueError as error:
    raise errors.UserError(f'{path}, line {reader.line_num}: {error}') from None
  if not by_epoch:
    raise errors.UserError(f'{path}: no epoch is complete yet')
  table = np.array([by_epoch[epoch] for epoch in sorted(by_epoch)])
  return dict(zip(COLUMNS, table.T, strict=True))


@matplotlib.rc_context(figures.STYLE)
def losses(history: Mapping[str, np.ndarray]) -> Figure:
  """Figure 4: mean squared error over epochs, on a logarithmic axis.

  Args:
    history: `epoch`, `train_loss` and `val_loss`, each `[E]`; losses that are
      NaN or not positive are left out.
  """
  figure = Figure(figsize=(4.5, 3.2), layout='constrained')
  axes = figure.add_subplot()
  epoch = np.asarray(history['epoch'])
  for column, label, colour in (
    ('train_loss', 'training', '#0072b2'),
    ('val_loss', 'validation', '#d55e00'),
  ):
    loss = np.asarray(history[column])
    shown = np.isfinite(loss) & (loss > 0)
    if not shown.any():
      continue
    # A lone epoch has no line to draw.
    marker = 'o' if shown.sum() == 1 else None
    axes.plot(
      epoch[shown],
      loss[shown],
      label=label,
      color=colour,
      marker=marker,
      markersize=4.5,
    )
    if column == 'val_loss':
      best = np.argmin(np.where(shown, loss, np.inf))
      axes.plot(
        epoch[best],
        loss[best],
        marker='o',
        markersize=4.5,
        markerfacecolor='white',
        markeredgecolor=colour,
        linestyle='none',
        label=f'lowest, epoch {epoch[best]:.0f}: {loss[best]:.2e}',
      )
  axes.set_yscale('log')
  axes.set_xlabel('epoch')
  axes.set_ylabel('loss, (fraction of the reference)²')
  axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
  if len(epoch) == 1:
    axes.set_xlim(epoch[0] - 1, epoch[0] + 1)
  axes.grid(True, which='major', color='0.88', linewidth=0.6)
  axes.set_axisbelow(True)
  figures.open_frame(axes)
  if axes.get_legend_handles_labels()[0]:
    axes.legend()
  return figure


def _number(cell: str | None) -> float:
  if cell is None:
    raise ValueError('the row is cut short')
  return float(cell) if cell else float('nan')
