"""Figure 5: predicted doses of one patient beside the true ones."""

from collections.abc import Sequence
import dataclasses

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
import numpy as np

from dvhflax import dose_volume, dvh
from dvhflax.patient import Structure
from dvhflax.report import figure as figures
from dvhflax.report import slices as slices_lib
from dvhflax.report.slices import DOSE_COLOURS

_DIFFERENCE_COLOURS = 'RdBu_r'
_CURVE_LEVELS = 241
_COLUMN_INCHES = 1.95
_DVH_INCHES = 2.35


@dataclasses.dataclass(frozen=True)
class Prediction:
  """One row of the figure: a wish, its label and what was predicted.

  Attributes:
    masks: `[X, Y, Z, S]`, 0 or 1; axes to patient left, posterior, superior.
    true: `[X, Y, Z]`, fraction of the reference.
    predicted: `[X, Y, Z]`, the same unit.
    desired_dvh: `[S, K]` the DVH vector that was asked for.
    spacing_mm: voxel size along each axis.
  """

  masks: np.ndarray
  true: np.ndarray
  predicted: np.ndarray
  desired_dvh: np.ndarray
  spacing_mm: tuple[float, float, float]


@matplotlib.rc_context(figures.STYLE)
def predictions(
  samples: Sequence[Prediction],
  structures: Sequence[Structure],
  spec: dvh.DVHSpec,
  reference: str = 'the prescription',
) -> Figure:
  """Figure 5: contours, true and predicted dose, difference, DVHs.

  The slice is the axial one through the targets' centroid, with anterior on
  top and the patient's left on the right side. All rows share their colour
  scales; colours beyond a scale's end are marked by its arrow.

  Args:
    samples: at least one, all of one patient, a row each.
    structures: `[S]`.
    spec: how the desired DVH vectors are to be read.
    reference: what doses are fractions of.

  Returns:
    The figure.

  Raises:
    ValueError: no sample.
  """
  if not samples:
    raise ValueError('figure 5 needs at least one sample')
  slices = [
    slices_lib.axial(
      sample.masks,
      (sample.true, sample.predicted),
      structures,
      sample.spacing_mm,
    )
    for sample in samples
  ]
  colours = figures.structure_colours(structures)
  # The true doses set the scale: a wild prediction must not hide the rest.
  dose_scale = Normalize(0, _round_up(max(s.doses[0].max() for s in slices)))
  spread = np.concatenate([np.diff(s.doses, axis=0).ravel() for s in slices])
  limit = max(5.0, _round_up(np.percentile(np.abs(spread), 99.5)))
  difference_scale = Normalize(-limit, limit)

  figure, panels, feet = _layout(slices, len(structures))
  titles = ('contours', 'true dose', 'predicted dose', 'true − predicted')
  for axes, title in zip(panels[0], (*titles, 'DVH'), strict=True):
    axes.set_title(title)
  for row, (sample, piece) in enumerate(zip(samples, slices, strict=True)):
    contours, true, predicted, difference, curves = panels[row]
    slices_lib.draw_contours(contours, piece, colours, structures)
    slices_lib.draw_orientation(contours)
    for axes, dose in zip((true, predicted), piece.doses, strict=True):
      slices_lib.draw_image(axes, piece, dose, dose_scale, DOSE_COLOURS)
      # Black shows on the bright dose of a target, white on the dark outside.
      slices_lib.draw_outlines(axes, piece, structures, 'white', 'black')
    slices_lib.draw_image(
      difference,
      piece,
      piece.doses[0] - piece.doses[1],
      difference_scale,
      _DIFFERENCE_COLOURS,
    )
    slices_lib.draw_outlines(difference, piece, structures, '0.25', '0.25')
    _draw_curves(curves, sample, spec, colours)
    if row == len(samples) - 1:
      curves.set_xlabel(f'dose, % of {reference}')
    else:
      curves.tick_params(labelbottom=False)
    if len(samples) > 1:
      contours.set_ylabel(f'({chr(ord("a") + row)})', rotation=0, labelpad=8)
  _share_dose_axis([row[-1] for row in panels], samples)

  legend, dose_bar, difference_bar, styles = feet
  present = np.any([s.masks.any((0, 1, 2)) for s in samples], axis=0)
  _structure_legend(legend, structures, colours, present)
  _style_legend(styles)
  slices_lib.colour_bar(
    dose_bar,
    dose_scale,
    DOSE_COLOURS,
    f'dose, % of {reference}',
    'max',
  )
  slices_lib.colour_bar(
    difference_bar,
    difference_scale,
    _DIFFERENCE_COLOURS,
    f'% of {reference}',
    'both',
  )
  return figure


def _layout(
  slices: Sequence[slices_lib.Slice], structures: int
) -> tuple[Figure, list[list[Axes]], list[Axes]]:
  """Figure, panels `[row][column]`, and the four axes of the foot."""
  image_inches = _COLUMN_INCHES * max(
    s.size_mm[1] / s.size_mm[0] for s in slices
  )
  row_inches = min(max(image_inches, 1.35), 2.6)
  widths = [_COLUMN_INCHES] * 4 + [0.42, _DVH_INCHES]
  # In inches, so that nothing crowds whatever the number of rows.
  left, right, top, bottom, gap = 0.3, 0.12, 0.3, 0.06, 0.12
  bar_gap, foot = 0.12, max(0.5, 0.08 + 0.14 * ((structures + 1) // 2))
  rows = len(slices)
  width = left + sum(widths) + 0.06 * 5 + right
  rows_height = rows * row_inches + (rows - 1) * gap
  height = top + rows_height + bar_gap + foot + bottom
  figure = Figure(figsize=(width, height))
  across = {
    'left': left / width,
    'right': 1 - right / width,
    'wspace': 0.06 / np.mean(widths),
    'width_ratios': widths,
  }
  grid = GridSpec(
    rows,
    6,
    figure=figure,
    top=1 - top / height,
    bottom=(bottom + foot + bar_gap) / height,
    hspace=gap / row_inches,
    **across,
  )
  panels = [
    [figure.add_subplot(grid[row, column]) for column in (0, 1, 2, 3, 5)]
    for row in range(rows)
  ]
  foot_grid = GridSpec(
    1,
    6,
    figure=figure,
    top=(bottom + foot) / height,
    bottom=bottom / height,
    **across,
  )
  places = (foot_grid[0, 0], foot_grid[0, 1:3], foot_grid[0, 3])
  feet = [figure.add_subplot(place) for place in (*places, foot_grid[0, 5])]
  for axes in feet:
    axes.axis('off')
  return figure, panels, feet


def _draw_curves(
  axes: Axes, sample: Prediction, spec: dvh.DVHSpec, colours: Sequence[str]
) -> None:
  levels = np.linspace(0, _last_dose(sample), _CURVE_LEVELS, dtype=np.float32)
  for s, colour in enumerate(colours):
    inside = sample.masks[..., s] > 0
    if inside.any():
      for dose, style in ((sample.true, '-'), (sample.predicted, '--')):
        volume = dose_volume.volume_fraction_at_dose(dose[inside], levels)
        axes.plot(100 * levels, 100 * volume, style, color=colour)
    # A wish drawn from a patient without the structure is all zeros.
    if np.any(sample.desired_dvh[s]):
      wished = spec.curve(sample.desired_dvh[s])
      axes.plot(
        100 * wished.dose,
        100 * wished.volume,
        ':',
        color=colour,
        linewidth=1.4,
      )
  axes.set_ylim(0, 102)
  axes.set_yticks(range(0, 101, 25))
  axes.set_ylabel('volume, %', labelpad=2)
  axes.grid(True, color='0.9', linewidth=0.5)
  axes.set_axisbelow(True)
  figures.open_frame(axes)


def _last_dose(sample: Prediction) -> float:
  """A little more than the highest dose of either plan."""
  return 1.02 * max(
    float(sample.true.max()), float(sample.predicted.max()), 0.1
  )


def _share_dose_axis(
  axes: Sequence[Axes], samples: Sequence[Prediction]
) -> None:
  highest = 100 * max(_last_dose(sample) for sample in samples)
  # A wild prediction must not squeeze the curves that matter.
  true = 100 * max(float(sample.true.max()) for sample in samples)
  for one in axes:
    one.set_xlim(0, min(highest, max(1.3 * true, 10)))


def _structure_legend(
  axes: Axes,
  structures: Sequence[Structure],
  colours: Sequence[str],
  present: np.ndarray,
) -> None:
  handles = [
    Line2D([], [], color=colour, label=structure.name)
    for structure, colour, drawn in zip(
      structures, colours, present, strict=True
    )
    if drawn
  ]
  axes.legend(
    handles=handles,
    loc='upper center',
    ncols=2,
    handlelength=1.1,
    columnspacing=0.8,
    labelspacing=0.3,
    borderaxespad=0,
  )


def _style_legend(axes: Axes) -> None:
  handles = [
    Line2D([], [], color='0.2', linestyle=style, label=label)
    for style, label in (('-', 'true'), ('--', 'predicted'), (':', 'desired'))
  ]
  axes.legend(
    handles=handles,
    # Below the label of the dose axis, which hangs into the foot.
    loc='lower center',
    ncols=3,
    handlelength=2.2,
    columnspacing=1.0,
    borderaxespad=0,
  )


def _round_up(percent: float) -> float:
  """To the next 5%, and at least 5%."""
  return max(5.0, 5.0 * np.ceil(percent / 5))
