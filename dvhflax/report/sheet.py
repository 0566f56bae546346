"""One page on a predicted dose: contours, dose, DVHs beside the desired."""

from collections.abc import Sequence

import matplotlib
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
import numpy as np

from dvhflax import dvh
from dvhflax.patient import Structure
from dvhflax.report import figure as figures
from dvhflax.report import slices as slices_lib


@matplotlib.rc_context(figures.STYLE)
def sheet(
  title: str,
  dose: np.ndarray,
  masks: np.ndarray,
  desired_dvh: np.ndarray | None,
  structures: Sequence[Structure],
  spacing_mm: tuple[float, float, float],
  spec: dvh.DVHSpec,
) -> Figure:
  """The slice through the targets' centroid, and all DVHs.

  Args:
    title: a line above.
    dose: `[X, Y, Z]`, fraction of the prescription.
    masks: `[X, Y, Z, S]`, 0 or 1.
    desired_dvh: `[S, K]`; None where there was no wish.
    structures: `[S]`.
    spacing_mm: voxel size along each axis.
    spec: how the desired DVH is to be read.
  """
  piece = slices_lib.axial(masks, [dose], structures, spacing_mm)
  colours = figures.structure_colours(structures)
  scale = Normalize(0, 110)
  figure = Figure(figsize=(9.2, 3.6), layout='constrained')
  contours, image, curves = figure.subplots(
    1, 3, gridspec_kw={'width_ratios': (1, 1, 1.3)}
  )
  figure.suptitle(f'{title}: a prediction, not for clinical use', fontsize=9)
  slices_lib.draw_contours(contours, piece, colours, structures)
  slices_lib.draw_orientation(contours)
  contours.set_title('contours')
  slices_lib.draw_image(
    image, piece, piece.doses[0], scale, slices_lib.DOSE_COLOURS
  )
  slices_lib.draw_outlines(image, piece, structures, 'white', 'black')
  image.set_title('predicted dose')
  figure.colorbar(
    matplotlib.cm.ScalarMappable(scale, slices_lib.DOSE_COLOURS),
    ax=image,
    orientation='horizontal',
    extend='max',
    label='dose, % of prescription',
  )
  levels = np.linspace(0, 1.2, 241, dtype=np.float32)
  handles = []
  for s, colour in enumerate(colours):
    inside = masks[..., s] > 0
    if not inside.any():
      continue
    volume = dvh.volume_at_dose(dose[inside], levels)
    curves.plot(100 * levels, 100 * volume, color=colour)
    handles.append(Line2D([], [], color=colour, label=structures[s].name))
    if desired_dvh is not None and desired_dvh[s].any():
      across, up = spec.levels, desired_dvh[s]
      if spec.kind == 'dose_at_volume':
        across, up = up, across
      curves.plot(100 * across, 100 * up, ':', color=colour, linewidth=1.4)
  handles.append(Line2D([], [], color='0.2', label='predicted'))
  handles.append(Line2D([], [], color='0.2', linestyle=':', label='desired'))
  curves.set(
    xlim=(0, 120),
    ylim=(0, 102),
    xlabel='dose, % of prescription',
    ylabel='volume, %',
    title='DVH',
  )
  curves.legend(
    handles=handles, loc='upper center', bbox_to_anchor=(0.5, -0.2), ncols=3
  )
  figures.open_frame(curves)
  return figure
