"""Slices of a patient, as figures show them: contours, doses, scales."""

from collections.abc import Sequence
import dataclasses

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
import numpy as np

from dvhflax.patient import Structure

# Room for the orientation letters.
_MARGIN_MM = 22.0
DOSE_COLOURS = 'inferno'


@dataclasses.dataclass(frozen=True)
class Slice:
  """An axial slice, cropped, in the layout that imshow shows.

  Attributes:
    masks: `[y, x, S]`.
    doses: `[N, y, x]`, % of the reference.
    spacing_mm: along x and y.
  """

  masks: np.ndarray
  doses: np.ndarray
  spacing_mm: tuple[float, float]

  @property
  def size_mm(self) -> tuple[float, float]:
    """Width and height."""
    rows, columns = self.masks.shape[:2]
    return columns * self.spacing_mm[0], rows * self.spacing_mm[1]


def axial(
  masks: np.ndarray,
  doses: Sequence[np.ndarray],
  structures: Sequence[Structure],
  spacing_mm: Sequence[float],
) -> Slice:
  """The axial slice through the targets' centroid, cropped to the patient.

  Args:
    masks: `[X, Y, Z, S]`; axes to patient left, posterior, superior.
    doses: N of `[X, Y, Z]`, fractions of the reference.
    structures: `[S]`.
    spacing_mm: voxel size along each axis.
  """
  masks = np.asarray(masks) > 0
  targets = [s for s, one in enumerate(structures) if one.role == 'target']
  inside = masks[..., targets].any(-1)
  if not inside.any():
    inside = masks.any(-1)
  per_slice = inside.sum((0, 1))
  z = len(per_slice) // 2
  if inside.any():
    z = round(float(np.average(np.arange(len(per_slice)), weights=per_slice)))
  # The crop is the patient's, not the slice's.
  x, pad_x = _crop(np.asarray(masks.any((1, 2, 3))), spacing_mm[0])
  y, pad_y = _crop(np.asarray(masks.any((0, 2, 3))), spacing_mm[1])

  def cut(volume: np.ndarray) -> np.ndarray:
    plane = np.moveaxis(volume[x, y, z], 0, 1)
    return np.pad(plane, [pad_y, pad_x] + [(0, 0)] * (plane.ndim - 2))

  return Slice(
    masks=cut(masks),
    doses=np.stack([100 * cut(dose).astype(np.float64) for dose in doses]),
    spacing_mm=(spacing_mm[0], spacing_mm[1]),
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


def _bare(axes: Axes, piece: Slice) -> None:
  width, height = piece.size_mm
  axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
  axes.set_aspect('equal', anchor='N')
  axes.spines[:].set_color('0.6')


def draw_image(
  axes: Axes, piece: Slice, values: np.ndarray, scale: Normalize, colours: str
) -> None:
  """Shows `[y, x]` values of a slice."""
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
  axes: Axes, mask: np.ndarray, piece: Slice, colour: str, width: float
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


def draw_contours(
  axes: Axes,
  piece: Slice,
  colours: Sequence[str],
  structures: Sequence[Structure],
) -> None:
  """Shows what a slice cuts, in the structures' colours."""
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


def draw_outlines(
  axes: Axes,
  piece: Slice,
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


def draw_orientation(axes: Axes) -> None:
  """Letters of an axial slice: anterior on top, the left on the right."""
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


def colour_bar(
  axes: Axes, scale: Normalize, colours: str, label: str, extend: str
) -> None:
  """A horizontal bar along the top of the axes."""
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
