"""Figure 4: training and validation loss over epochs."""

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

from dvhflax.report import figure as figures
from dvhflax.training.history import Row


@matplotlib.rc_context(figures.STYLE)
def losses(history: Sequence[Row]) -> Figure:
  """Figure 4: mean squared error over epochs, on a logarithmic axis.

  Args:
    history: of at least one epoch, see `training.history.read`; losses that
      are NaN or not positive are left out.
  """
  figure = Figure(figsize=(4.5, 3.2), layout='constrained')
  axes = figure.add_subplot()
  epoch = np.array([row['epoch'] for row in history])
  for column, label, colour in (
    ('train_loss', 'training', '#0072b2'),
    ('val_loss', 'validation', '#d55e00'),
  ):
    loss = np.array([row[column] for row in history])
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
