"""How well a network obeys: its first lines, its tables, its figure."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import matplotlib
from matplotlib.figure import Figure
import numpy as np

from dvhflax.patient import Structure
from dvhflax.report import figure as figures
from dvhflax.text_table import aligned

# Panels of the figure side by side.
_COLUMNS = 4
_PANEL_INCHES = 2.1
_PATIENT_COLOURS = 'turbo'


def heading(numbers: Mapping[str, Any], organs: Sequence[str]) -> str:
  """The lines that come first: is the wish heard, and how well is it met?

  Args:
    numbers: of `summary.json`, under `obedience`.
    organs: names of the organs at risk.

  Returns:
    A line an organ: the error with the wish and with a wish of another sample,
    the slope of achieved on wished mean dose.
  """
  rows = [['mean dose', 'error', 'wish shuffled', 'ratio', 'slope']]
  for name in organs:
    row = numbers['structures'][name]
    heard = row['shuffled']['mean_dose']
    rows.append(
      [
        name,
        _percent(heard['with_wish']),
        _percent(heard['shuffled']),
        _plain(heard['ratio']),
        _plain(row['slope']['mean_dose']),
      ]
    )
  return '\n'.join(
    [
      *aligned(rows),
      'error: mean |true - predicted|; ratio above 1: the wish is heard; '
      'slope: 1 is ideal',
    ]
  )


def text(
  numbers: Mapping[str, Any], reference: str = 'the prescription'
) -> str:
  """The measures as aligned plain text.

  Args:
    numbers: of `summary.json`, under `obedience`.
    reference: what doses are in % of.
  """
  lines = [_caption(numbers, reference)]
  for title, rows in _tables(numbers):
    lines += ['', title, *aligned(rows)]
  return '\n'.join([*lines, '', *_lines(numbers)]) + '\n'


def markdown(
  numbers: Mapping[str, Any], reference: str = 'the prescription'
) -> str:
  """`text` as Markdown; the same arguments."""
  lines = [_caption(numbers, reference)]
  for title, rows in _tables(numbers):
    header, *body = rows
    lines += ['', f'**{title}**', '', '| ' + ' | '.join(header) + ' |']
    lines.append('| --- |' + ' ---: |' * (len(header) - 1))
    lines += ['| ' + ' | '.join(row) + ' |' for row in body]
  return '\n'.join([*lines, '', *(f'- {x}' for x in _lines(numbers))]) + '\n'


def _caption(numbers: Mapping[str, Any], reference: str) -> str:
  return (
    f'Obedience: {numbers["wishes"]} plans of {numbers["patients"]} '
    f'{numbers["split"]} patients as wishes of their own; doses in % of '
    f'{reference}'
  )


def _tables(
  numbers: Mapping[str, Any],
) -> list[tuple[str, list[list[str]]]]:
  structures = numbers['structures']
  slopes = list(next(iter(structures.values()))['slope'])
  names = [what.replace('_', ' ') for what in slopes]
  follows = [['structure', *names, 'right order', 'cross-talk']]
  off = [['structure', 'mean dose', 'absolute', 'maximum dose', 'absolute']]
  heard = [['structure', 'mean dose', 'maximum dose']]
  for name, row in structures.items():
    follows.append(
      [
        name,
        *(_plain(row['slope'][what]) for what in slopes),
        _of(_share(row['right_order'], 0), row['order_pairs']),
        _of(_percent(row['cross_talk']), row['cross_talk_pairs']),
      ]
    )
    cells = [name]
    for what in ('mean_dose', 'max_dose'):
      values = row[what]
      cells.append(_pair(values['mean'], values['std'], '+'))
      cells.append(_pair(values['absolute_mean'], values['absolute_std']))
    off.append(cells)
    heard.append(
      [
        name,
        *(
          _plain(row['shuffled'][what]['ratio'])
          for what in ('mean_dose', 'max_dose')
        ),
      ]
    )
  front = numbers['front']
  beside = [
    ["against the patient's plans", 'predictions', 'plans'],
    [
      'DVH to the nearest (other) plan',
      _plain(front['from_plans'], 4),
      _plain(front['between_plans'], 4),
    ],
    ['DVH to the wish', _plain(front['from_wish'], 4), '-'],
    [
      'dominated by one',
      _share(front['dominated'], 1),
      _share(front['plans_dominated'], 1),
    ],
    [
      'beyond one',
      _share(front['beyond'], 1),
      _share(front['plans_beyond'], 1),
    ],
  ]
  return [
    ('Slope of achieved on wished; order and cross-talk of pairs', follows),
    ('Wished minus achieved, mean ± standard deviation', off),
    ('Shuffled wishes: absolute error over that with the wish, table 1', heard),
    ('The Pareto set; DVHs by the mean difference of an element', beside),
  ]


def _lines(numbers: Mapping[str, Any]) -> list[str]:
  lines = [
    'where no value is given (-), wished values hardly vary, or no pair of '
    'wishes differs so'
  ]
  mimicked = numbers.get('mimicked')
  if mimicked:
    each = ', '.join(
      f'{name} {_percent(value)}'
      for name, value in mimicked['structures'].items()
    )
    lines.append(
      f'mean |deliverable - predicted| of {mimicked["predictions"]} '
      f'predictions: {each} (of the prescription)'
    )
  return lines


@dataclasses.dataclass(frozen=True)
class Points:
  """What the figure shows.

  Attributes:
    patients: `[M]` any number a patient.
    wished, achieved: `[M, S]` mean doses in %; NaN in an absent structure.
    slopes: `[S]`; None where there is none.
  """

  patients: np.ndarray
  wished: np.ndarray
  achieved: np.ndarray
  slopes: Sequence[float | None]


@matplotlib.rc_context(figures.STYLE)
def scatter(
  points: Points,
  structures: Sequence[Structure],
  reference: str = 'the prescription',
) -> Figure:
  """Achieved against wished mean dose: a panel an organ at risk.

  Args:
    points: of all wishes.
    structures: `[S]`; others are shown where no patient has an organ at risk.
    reference: what doses are in % of.

  Returns:
    The figure; a patient's points have one colour, joined in the order of the
    wished doses. On the diagonal every wish is met.
  """
  found = np.flatnonzero(~np.isnan(points.wished).all(0)).tolist()
  shown = [s for s in found if structures[s].role == 'oar'] or found
  columns = min(len(shown), _COLUMNS)
  rows = -(-len(shown) // columns)
  figure = Figure(
    figsize=(
      _PANEL_INCHES * columns + 0.5,
      (_PANEL_INCHES + 0.25) * rows + 0.4,
    ),
    layout='constrained',
  )
  panels = figure.subplots(rows, columns, squeeze=False).ravel()
  patients = np.unique(points.patients)
  colours = matplotlib.colormaps[_PATIENT_COLOURS](
    np.linspace(0.05, 0.95, len(patients))
  )
  for axes, s in zip(panels, shown):
    wished, achieved = points.wished[:, s], points.achieved[:, s]
    for p, colour in zip(patients, colours):
      own = np.flatnonzero(points.patients == p)
      own = own[wished[own].argsort()]
      axes.plot(
        wished[own],
        achieved[own],
        marker='o',
        markersize=2.5,
        markeredgewidth=0,
        linewidth=0.4,
        color=colour,
        alpha=0.8,
      )
    _square(axes, wished, achieved)
    slope = points.slopes[s]
    told = '' if slope is None else f', slope {slope:.2f}'
    axes.set_title(f'{structures[s].name}{told}', loc='left')
    figures.open_frame(axes)
  for axes in panels[len(shown) :]:
    axes.set_axis_off()
  figure.supxlabel(f'wished mean dose, % of {reference}', fontsize=8)
  figure.supylabel('achieved mean dose, %', fontsize=8)
  return figure


def _square(axes: Any, wished: np.ndarray, achieved: np.ndarray) -> None:
  """The same doses on both axes, and the diagonal."""
  values = np.concatenate([wished, achieved])
  low, high = np.nanmin(values), np.nanmax(values)
  room = 0.05 * max(high - low, 1.0)
  ends = (low - room, high + room)
  axes.plot(ends, ends, color='0.35', linewidth=0.7, zorder=1)
  axes.set(xlim=ends, ylim=ends, aspect='equal')
  axes.locator_params(nbins=5)
  axes.grid(True, color='0.9', linewidth=0.5)
  axes.set_axisbelow(True)


def _plain(value: float | None, digits: int = 2) -> str:
  return '-' if value is None else f'{value:.{digits}f}'


def _percent(value: float | None) -> str:
  return '-' if value is None else f'{value:.2f}%'


def _share(value: float | None, digits: int) -> str:
  return '-' if value is None else f'{100 * value:.{digits}f}%'


def _of(told: str, pairs: int) -> str:
  return f'{told} of {pairs}' if pairs else '-'


def _pair(mean: float | None, std: float | None, sign: str = '') -> str:
  return '-' if mean is None else f'{mean:{sign}.2f} ± {std:.2f}'
