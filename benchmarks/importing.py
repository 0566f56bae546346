"""Accuracy of imported contours and grids against closed forms.

python benchmarks/importing.py

Shapes of known volume lie in a dose that grows by 1 Gy/mm to 120 Gy. Prints
errors of volume in % and of doses in % of 120 Gy: of contours by slice
spacing, and of 3 mm slices by the spacing of the cohort's grid, mean (worst)
over positions of that grid.
"""

import numpy as np

from dvhflax.io import contours, resample, source_dvh

SLICES_MM = (0.5, 1.0, 2.0, 3.0)
GRIDS_MM = ((2.0, 2.0, 2.0), (3.0, 3.0, 3.0), (3.75, 3.0, 3.0), (5.0, 5.0, 5.0))
# Half length along z, volume in mm^3, radius at height z.
SHAPES = {
  'sphere': (20, 4 / 3 * np.pi * 20**3, lambda z: np.sqrt(400 - z**2)),
  'cylinder': (15, np.pi * 20**2 * 30, lambda z: 20 + 0 * z),
  'cone': (24, np.pi * 20**2 * 48 / 3, lambda z: 20 * (24 - z) / 48),
}
TOP_GY, MIDDLE_GY = 120.0, 60.0
SAMPLES, POSITIONS = 4_000_000, 8


def shape(name, spacing):
  """Contours of 400 points, half a slice from the ends."""
  half, _, radius = SHAPES[name]
  count = round(2 * half / spacing)
  angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
  return [
    np.stack(
      [radius(z) * np.cos(angle), radius(z) * np.sin(angle), 0 * angle + z], 1
    )
    for z in (np.arange(count) - (count - 1) / 2) * spacing
  ]


def ramp(axis):
  """1 Gy/mm along an axis, 60 Gy at 0 mm."""
  positions = np.arange(-60.0, 61.0, 3.0)
  sizes = [1, 1, 1]
  sizes[axis] = -1
  values = np.broadcast_to((positions + MIDDLE_GY).reshape(sizes), (41,) * 3)
  return resample.Dose(values.astype(np.float32), (positions,) * 3)


def true_doses(name, axis):
  """D95, D50, D2 and mean in Gy, of random points."""
  half, _, radius = SHAPES[name]
  rng = np.random.default_rng(0)
  x, y = rng.uniform(-20, 20, (2, SAMPLES))
  z = rng.uniform(-half, half, SAMPLES)
  inside = x**2 + y**2 <= radius(z) ** 2
  dose = MIDDLE_GY + (x, y, z)[axis][inside]
  return np.array([*np.percentile(dose, [5, 50, 98]), dose.mean()])


def doses(curve):
  return np.array([*map(curve.at_volume, (95, 50, 2)), curve.mean])


def by_slices():
  print('contours: volume %; D95, D50, D2, mean along x; along z')
  for name, (_, volume, _) in SHAPES.items():
    true = [true_doses(name, axis) for axis in (0, 2)]
    for spacing in SLICES_MM:
      occupancy, _ = contours.occupancy(shape(name, spacing), spacing)
      row = [100 * (occupancy.volume_cc * 1000 / volume - 1)]
      for axis, wanted in zip((0, 2), true):
        curve = source_dvh.dvh(ramp(axis), occupancy)
        row += list(100 * (doses(curve) - wanted) / TOP_GY)
      print(f'{name:9}{spacing:5}', ''.join(f'{v:+7.2f}' for v in row))


def by_grid():
  print('grids: volume %; D95, D50, D2, mean along x')
  for name, (_, volume, _) in SHAPES.items():
    occupancy, _ = contours.occupancy(shape(name, 3.0), 3.0)
    true = true_doses(name, 0)
    for spacing in GRIDS_MM:
      sizes = tuple(int(100 / step) for step in spacing)
      rows = []
      for position in range(POSITIONS):
        centre = np.random.default_rng(position).uniform(-2, 2, 3)
        grid = resample.Grid(sizes, spacing, tuple(centre))
        mask = resample.to_mask(resample.fractions_on(grid, occupancy)) > 0
        inside = resample.trilinear(ramp(0), grid.axes)[mask]
        curve = source_dvh.curve(inside, np.ones(inside.size))
        ratio = mask.sum() * np.prod(spacing) / volume
        error = 100 * (doses(curve) - true) / TOP_GY
        rows.append([100 * (ratio - 1), *error])
      size = np.abs(rows)
      print(
        f'{name:9}',
        spacing,
        *(f'{m:.2f} ({w:.2f})' for m, w in zip(size.mean(0), size.max(0))),
      )


if __name__ == '__main__':
  by_slices()
  by_grid()
