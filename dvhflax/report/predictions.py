"""Figure 5: predicted doses of one patient beside the true ones."""

from collections.abc import Sequence
import dataclasses

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
import numpy as np

from dvhflax import dvh
from dvhflax.patient import Structure
from dvhflax.report import figure as figures

# Room for the orientation letters.
_MARGIN_MM = 22.0
_DOSE_COLOURS = 'inferno'
_DIFFERENCE_COLOURS = 'RdBu_r'
_CURVE_LEVELS = 241
_COLUMN_INCHES = 1.95
_DVH_INCHES = 2.35


@dataclasses.dataclass(frozen=True)
class Prediction:
  """One row of the figure: a wish, its label and what was predicted.

  Attributes:
    masks: `[X, Y, Z, S]`, 0 or 1; axes to patient left, posterior, superior.
    true: `[X, Y, Z]`, fraction of the prescription.
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
) -> Figure:
  """Figure 5: contours, true and predicted dose, difference, DVHs.

  The slice is the axial one through the targets' centroid, with anterior on
  top and the patient's left on the right side. All rows share their colour
  scales; colours beyond a scale's end are marked by its arrow.

  Args:
    samples: at least one, all of one patient, a row each.
    structures: `[S]`.
    spec: how the desired DVH vectors are to be read.

  Returns:
    The figure.

  Raises:
    ValueError: no sample.
  """
  if not samples:
    raise ValueError('figure 5 needs at least one sample')
  slices = [_axial(sample, structures) for sample in samples]
  colours = figures.structure_colours(structures)
  # The true doses set the scale: a wild prediction must not hide the rest.
  dose_scale = Normalize(0, _round_up(max(s.true.max() for s in slices)))
  spread = np.concatenate([(s.true - s.predicted).ravel() for s in slices])
  limit = max(5.0, _round_up(np.percentile(np.abs(spread), 99.5)))
  difference_scale = Normalize(-limit, limit)

  figure, panels, feet = _layout(slices, len(structures))
  titles = ('contours', 'true dose', 'predicted dose', 'true − predicted')
  for axes, title in zip(panels[0], (*titles, 'DVH'), strict=True):
    axes.set_title(title)
  for row, (sample, piece) in enumerate(zip(samples, slices, strict=True)):
    contours, true, predicted, difference, curves = panels[row]
    _draw_contours(contours, piece, colours, structures)
    _draw_orientation(contours)
    for axes, dose in ((true, piece.true), (predicted, piece.predicted)):
      _draw_image(axes, piece, dose, dose_scale, _DOSE_COLOURS)
      # Black shows on the bright dose of a target, white on the dark outside.
      _draw_outlines(axes, piece, structures, 'white', 'black')
    _draw_image(
      difference,
      piece,
      piece.true - piece.predicted,
      difference_scale,
      _DIFFERENCE_COLOURS,
    )
    _draw_outlines(difference, piece, structures, '0.25', '0.25')
    _draw_curves(curves, sample, spec, colours)
    if row == len(samples) - 1:
      curves.set_xlabel('dose, % of prescription')
    else:
      curves.tick_params(labelbottom=False)
    if len(samples) > 1:
      contours.set_ylabel(f'({chr(ord("a") + row)})', rotation=0, labelpad=8)
  _share_dose_axis([row[-1] for row in panels], samples)

  legend, dose_bar, difference_bar, styles = feet
  present = np.any([s.masks.any((0, 1, 2)) for s in samples], axis=0)
  _structure_legend(legend, structures, colours, present)
  _style_legend(styles)
  _colour_bar(
    dose_bar, dose_scale, _DOSE_COLOURS, 'dose, % of prescription', 'max'
  )
  _colour_bar(
    difference_bar,
    difference_scale,
    _DIFFERENCE_COLOURS,
    '% of prescription',
    'both',
  )
  return figure


@dataclasses.dataclass(frozen=True)
class _Slice:
  """An axial slice, cropped, in the layout that imshow shows.

  Attributes:
    masks: `[y, x, S]`.
    true: `[y, x]`, % of the prescription.
    predicted: `[y, x]`, % of the prescription.
    spacing_mm: along x and y.
  """

  masks: np.ndarray
  true: np.ndarray
  predicted: np.ndarray
  spacing_mm: tuple[float, float]

  @property
  def size_mm(self) -> tuple[float, float]:
    """Width and height."""
    rows, columns = self.true.shape
    return columns * self.spacing_mm[0], rows * self.spacing_mm[1]


def _axial(sample: Prediction, structures: Sequence[Structure]) -> _Slice:
  masks = np.asarray(sample.masks) > 0
  targets = [s for s, one in enumerate(structures) if one.role == 'target']
  inside = masks[..., targets].any(-1)
  if not inside.any():
    inside = masks.any(-1)
  per_slice = inside.sum((0, 1))
  z = len(per_slice) // 2
  if inside.any():
    z = round(float(np.average(np.arange(len(per_slice)), weights=per_slice)))
  # The crop is the patient's, not the slice's.
  x, pad_x = _crop(masks.any((1, 2, 3)), sample.spacing_mm[0])
  y, pad_y = _crop(masks.any((0, 2, 3)), sample.spacing_mm[1])

  def cut(volume: np.ndarray) -> np.ndarray:
    plane = np.moveaxis(volume[x, y, z], 0, 1)
    return np.pad(plane, [pad_y, pad_x] + [(0, 0)] * (plane.ndim - 2))

  return _Slice(
    masks=cut(masks),
    true=100 * cut(sample.true).astype(np.float64),
    predicted=100 * cut(sample.predicted).astype(np.float64),
    spacing_mm=sample.spacing_mm[:2],
  )


def _crop(
  occupied: np.ndarray, spacing: float
) -> tuple[slice, tuple[int, int]]:
  """Where an axis is occupied, with a margin, and how far that overhangs it.

  Args:
    occupied: bool along the axis; if nowhere True, all of the axis is kept.
    spacing: voxel size in mm.

  Returns:
    The part of the axis to keep, and the voxels to pad before and after it.
  """
  length = len(occupied)
  margin = int(np.ceil(_MARGIN_MM / spacing))
  indices = np.flatnonzero(occupied) if occupied.any() else (0, length - 1)
  first, stop = int(indices[0]) - margin, int(indices[-1]) + margin + 1
  kept = slice(max(0, first), min(length, stop))
  return kept, (kept.start - first, stop - kept.stop)


def _layout(
  slices: Sequence[_Slice], structures: int
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


def _bare(axes: Axes, piece: _Slice) -> None:
  width, height = piece.size_mm
  axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
  axes.set_aspect('equal', anchor='N')
  axes.spines[:].set_color('0.6')


def _draw_image(
  axes: Axes, piece: _Slice, values: np.ndarray, scale: Normalize, colours: str
) -> None:
  width, height = piece.size_mm
  axes.imshow(
    values,
    cmap=colours,
    norm=scale,
    extent=(0, width, height, 0),
    interpolation='nearest',
  )
  _bare(axes, piece)


def _contour(
  axes: Axes, mask: np.ndarray, piece: _Slice, colour: str, width: float
) -> None:
  if not mask.any():
    return
  rows, columns = mask.shape
  x = (np.arange(-1, columns + 1) + 0.5) * piece.spacing_mm[0]
  y = (np.arange(-1, rows + 1) + 0.5) * piece.spacing_mm[1]
  # Padded, so that a mask cut by the grid's edge has a closed contour.
  axes.contour(
    x,
    y,
    np.pad(mask.astype(float), 1),
    levels=[0.5],
    colors=[colour],
    linewidths=width,
  )


def _draw_contours(
  axes: Axes,
  piece: _Slice,
  colours: Sequence[str],
  structures: Sequence[Structure],
) -> None:
  # Bodies below, targets on top.
  order = {'body': 0, 'oar': 1, 'target': 2}
  for s in sorted(
    range(len(structures)), key=lambda s: order[structures[s].role]
  ):
    mask = piece.masks[..., s]
    _contour(axes, mask, piece, colours[s], 1.1)
    if structures[s].role == 'body' or not mask.any():
      continue
    tint = np.zeros((*mask.shape, 4))
    tint[mask] = matplotlib.colors.to_rgba(colours[s], 0.25)
    width, height = piece.size_mm
    axes.imshow(tint, extent=(0, width, height, 0), interpolation='nearest')
  _bare(axes, piece)


def _draw_outlines(
  axes: Axes,
  piece: _Slice,
  structures: Sequence[Structure],
  body: str,
  target: str,
) -> None:
  """Body and targets in the colours given, for orientation on an image."""
  colours = {'body': body, 'target': target}
  for s, structure in enumerate(structures):
    if structure.role in colours:
      colour = colours[structure.role]
      _contour(axes, piece.masks[..., s], piece, colour, 0.6)


def _draw_orientation(axes: Axes) -> None:
  for x, y, letter, ha, va in (
    (0.5, 0.98, 'A', 'center', 'top'),
    (0.5, 0.02, 'P', 'center', 'bottom'),
    (0.015, 0.5, 'R', 'left', 'center'),
    (0.985, 0.5, 'L', 'right', 'center'),
  ):
    axes.text(
      x,
      y,
      letter,
      ha=ha,
      va=va,
      transform=axes.transAxes,
      fontsize=6,
      color='0.4',
    )


def _draw_curves(
  axes: Axes, sample: Prediction, spec: dvh.DVHSpec, colours: Sequence[str]
) -> None:
  levels = np.linspace(0, _last_dose(sample), _CURVE_LEVELS, dtype=np.float32)
  for s, colour in enumerate(colours):
    inside = sample.masks[..., s] > 0
    if inside.any():
      for dose, style in ((sample.true, '-'), (sample.predicted, '--')):
        volume = dvh.volume_at_dose(dose[inside].astype(np.float32), levels)
        axes.plot(100 * levels, 100 * volume, style, color=colour)
    # A wish drawn from a patient without the structure is all zeros.
    if np.any(sample.desired_dvh[s]):
      across, up = spec.levels, sample.desired_dvh[s]
      if spec.kind == 'dose_at_volume':
        across, up = up, across
      axes.plot(100 * across, 100 * up, ':', color=colour, linewidth=1.4)
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


def _colour_bar(
  axes: Axes, scale: Normalize, colours: str, label: str, extend: str
) -> None:
  figure = axes.get_figure(root=True)
  assert figure is not None
  foot = axes.get_position().height * figure.get_figheight()
  thickness = 0.1 / foot
  bar = axes.inset_axes((0.06, 1 - thickness, 0.88, thickness))
  figure.colorbar(
    ScalarMappable(scale, colours),
    cax=bar,
    orientation='horizontal',
    extend=extend,
    label=label,
  )


def _round_up(percent: float) -> float:
  """To the next 5%, and at least 5%."""
  return max(5.0, 5.0 * np.ceil(percent / 5))
