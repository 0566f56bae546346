"""Figure 6: distribution of the dose errors per structure."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from dvhflax.patient import Structure
from dvhflax.report import figure as figures
from dvhflax.report.sample_errors import SampleErrors


@matplotlib.rc_context(figures.STYLE)
def violins(
  sample_errors: SampleErrors,
  structures: Sequence[Structure],
  reference: str = 'the prescription',
) -> Figure:
  """Figure 6: violins of (a) mean-dose and (b) maximum-dose errors.

  Args:
    sample_errors: errors of one network over M >= 1 samples.
    structures: `[S]`.
    reference: what the errors are percentages of.

  Returns:
    Two panels that share the vertical axis. In a violin: the bar is the
    interquartile range, the line the median, the dot the mean. A structure
    with no sample keeps its place, empty.
  """
  # Many structures need slanted names, and so wider panels one above another.
  stacked = len(structures) > 6
  size = (6.3, 5.4) if stacked else (6.6, 3.1)
  figure = Figure(figsize=size, layout='constrained')
  grid = (2, 1) if stacked else (1, 2)
  panels = figure.subplots(*grid, sharex=True, sharey=True)
  for axes, errors, title in zip(
    panels,
    (sample_errors.mean_error, sample_errors.max_error),
    ('(a) mean dose', '(b) maximum dose'),
    strict=True,
  ):
    _panel(axes, errors, structures)
    axes.set_title(title, loc='left')
    if stacked or axes is panels[0]:
      axes.set_ylabel(f'true − predicted,\n% of {reference}')
  if stacked:
    panels[-1].tick_params('x', rotation=30)
    for label in panels[-1].get_xticklabels():
      label.set(ha='right', rotation_mode='anchor')
  return figure


def _panel(
  axes: Axes, errors: np.ndarray, structures: Sequence[Structure]
) -> None:
  axes.axhline(0, color='0.35', linewidth=0.7, zorder=1)
  colours = figures.structure_colours(structures)
  for s, colour in enumerate(colours):
    values = errors[:, s][~np.isnan(errors[:, s])]
    if not values.size:
      continue
    # Equal values have no density, only a place.
    spread = np.ptp(values) > 0
    if spread:
      body = axes.violinplot(values, [s], widths=0.8, showextrema=False)
      for part in body['bodies']:
        part.set(facecolor=colour, edgecolor=colour, alpha=0.45)
        part.set_linewidth(0.8)
      low, median, high = np.percentile(values, [25, 50, 75])
      axes.vlines(s, low, high, color=colour, linewidth=4, zorder=3)
      axes.hlines(
        median, s - 0.06, s + 0.06, color='white', linewidth=1.2, zorder=4
      )
    axes.plot(
      s,
      values.mean(),
      marker='o',
      markersize=3.5,
      markerfacecolor='white' if spread else colour,
      markeredgecolor='black',
      markeredgewidth=0.6,
      zorder=5,
    )
  axes.set_xticks(range(len(structures)), [s.name for s in structures])
  axes.set_xlim(-0.6, len(structures) - 0.4)
  axes.grid(True, axis='y', color='0.88', linewidth=0.6)
  axes.set_axisbelow(True)
  figures.open_frame(axes)
