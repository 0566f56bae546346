"""Shows what a cohort's plans are like: metrics, clinical limits, a picture."""

from collections.abc import Sequence
import os
import sys

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
import numpy as np
import tqdm

from dvhflax import dose_volume, metrics
from dvhflax.cohort import place
from dvhflax.cohort.store import Cohort
from dvhflax.dose_volume import Voxels
from dvhflax.patient import Structure
from dvhflax.report import figure as figures
from dvhflax.report import slices as slices_lib
from dvhflax.text_table import aligned

# Dose in Gy and the largest share of the volume, in %, that may receive it
# (Quantitative Analyses of Normal Tissue Effects in the Clinic, 2010).
QUANTEC: dict[str, tuple[tuple[int, int], ...]] = {
  'rectum': ((50, 50), (60, 35), (65, 25), (70, 20), (75, 15)),
  'bladder': ((65, 50), (70, 35), (75, 25), (80, 15)),
}
PATIENTS_SHOWN = 5


def describe(cohort: Cohort) -> str:
  """A table of the plans' metrics, and the share that keeps QUANTEC's limits.

  Doses are in Gy. `spread` is the standard deviation over a patient's own
  plans, averaged over patients: what a wish can choose from.
  """
  values: dict[tuple[str, str], list[np.ndarray]] = {}
  cut = np.zeros(len(cohort.structures), int)
  outside: dict[str, list[float]] = {}
  for p in tqdm.tqdm(
    range(len(cohort.patients)), unit='patient', file=sys.stderr
  ):
    masks = cohort.masks(p) > 0
    cut += metrics.at_edge(masks)
    for name, share in (
      cohort.patients[p].provenance.get('outside_grid', {}).items()
    ):
      outside.setdefault(name, []).append(share)
    doses = np.stack(
      [
        cohort.reference(p, n).to_gy(dose)
        for n, dose in enumerate(cohort.doses(p))
      ]
    )
    for s, structure in enumerate(cohort.structures):
      if not cohort.present[p, s]:
        continue
      measured = [
        _measured(Voxels(dose), structure) for dose in doses[:, masks[..., s]]
      ]
      for name in measured[0]:
        values.setdefault((structure.name, name), []).append(
          np.array([of_plan[name] for of_plan in measured])
        )
  plans = sum(record.plans for record in cohort.patients)
  rows = [['', 'mean', '5%', '95%', 'spread', 'within QUANTEC']]
  for (owner, name), per_patient in values.items():
    together = np.concatenate(per_patient)
    low, high = np.percentile(together, (5, 95))
    spread = np.mean([measure.std() for measure in per_patient])
    numbers = [f'{x:.1f}' for x in (together.mean(), low, high, spread)]
    limits = {f'V{gy}': limit for gy, limit in QUANTEC.get(owner, ())}
    kept = ''
    if limit := limits.get(name):
      kept = f'{100 * (together < limit).mean():.1f}% (< {limit}%)'
    rows.append([f'{owner} {name}', *numbers, kept])
  lines = [f'{cohort.path}: {len(cohort.patients)} patients, {plans} plans']
  lines += aligned(rows)
  for structure, patients in zip(cohort.structures, cut):
    if patients:
      lines.append(
        f'{structure.name} reaches the sides of the grid in {patients} of '
        f'{len(cohort.patients)} patients: its metrics are of the part within'
        + _lost(outside.get(structure.name, []))
      )
  return '\n'.join(lines)


def _measured(dose_gy: Voxels, structure: Structure) -> dict[str, float]:
  """The figures of a structure, doses in Gy and volumes in %."""
  found = {'mean': dose_gy.mean_dose, 'max': dose_gy.max_dose}
  if structure.role == 'target':
    for percent in (98, 95, 2):
      found[f'D{percent}'] = dose_gy.dose_at_volume_percent(percent)
  for gy, _ in QUANTEC.get(structure.name, ()):
    found[f'V{gy}'] = dose_gy.volume_percent_at_dose(gy)
  return found


def _lost(shares: Sequence[float]) -> str:
  """How much lies outside, as far as the import recorded it."""
  if not shares:
    return ''
  return (
    f'; {np.mean(shares):.0%} of its volume on average, {max(shares):.0%} at '
    'most, lie outside'
  )


@matplotlib.rc_context(figures.STYLE)
def plans(cohort: Cohort, patients: Sequence[int]) -> Figure:
  """Contours, two plans and all DVHs of some patients, a row each.

  The two plans are those that spare most and least the structure whose mean
  dose varies most among a patient's plans.
  """
  structures = cohort.structures
  colours = figures.structure_colours(structures)
  traded = _mean_doses(cohort, patients[0]).std(0).argmax()
  figure = Figure(figsize=(9.2, 1.75 * len(patients) + 0.6), layout='tight')
  panels = figure.subplots(len(patients), 4, squeeze=False)
  scale = Normalize(0, 110)
  titles = (
    'contours',
    f'{structures[traded].name} spared most',
    'least',
    'DVHs',
  )
  for axes, title in zip(panels[0], titles):
    axes.set_title(title)
  for row, p in zip(panels, patients):
    masks, doses = cohort.masks(p), cohort.doses(p)
    order = _mean_doses(cohort, p)[:, traded].argsort()
    piece = slices_lib.axial(
      masks,
      [doses[order[0]], doses[order[-1]]],
      structures,
      cohort.patients[p].spacing_mm,
    )
    slices_lib.draw_contours(row[0], piece, colours, structures)
    slices_lib.draw_orientation(row[0])
    row[0].set_ylabel(cohort.patients[p].id)
    for axes, dose in zip(row[1:3], piece.doses):
      slices_lib.draw_image(axes, piece, dose, scale, slices_lib.DOSE_COLOURS)
      slices_lib.draw_outlines(axes, piece, structures, 'white', 'black')
    _draw_curves(row[3], masks, doses, colours)
  panels[-1][3].set_xlabel('dose, % of the reference')
  figure.legend(
    handles=[
      Line2D([], [], color=colour, label=structure.name)
      for structure, colour in zip(structures, colours)
    ],
    loc='outside lower left',
    ncols=len(structures),
  )
  return figure


def _mean_doses(cohort: Cohort, patient: int) -> np.ndarray:
  """`[N, S]` mean dose of each plan in each structure, 0 in an absent one."""
  masks, present = cohort.masks(patient), cohort.present[patient]
  return np.nan_to_num(
    [
      metrics.means_and_maxima(dose, masks, present)[0]
      for dose in cohort.doses(patient)
    ]
  )


def _draw_curves(
  axes: Axes, masks: np.ndarray, doses: np.ndarray, colours: Sequence[str]
) -> None:
  levels = np.linspace(0, 1.2, 121, dtype=np.float32)
  for s, colour in enumerate(colours):
    inside = masks[..., s] > 0
    for dose in doses if inside.any() else ():
      volume = dose_volume.volume_fraction_at_dose(dose[inside], levels)
      axes.plot(100 * levels, 100 * volume, color=colour, linewidth=0.6)
  axes.set(xlim=(0, 120), ylim=(0, 102), ylabel='volume, %')
  figures.open_frame(axes)


def save_plans(cohort: Cohort) -> str:
  """Draws the first patients to `plans.png`; returns its path.

  It is in the store, or in the current folder if that is at a URL.
  """
  shown = range(min(PATIENTS_SHOWN, len(cohort.patients)))
  folder = '' if place.is_url(cohort.path) else cohort.path
  path = os.path.join(folder, 'plans.png')
  figures.save(plans(cohort, shown), path)
  return path
