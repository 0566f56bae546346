"""The kernel's dose in water beside published 6 MV beam data.

python benchmarks/beam_data.py [--figure=docs/beam_data.png]

Square fields on a block of water, the surface at the isocentre (SSD 100 cm),
through ray tracing and dose influence as a patient's plan. Prints tables of
what differs and draws depth doses and profiles.

`beam_data_6mv.csv` has 286 of the values of a Varian TrueBeam's 6 MV beam in
https://github.com/DRO-Physics/DCAL, commit 6b3f157, `Golden_Beam_Data.json`:
depth doses and cross profiles of 4, 6, 10 and 20 cm wide fields at SSD 100 cm,
in % of the maximum and of the axis. Its values for 5 cm are taken as the mean
of those of 4 and 6 cm, profiles at equal distances from the edge.
`UTRECHT` are depth doses of another 6 MV beam, 10 cm wide, measured with an
ionisation chamber of type IC15 at SSD 100 cm:
https://github.com/kegge13/BistroMath, commit 3a157f7,
`output/selftest03_pdd.txt`, means of the readings within 0.3 mm of each depth.
"""

import argparse
import csv
import pathlib

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import erf

from dvhflax.grid import Grid
from dvhflax.planning.beams import Beamlets
from dvhflax.planning.influence import Influence
from dvhflax.planning.kernel import gaussian_kernel
from dvhflax.planning.raytrace import depth_maps

DATA = pathlib.Path(__file__).with_name('beam_data_6mv.csv')
UTRECHT = {5.0: 86.2, 10.0: 67.1, 15.0: 51.4, 20.0: 39.2, 25.0: 30.0}
# Output factors of the same file; its measuring depth is not given.
OUTPUT = {5: 0.928, 10: 1.0, 20: 1.067}

FIELDS_CM = (5, 10, 20)
PROFILES = {'profile 1.5 cm': 15.0, 'profile 10 cm': 100.0}
SAD_MM, BEAMLET_MM = 1000.0, 5.0
# 2.5 mm along the beam; the surface lies between two rows of voxels.
GRID = Grid((80, 160, 80), (6.0, 2.5, 6.0))
SURFACE_MM = -155.0
DEPTHS_MM = np.arange(0.0, 301.0)
ACROSS_MM = np.arange(0.0, 201.0)


def water_rows(surface_to_isocentre_mm, points):
  """Influence of a 20 cm wide lattice of beamlets on `[V, 3]` points.

  Args:
    surface_to_isocentre_mm: depth of the isocentre.
    points: x, depth below the surface and z in mm, from the beam's axis.

  Returns:
    `[V, 40, 40]`.
  """
  _, y, _ = np.ix_(*GRID.axes)
  water = np.broadcast_to(y > SURFACE_MM, GRID.shape).astype(np.float32)
  isocentre = np.array([0.0, SURFACE_MM + surface_to_isocentre_mm, 0.0])
  count = round(10 * max(FIELDS_CM) / BEAMLET_MM)
  opened = np.ones((1, count, count), bool)
  beamlets = Beamlets(isocentre, np.zeros(1), SAD_MM, BEAMLET_MM, opened)
  influence = Influence(beamlets, depth_maps(water, GRID, beamlets))
  rows = np.asarray(influence.rows(np.add(points, [0.0, SURFACE_MM, 0.0])))
  active = beamlets.active >= 0
  return rows[: len(points), active].reshape(-1, count, count)


def open_field(rows, width_cm):
  """`[V]` dose of the square field in the middle of the lattice."""
  unused = (rows.shape[1] - round(10 * width_cm / BEAMLET_MM)) // 2
  middle = slice(unused, rows.shape[1] - unused)
  return rows[:, middle, middle].sum((1, 2), dtype=np.float64)


def computed():
  """Curves by (field in cm, name), each of positions in cm and %."""
  lines = [DEPTHS_MM[:, None] * [0.0, 1.0, 0.0]]
  for depth in PROFILES.values():
    lines.append(ACROSS_MM[:, None] * [1.0, 0, 0] + [0, depth, 0])
  rows = water_rows(0.0, np.concatenate(lines))
  curves, output = {}, {}
  for field in FIELDS_CM:
    parts = np.split(
      open_field(rows, field), np.cumsum([len(line) for line in lines])[:-1]
    )
    percent = 100 * parts[0] / parts[0].max()
    curves[field, 'depth dose'] = DEPTHS_MM / 10, percent
    for name, part in zip(PROFILES, parts[1:]):
      curves[field, name] = ACROSS_MM / 10, 100 * part / part[0]
    output[field] = parts[0][[50, 100]]
  return curves, {f: output[f] / output[10] for f in FIELDS_CM}


def widening(depth_cm, field_cm):
  """Depth dose in % if the kernel kept its width in mm at every distance.

  The influence has the Gaussians' widths in the isocentre's plane: below it
  they widen with the beam. Here the field widens, and they do not.
  """
  kernel = gaussian_kernel()
  depth = np.arange(0.0, 301.0)
  distance = (SAD_MM + depth) / SAD_MM
  half = 10 * field_cm / 2 * distance[:, None] / kernel.sigma_mm / np.sqrt(2)
  rows = np.searchsorted(
    np.arange(len(kernel.weights)) * kernel.depth_step_mm, depth
  )
  dose = (kernel.weights[rows] * erf(half) ** 2).sum(1) / distance**2
  return np.interp(depth_cm, depth / 10, 100 * dose / dose.max())


def published():
  """Curves as `computed` gives them, of the published values."""
  columns: dict[tuple[int, str], list[tuple[float, float]]] = {}
  with DATA.open() as lines:
    for row in csv.DictReader(lines):
      point = float(row['position_cm']), float(row['percent'])
      columns.setdefault((int(row['field_cm']), row['curve']), []).append(point)
  curves = {key: np.array(points).T for key, points in columns.items()}
  below, above = (curves[f, 'depth dose'] for f in (4, 6))
  curves[5, 'depth dose'] = (below + above) / 2
  for name, depth in PROFILES.items():
    edge = {f: f / 2 * (1 + depth / SAD_MM) for f in (4, 5, 6)}
    from_edge = curves[6, name][0] - edge[6]
    from_edge = from_edge[from_edge >= -edge[4]]
    percent = [np.interp(from_edge + edge[f], *curves[f, name]) for f in (4, 6)]
    curves[5, name] = np.stack([from_edge + edge[5], np.mean(percent, 0)])
  return curves


def crossing(curve, percent):
  """Position in cm at which a profile falls to a percentage."""
  position, value = curve
  after = np.flatnonzero(value < percent)[0]
  pair = slice(after - 1, after + 1)
  return float(np.interp(-percent, -value[pair], position[pair]))


def penumbra_mm(curve):
  """Distance from 80 to 20% of the axis."""
  return 10 * (crossing(curve, 20) - crossing(curve, 80))


def tissue_phantom_ratio():
  """TPR20,10: SAD 100 cm, the chamber in the isocentre, a 10 cm field."""
  at_20, at_10 = (
    open_field(water_rows(depth, np.array([[0.0, depth, 0.0]])), 10)[0]
    for depth in (200.0, 100.0)
  )
  return at_20 / at_10


def tables(ours, theirs, output):
  """What is printed."""
  print('depth dose, % of the maximum: ours, published, difference')
  for field in FIELDS_CM:
    position, percent = theirs[field, 'depth dose']
    own = np.interp(position, *ours[field, 'depth dose'])
    fixed = widening(position, field)
    deepest = ours[field, 'depth dose'][1].argmax() / 10
    print(f'{field} cm: maximum at {deepest:.1f} cm')
    for row in zip(position, own, percent, own - percent, fixed - percent):
      depth, a, b, difference, other = row
      print(
        f'  {depth:5.1f} cm {a:6.1f} {b:6.1f} {difference:+5.1f}'
        f'   with widths in mm {other:+5.1f}'
      )
    past = position >= 1.5
    worst = np.abs(own - percent)[past].max()
    print(f'  largest from 1.5 cm on {worst:.1f}')
  own = np.interp(list(UTRECHT), *ours[10, 'depth dose'])
  other = own - np.array(list(UTRECHT.values()))
  print('10 cm, Utrecht:', *(f'{d:+.1f}' for d in other))
  print(f'TPR20,10 {tissue_phantom_ratio():.3f}')
  for name, curves in (('ours', ours), ('published', theirs)):
    position, percent = curves[10, 'depth dose']
    at_20, at_10 = np.interp([20, 10], position, percent)
    print(f'{name}: PDD20,10 {at_20 / at_10:.4f}')
  print('\nprofiles: 80-20% mm, half width at 50% cm, in field, outside %')
  for name, depth in PROFILES.items():
    for field in FIELDS_CM:
      mine, other = ours[field, name], theirs[field, name]
      position, percent = other
      own = np.interp(position, *mine)
      edge = field / 2 * (1 + depth / SAD_MM)
      inside = position <= 0.8 * edge
      outside = (position >= edge + 1.5) & (position <= edge + 4)
      worst = (own - percent)[inside]
      beyond = (own - percent)[outside]
      print(
        f'{field:3} cm {name:15}'
        f'{penumbra_mm(mine):5.1f} {penumbra_mm(other):5.1f}'
        f'{crossing(mine, 50):7.2f} {crossing(other, 50):6.2f}'
        f'  {worst[np.abs(worst).argmax()]:+5.1f}'
        f'  {f"{beyond.mean():+5.1f}" if len(beyond) else "not given"}'
      )
  print('\noutput: ours at 5 and 10 cm depth, published')
  for field, factor in OUTPUT.items():
    print(f'{field:3} cm', *(f'{o:.3f}' for o in output[field]), factor)


def draw(ours, theirs, path):
  """Depth doses and profiles, computed as lines, published as dots."""
  plt.rcParams.update({'font.size': 9, 'axes.grid': True, 'grid.alpha': 0.3})
  figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), constrained_layout=True)
  colours = dict(zip(FIELDS_CM, ('tab:blue', 'tab:orange', 'tab:green')))
  for field, colour in colours.items():
    for axis, name in zip(axes, ('depth dose', *PROFILES)):
      axis.plot(*ours[field, name], color=colour, label=f'{field} cm')
      axis.plot(*theirs[field, name], '.', color=colour, markersize=4)
  axes[0].plot(
    list(UTRECHT), list(UTRECHT.values()), 's', color='k', fillstyle='none',
    markersize=6, label='10 cm, another linac',
  )  # fmt: skip
  axes[0].set(xlabel='depth, cm', ylabel='% of the maximum', ylim=(0, 105))
  axes[0].set_title('depth dose, SSD 100 cm')
  for axis, depth in zip(axes[1:], ('1.5', '10')):
    axis.set(xlabel='from the axis, cm', ylabel='% of the axis', xlim=(0, 15))
    axis.set(ylim=(0, 110), title=f'profile at {depth} cm depth')
  axes[0].legend(title='lines ours, dots published')
  figure.savefig(path, dpi=150)


def main():
  """As the command line asks."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--figure', help='where to draw')
  options = parser.parse_args()
  (ours, output), theirs = computed(), published()
  tables(ours, theirs, output)
  if options.figure:
    draw(ours, theirs, options.figure)


if __name__ == '__main__':
  main()
