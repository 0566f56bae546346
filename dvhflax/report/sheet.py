"""One page on a predicted dose: contours, dose, DVHs beside the desired."""

from collections.abc import Sequence

import matplotlib
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
import numpy as np

from dvhflax import dose_volume, dvh
from dvhflax.patient import Structure
from dvhflax.report import figure as figures
from dvhflax.report import slices as slices_lib
from dvhflax.tuning.steps import Step


@matplotlib.rc_context(figures.STYLE)
def sheet(
  title: str,
  step: Step,
  masks: np.ndarray,
  structures: Sequence[Structure],
  spacing_mm: tuple[float, float, float],
  spec: dvh.DVHSpec,
) -> Figure:
  """The slice through the targets' centroid, and all DVHs.

  Args:
    title: a line above.
    step: the dose, and the wish if there was one.
    masks: `[X, Y, Z, S]`, 0 or 1.
    structures: `[S]`.
    spacing_mm: voxel size along each axis.
    spec: how the desired DVH is to be read.
  """
  percent = step.reference.to_percent(step.dose)
  piece = slices_lib.axial(masks, [percent / 100], structures, spacing_mm)
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
  levels = np.linspace(0, 120, 241)
  handles = []
  for s, colour in enumerate(colours):
    inside = masks[..., s] > 0
    if not inside.any():
      continue
    volume = dose_volume.volume_fraction_at_dose(percent[inside], levels)
    curves.plot(levels, 100 * volume, color=colour)
    handles.append(Line2D([], [], color=colour, label=structures[s].name))
    if step.desired_dvh is not None and step.desired_dvh[s].any():
      wished = spec.curve(step.desired_dvh[s])
      across = step.desired_reference.to_percent(wished.dose)
      curves.plot(across, 100 * wished.volume, ':', color=colour, linewidth=1.4)
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
