"""Computed plans of the OpenKBP patients beside their clinical ones.

python benchmarks/openkbp_plans.py COHORT PATH/provided-data

COHORT is what configs/openkbp.py:small_planned or :planned builds. Prints a
row a patient: the clinical value, then the range over the computed plans, all
in Gy on the cohort's grid.
"""

import pathlib
import sys

import numpy as np

from dvhflax.cohort.store import Cohort
from dvhflax.io import openkbp
from dvhflax.patient import named_masks

COLUMNS = (
  ('PTV70', 'D95'), ('PTV63', 'D95'), ('PTV56', 'D95'),
  ('RightParotid', 'mean'), ('LeftParotid', 'mean'), ('SpinalCord', 'max'),
)  # fmt: skip


def value(dose, mask, kind):
  """Of `[N, X, Y, Z]` doses in a mask, `[N]`."""
  inside = dose[:, mask > 0]
  if kind == 'D95':
    return np.quantile(inside, 0.05, axis=1)
  return inside.mean(1) if kind == 'mean' else inside.max(1)


def main(path: str, raw: str) -> None:
  """Prints the table."""
  cohort = Cohort.open(path)
  folders = {f.name: f for f in openkbp.find_patients(raw)[0]}
  print('| patient | ' + ' | '.join(f'{s} {k}' for s, k in COLUMNS) + ' |')
  print('| --- |' + ' --- |' * len(COLUMNS), flush=True)
  rows = []
  for p, record in enumerate(cohort.patients):
    clinical = openkbp.read_patient(
      pathlib.Path(folders[record.id]), grid=cohort.grid
    )
    planned = np.stack(
      [
        cohort.reference(p, n).to_gy(dose)
        for n, dose in enumerate(cohort.doses(p))
      ]
    )
    given = clinical.dose * openkbp.PRESCRIPTION_GY
    masks = named_masks(cohort.structures, cohort.masks(p), cohort.present[p])
    cells, row = [], []
    for structure, kind in COLUMNS:
      if structure not in masks:
        cells.append('')
        row.append([np.nan] * 4)
        continue
      ours = value(planned, masks[structure], kind)
      theirs = value(given, masks[structure], kind)[0]
      cells.append(f'{theirs:.1f}, {ours.min():.1f} to {ours.max():.1f}')
      row.append([theirs, ours.min(), ours.max(), np.ptp(ours)])
    rows.append(row)
    print(f'| {record.id} | ' + ' | '.join(cells) + ' |', flush=True)
  clinical, least, most, spread = np.moveaxis(np.array(rows), -1, 0)
  print('\nmedians: clinical; least, most and spread of the computed plans')
  for c, (structure, kind) in enumerate(COLUMNS):
    print(
      f'{structure} {kind}: {np.nanmedian(clinical[:, c]):.1f}; '
      f'{np.nanmedian(least[:, c]):.1f}, {np.nanmedian(most[:, c]):.1f}, '
      f'{np.nanmedian(spread[:, c]):.1f}'
    )
  covered = np.nanmean(least[:, 0] >= 0.95 * 70)
  print(f'patients whose every plan has D95 of PTV70 >= 66.5 Gy: {covered:.0%}')


if __name__ == '__main__':
  main(*sys.argv[1:])
