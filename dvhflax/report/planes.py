"""Three planes through a point of a patient: dose wash, isodoses, contours."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
import numpy as np

from dvhflax.patient import Structure
from dvhflax.report import figure as figures
from dvhflax.report.slices import DOSE_COLOURS

# Isodose lines in % of the prescription, and their colours.
ISODOSES = {105: '#d7191c', 95: '#fdae61', 70: '#1a9641', 50: '#2c7bb6'}
# Window of a CT in HU; the dose wash begins at this % of the prescription.
_WINDOW, _WASH = (-160.0, 240.0), 10.0
_TOP = 110.0


@matplotlib.rc_context(figures.STYLE)
def planes(
  percent: np.ndarray,
  masks: np.ndarray,
  structures: Sequence[Structure],
  spacing_mm: Sequence[float],
  at: Sequence[int],
  ct: np.ndarray | None = None,
) -> Figure:
  """Axial, coronal and sagittal planes of a dose.

  Args:
    percent: `[X, Y, Z]`, % of the prescription; axes to patient left,
      posterior, superior.
    masks: `[X, Y, Z, S]`, 0 or 1.
    structures: `[S]`.
    spacing_mm: voxel size along each axis.
    at: the voxel that all three planes go through.
    ct: `[X, Y, Z]` HU below the dose; None: the body.
  """
  size = [n * mm for n, mm in zip(percent.shape, spacing_mm)]
  figure = Figure(figsize=(9.2, 3.8), layout='constrained')
  widths = [size[0], size[0], size[1]]
  drawn = figure.subplots(1, 3, gridspec_kw={'width_ratios': widths})
  colours = figures.structure_colours(structures)
  scale = Normalize(0, _TOP)
  for axes, axis, name in zip(
    drawn, (2, 1, 0), ('axial', 'coronal', 'sagittal')
  ):
    _draw(
      axes, percent, masks, structures, colours, spacing_mm, axis, at[axis], ct
    )
    axes.set_title(name)
  figure.colorbar(
    matplotlib.cm.ScalarMappable(scale, DOSE_COLOURS),
    ax=list(drawn),
    orientation='vertical',
    extend='max',
    shrink=0.8,
    label='dose, % of prescription',
  )
  handles = [
    Line2D([], [], color=colour, label=_plain(structure.name))
    for s, (structure, colour) in enumerate(zip(structures, colours))
    if masks[..., s].any()
  ]
  handles += [
    Line2D([], [], color=colour, linestyle='--', label=f'{level}%')
    for level, colour in ISODOSES.items()
  ]
  figure.legend(handles=handles, loc='outside lower center', ncols=8)
  return figure


def _draw(
  axes: Axes,
  percent: np.ndarray,
  masks: np.ndarray,
  structures: Sequence[Structure],
  colours: Sequence[str],
  spacing_mm: Sequence[float],
  axis: int,
  index: int,
  ct: np.ndarray | None,
) -> None:
  """One plane; rows downward of an axial one, upward of the others."""

  def cut(volume: np.ndarray) -> np.ndarray:
    return np.asarray(volume.take(index, axis).swapaxes(0, 1), np.float32)

  across, down = (n for n in range(3) if n != axis)
  width = percent.shape[across] * spacing_mm[across]
  height = percent.shape[down] * spacing_mm[down]
  # Voxel 0 lies between 0 and one spacing, its centre at half of one.
  extent = (0.0, width, 0.0, height)
  body = [s for s, one in enumerate(structures) if one.role == 'body']
  below = (
    cut(ct) if ct is not None else cut(np.asarray(masks[..., body].any(-1)))
  )
  low, high = _WINDOW if ct is not None else (-0.5, 3.0)
  shown = {'extent': extent, 'origin': 'lower', 'interpolation': 'nearest'}
  axes.imshow(below, cmap='gray', vmin=low, vmax=high, **shown)
  dose = cut(percent)
  axes.imshow(
    np.ma.masked_less(dose, _WASH),
    cmap=DOSE_COLOURS,
    vmin=0,
    vmax=_TOP,
    alpha=0.5,
    **shown,
  )
  x = (np.arange(dose.shape[1]) + 0.5) * spacing_mm[across]
  y = (np.arange(dose.shape[0]) + 0.5) * spacing_mm[down]
  for level, colour in ISODOSES.items():
    if dose.min() < level < dose.max():
      axes.contour(
        x, y, dose, [level], colors=[colour], linewidths=0.8, linestyles='--'
      )
  for s, colour in enumerate(colours):
    mask = cut(masks[..., s] > 0)
    if mask.min() < mask.max():
      axes.contour(x, y, mask, [0.5], colors=[colour], linewidths=1.1)
  axes.set(
    xlim=(0, width),
    ylim=(height, 0) if axis == 2 else (0, height),
    xticks=[],
    yticks=[],
  )
  axes.set_aspect('equal')


def _plain(text: str) -> str:
  """A name, of which nothing is read as a formula."""
  return text.replace('$', r'\$')
