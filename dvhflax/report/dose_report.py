"""A report on one dose: planes, DVHs, goals, metrics; as HTML or PDF.

For research, not for clinical use: every page says so.
"""

import base64
from collections.abc import Mapping, Sequence
import dataclasses
import html
import io
import os
import textwrap
import unicodedata
import warnings

import matplotlib
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
import numpy as np

import dvhflax
from dvhflax import dose_volume, errors, files
from dvhflax.dose_volume import Curve
from dvhflax.patient import Structure
from dvhflax.report import figure as figures
from dvhflax.report import letters
from dvhflax.report.planes import planes
from dvhflax.tuning.goals import GoalResult
from dvhflax.tuning.plan_metrics import Table

WARNING = 'For research, not for clinical use'
_LINES, _COLUMNS = 62, 96  # of a page of text
_MONO = 'DejaVu Sans Mono'
_FILLER = '\0'  # no text has it
_STEP_GY = 0.25
_METADATA = {'Title': 'Dose report', 'Subject': WARNING}
_VERDICT = {True: 'met', False: 'not met', None: ''}


@dataclasses.dataclass(frozen=True)
class DoseReport:
  """What is reported.

  Attributes:
    title: of the dose.
    patient: id.
    prescription_gy: of the patient.
    facts: lines on where the dose is from.
    note: that the user wrote.
    dose_gy: `[X, Y, Z]`.
    masks: `[X, Y, Z, S]`, 0 or 1.
    structures: `[S]`.
    spacing_mm: voxel size.
    ct: `[X, Y, Z]` HU, None without one.
    desired: curves in Gy by structure, of a dose that was wished for.
    goals: what the dose has of them.
    achieved: metrics, see `plan_metrics`.
    wished: the same of the wish; None without one.
  """

  title: str
  patient: str
  prescription_gy: float
  facts: Sequence[str]
  note: str
  dose_gy: np.ndarray
  masks: np.ndarray
  structures: Sequence[Structure]
  spacing_mm: tuple[float, float, float]
  ct: np.ndarray | None
  desired: Mapping[str, Curve]
  goals: Sequence[GoalResult]
  achieved: Table
  wished: Table | None


def write_html(path: str | os.PathLike[str], report: DoseReport) -> None:
  """Writes one file with all pictures within."""
  pictures = ''.join(
    f'<img alt="{alt}" src="data:image/png;base64,{_png(figure)}">'
    for alt, figure in (
      ('Three planes of the dose', _planes(report)),
      ('Dose-volume histograms', _curves(report)),
    )
  )
  goals = ''.join(
    f'<tr><td>{_safe(goal.text)}</td><td>{_value(goal)}</td>'
    f'<td>{_VERDICT[goal.met]}</td></tr>'
    for goal in report.goals
  )
  metrics = ''.join(
    f'<tr><td>{_safe(name)}</td><td>{_safe(key)}</td><td>{wish}</td>'
    f'<td>{value}</td></tr>'
    for name, key, wish, value in _metrics(report)
  )
  facts = ''.join(f'<li>{_safe(fact)}</li>' for fact in _facts(report))
  goal_table = (
    '<h2>Goals</h2><table><tr><th>goal</th><th>achieved</th><th></th></tr>'
    f'{goals}</table>'
    if goals
    else ''
  )
  note = f'<p class="note">{_safe(report.note)}</p>' if report.note else ''
  files.write_text(
    path,
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    f'<title>Dose report: {_safe(report.title)}</title><style>{_STYLE}</style>'
    f'<p class="warning">{WARNING}</p><h1>{_safe(report.title)}</h1>'
    f'<ul>{facts}</ul>{note}{pictures}{goal_table}'
    '<h2>Metrics</h2><p>Doses in Gy, volumes in %.</p><table><tr>'
    '<th>structure</th><th></th><th>desired</th><th>achieved</th></tr>'
    f'{metrics}</table><p class="warning">{WARNING}</p></html>\n',
  )


def write_pdf(path: str | os.PathLike[str], report: DoseReport) -> None:
  """Writes a page of pictures, and pages of goals and metrics."""
  with (
    files.replacing(path) as aside,
    warnings.catch_warnings(),
    PdfPages(
      aside, metadata={'Title': 'Dose report', 'Subject': WARNING}
    ) as pdf,
  ):
    # A letter that the font lacks is a box, and no reason to stop.
    warnings.filterwarnings('ignore', message='Glyph')
    for figure in (_planes(report), _curves(report)):
      figure.suptitle(
        f'{errors.plain(report.title)}: {WARNING.lower()}',
        fontsize=9,
        family=_family(report.title),
        parse_math=False,
      )
      pdf.savefig(figure)
    lines = _text(report)
    family, boxes = letters.families(''.join(lines), _MONO)
    lines += _boxes_told(boxes)
    for first in range(0, len(lines), _LINES):
      pdf.savefig(_page(lines[first : first + _LINES], family))


def write_csv(path: str | os.PathLike[str], report: DoseReport) -> None:
  """Writes DVHs: a row a structure and dose, readable as a wish.

  Columns `structure`, `dose_gy`, `volume_percent`, `desired_volume_percent`.
  """
  import csv

  top = max(float(report.dose_gy.max()), _STEP_GY)
  doses = _STEP_GY * np.arange(int(np.ceil(top / _STEP_GY)) + 2)
  with files.replacing(path) as aside, open(aside, 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(
      ['structure', 'dose_gy', 'volume_percent', 'desired_volume_percent']
    )
    for s, structure in enumerate(report.structures):
      inside = report.masks[..., s] > 0
      if not inside.any():
        continue
      volumes = dose_volume.volume_fraction_at_dose(
        report.dose_gy[inside], doses
      )
      wish = report.desired.get(structure.name)
      for dose, volume in zip(doses, volumes):
        desired = ''
        if wish is not None:
          desired = f'{wish.volume_percent_at_dose(float(dose)):.4f}'
        writer.writerow(
          [structure.name, f'{dose:.2f}', f'{100 * volume:.4f}', desired]
        )


def _planes(report: DoseReport) -> Figure:
  targets = [
    s for s, one in enumerate(report.structures) if one.role == 'target'
  ]
  inside = report.masks[..., targets].any(-1)
  at = [n // 2 for n in inside.shape]
  if inside.any():
    at = [round(float(axis.mean())) for axis in np.nonzero(inside)]
  return planes(
    100 * report.dose_gy / report.prescription_gy,
    report.masks,
    report.structures,
    report.spacing_mm,
    at,
    report.ct,
  )


@matplotlib.rc_context(figures.STYLE)
def _curves(report: DoseReport) -> Figure:
  """DVHs in Gy, achieved solid and desired dotted."""
  figure = Figure(figsize=(9.2, 4.2), layout='constrained')
  axes = figure.subplots()
  top = 1.05 * max(float(report.dose_gy.max()), 1.0)
  levels = np.linspace(0, top, 301)
  handles = []
  for s, colour in enumerate(figures.structure_colours(report.structures)):
    name = report.structures[s].name
    inside = report.masks[..., s] > 0
    if not inside.any():
      continue
    volume = dose_volume.volume_fraction_at_dose(report.dose_gy[inside], levels)
    axes.plot(levels, 100 * volume, color=colour)
    handles.append(Line2D([], [], color=colour, label=name.replace('$', r'\$')))
    if name in report.desired:
      wish = report.desired[name]
      axes.plot(wish.dose, 100 * wish.volume, ':', color=colour, linewidth=1.4)
  handles.append(Line2D([], [], color='0.2', label='achieved'))
  if report.desired:
    handles.append(Line2D([], [], color='0.2', linestyle=':', label='desired'))
  axes.set(xlim=(0, top), ylim=(0, 102), xlabel='dose, Gy', ylabel='volume, %')
  axes.legend(
    handles=handles,
    loc='upper left',
    bbox_to_anchor=(1.01, 1),
    prop={'family': _family(''.join(s.name for s in report.structures))},
  )
  figures.open_frame(axes)
  return figure


def _facts(report: DoseReport) -> list[str]:
  return [
    f'Patient: {errors.plain(report.patient, 200)}',
    f'Prescription: {report.prescription_gy:g} Gy',
    *report.facts,
    f'dvhflax {dvhflax.__version__}',
  ]


def _metrics(report: DoseReport) -> list[tuple[str, str, str, str]]:
  wished = report.wished or {}
  rows = []
  for name, row in report.achieved.items():
    for key, value in row.items():
      wish = wished.get(name, {}).get(key)
      shown = '' if wish is None else f'{wish:.2f}'
      rows.append((name, key, shown, f'{value:.2f}'))
  return rows


def _value(goal: GoalResult) -> str:
  achieved = goal.achieved
  if achieved is None:
    return '-'
  return f'{achieved:.1f} {_safe(goal.unit)}'


def _text(report: DoseReport) -> list[str]:
  lines = [report.title, WARNING.upper(), '', *_facts(report)]
  if report.note:
    lines += ['', *report.note.splitlines()]
  if report.goals:
    lines += ['', f'{"goal":48}{"achieved":>14}']
    lines += [
      f'{errors.plain(goal.text, 46):48}{html.unescape(_value(goal)):>14}  '
      f'{_VERDICT[goal.met]}'
      for goal in report.goals
    ]
  lines += [
    '',
    f'{"doses in Gy, volumes in %":32}{"desired":>12}{"achieved":>12}',
  ]
  lines += [
    f'{errors.plain(f"{name} {key}", 30):32}{wish or "-":>12}{value:>12}'
    for name, key, wish, value in _metrics(report)
  ]
  return [piece for line in lines for piece in _wrapped(line)]


def _wrapped(line: str) -> list[str]:
  """A line in pieces that a page is wide enough for."""
  wide = ''.join(
    f'{c}{_FILLER}' if unicodedata.east_asian_width(c) in 'WF' else c
    for c in errors.plain(line, 4000)
  )
  pieces = textwrap.wrap(wide, _COLUMNS, drop_whitespace=False)
  return [piece.replace(_FILLER, '') for piece in pieces] or ['']


def _boxes_told(boxes: str) -> list[str]:
  """A sentence on letters that no font here has."""
  if not boxes:
    return []
  told = ', '.join(f'U+{ord(c):04X}' for c in boxes[:20])
  more = ', ...' if len(boxes) > 20 else ''
  return [
    '',
    *_wrapped(
      f'Letters that no font of this computer has are boxes above ({told}{more}'
      '): the report as HTML has them.'
    ),
  ]


def _family(text: str) -> list[str]:
  return letters.families(text, 'DejaVu Sans')[0]


def _page(lines: Sequence[str], family: list[str]) -> Figure:
  figure = Figure(figsize=(8.27, 11.69))
  figure.text(
    0.07,
    0.95,
    '\n'.join(lines),
    family=family,
    fontsize=8,
    va='top',
    parse_math=False,
  )
  figure.text(0.5, 0.03, WARNING, fontsize=8, ha='center')
  return figure


def _png(figure: Figure) -> str:
  buffer = io.BytesIO()
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', message='Glyph')
    figure.savefig(buffer, format='png', dpi=130)
  return base64.b64encode(buffer.getvalue()).decode()


def _safe(text: object) -> str:
  return html.escape(str(text))


_STYLE = (
  'body{font:15px/1.45 system-ui,sans-serif;max-width:62rem;margin:2rem auto;'
  'padding:0 1rem;color:#1c1c1c;background:#fff}img{max-width:100%}'
  'table{border-collapse:collapse}td,th{padding:.2rem 1rem .2rem 0;'
  'text-align:left;border-bottom:1px solid #ddd}'
  '.warning{font-weight:700;text-transform:uppercase}.note{white-space:pre-wrap}'
)
