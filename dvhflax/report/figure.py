"""What the figures share: style, the structures' colours, saving."""

from collections.abc import Sequence
import os

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dvhflax import files
from dvhflax.patient import Structure

# Decorates figure functions: `@matplotlib.rc_context(STYLE)`.
STYLE = {
  'font.family': 'DejaVu Sans',
  'font.size': 8,
  'axes.titlesize': 9,
  'axes.labelsize': 8,
  'axes.linewidth': 0.6,
  'xtick.labelsize': 7,
  'ytick.labelsize': 7,
  'xtick.major.width': 0.6,
  'ytick.major.width': 0.6,
  'legend.fontsize': 7,
  'legend.frameon': False,
  'lines.linewidth': 1.2,
}
DPI = 200

_BODY_COLOUR = '#4d4d4d'
# Reds from dark to light, so that nested targets read as one family.
_TARGET_COLOURS = ('#c1121f', '#f4623a', '#f7a072')
# Distinct with the common colour-vision deficiencies (Okabe and Ito), and
# none of them red.
_OAR_COLOURS = (
  '#0072b2',
  '#009e73',
  '#b8860b',
  '#56b4e9',
  '#9a5ea1',
  '#2b2d7c',
  '#8fb339',
  '#6b4226',
  '#d48fc0',
)


def structure_colours(structures: Sequence[Structure]) -> list[str]:
  """`[S]` colours: grey for the body, reds for targets, others for OARs."""
  palettes = {
    'body': (_BODY_COLOUR,),
    'target': _TARGET_COLOURS,
    'oar': _OAR_COLOURS,
  }
  used = dict.fromkeys(palettes, 0)
  colours = []
  for structure in structures:
    palette = palettes[structure.role]
    colours.append(palette[used[structure.role] % len(palette)])
    used[structure.role] += 1
  return colours


def open_frame(axes: Axes) -> None:
  """Leaves only the left and bottom edges of a plot's frame."""
  axes.spines[['top', 'right']].set_visible(False)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
  """Writes a PNG, whole or not at all.

  Args:
    figure: as the figure functions return it.
    path: a file that ends in `.png`; replaced if it exists.
  """
  with files.replacing(path) as aside:
    figure.savefig(aside, dpi=DPI, format='png', facecolor='white')
