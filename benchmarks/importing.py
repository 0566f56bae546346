"""Accuracy of imported contours and grids against closed forms.

python benchmarks/importing.py

Shapes of known volume lie in a dose that grows by 1 Gy/mm, 60 Gy in their
middle. Prints errors of the volume in % and of doses in Gy, of `cohort.
contour_ends` each: root mean square and worst over where the slices lie, and
with contours half a slice from the ends and on the very ends; of contours that
scatter; and what the cohort's grid adds, mean (worst) over positions of it.
"""

import numpy as np

from dvhflax.grid import Grid
from dvhflax.io import resample, source_dvh
from dvhflax.io.contours import stack as contours

SLICES_MM = (1.0, 2.0, 3.0)
GRIDS_MM = ((2.0, 2.0, 2.0), (3.0, 3.0, 3.0), (3.75, 3.0, 3.0), (5.0, 5.0, 5.0))
# Of the lowest slice beyond the lower end, in slice distances.
PHASES = (np.arange(10) + 0.5) / 10
MIDDLE_GY = 60.0
SAMPLES, POSITIONS = 2_000_000, 8
ANGLES = np.linspace(0, 2 * np.pi, 200, endpoint=False)


def disc(radius, z, centre=0.0):
  x, y = centre + radius * np.cos(ANGLES), radius * np.sin(ANGLES)
  return np.stack([x, y, np.full(len(ANGLES), z)], 1)


def outline(x, half_width, z):
  """Of a section that is symmetric about the x axis."""
  y = np.concatenate([half_width, -half_width[::-1]])
  return np.stack([np.concatenate([x, x[::-1]]), y, np.full(len(y), z)], 1)


def root(values):
  return np.sqrt(np.maximum(values, 0))


def spheroid(r, half):
  return (
    lambda z: disc(r * root(1 - (z / half) ** 2), z),
    (r, r, half),
    4 / 3 * np.pi * r * r * half,
    lambda x, y, z: (x**2 + y**2) / r**2 + (z / half) ** 2 <= 1,
  )


def upright(r, length):
  return (
    lambda z: disc(r, z),
    (r, r, length / 2),
    np.pi * r * r * length,
    lambda x, y, z: x**2 + y**2 <= r * r,
  )


def lying(r, length):
  return (
    lambda z: outline(
      np.array([-length, length]) / 2, np.full(2, root(r * r - z * z)), z
    ),
    (length / 2, r, r),
    np.pi * r * r * length,
    lambda x, y, z: y**2 + z**2 <= r * r,
  )


def cone(r, length):
  """Its tip is up."""
  half = length / 2
  return (
    lambda z: disc(r * (half - z) / length, z),
    (r, r, half),
    np.pi * r * r * length / 3,
    lambda x, y, z: x**2 + y**2 <= (r * (half - z) / length) ** 2,
  )


def lying_cone(r, length):
  """Its tip is at the upper end of x."""
  half = length / 2

  def section(z):
    x = np.linspace(-half, half - length * abs(z) / r, 100)
    return outline(x, root((r * (half - x) / length) ** 2 - z * z), z)

  return (
    section,
    (half, r, r),
    np.pi * r * r * length / 3,
    lambda x, y, z: y**2 + z**2 <= (r * (half - x) / length) ** 2,
  )


# A contour at z, half lengths along x, y and z, volume in mm^3, and whether a
# point is inside. Cylinders and cones of 24 mm are those of Nelms et al. 2015,
# Med Phys 42:4435.
SHAPES = {
  'sphere, radius 20': spheroid(20, 20),
  'sphere, radius 12': spheroid(12, 12),
  'sphere, radius 4.5': spheroid(4.5, 4.5),
  'sphere, radius 3': spheroid(3, 3),
  'spheroid, 16 x 16 x 8': spheroid(8, 4),
  'cylinder, upright': upright(12, 24),
  'the same, 25.5 long': upright(12, 25.5),
  'cylinder, lying': lying(12, 24),
  'cone, upright': cone(12, 24),
  'cone, lying': lying_cone(12, 24),
}


def stack(shape, spacing, phase, ends=False):
  """Contours of a shape; with the very ends themselves if wished."""
  at, (_, _, half), *_ = shape
  heights = np.arange(-half + phase * spacing, half + 1e-6, spacing)
  inner = heights[(heights > -half + 1e-6) & (heights < half - 1e-6)]
  return [at(z) for z in (np.array([-half, *inner, half]) if ends else inner)]


def ramp(axis):
  """1 Gy/mm along an axis, 60 Gy at 0 mm."""
  positions = np.arange(-60.0, 61.0, 3.0)
  sizes = [1, 1, 1]
  sizes[axis] = -1
  values = np.broadcast_to((positions + MIDDLE_GY).reshape(sizes), (41,) * 3)
  return resample.Dose(values.astype(np.float32), (positions,) * 3)


def true_doses(shape):
  """`[3, 4]` D95, D50, D2 and mean in Gy along each axis, of random points."""
  _, halves, _, inside = shape
  rng = np.random.default_rng(0)
  points = [rng.uniform(-half, half, SAMPLES) for half in halves]
  kept = inside(*points)
  doses = [MIDDLE_GY + along[kept] for along in points]
  return np.array([[*np.percentile(d, [5, 50, 98]), d.mean()] for d in doses])


def doses(curve):
  return np.array(
    [*map(curve.dose_at_volume_percent, (95, 50, 2)), curve.mean_dose]
  )


def errors(shape, true, polygons, spacing, ends):
  """Of the volume in %; the largest of the doses in Gy."""
  occupancy, _ = contours.occupancy(polygons, spacing, ends)
  off = [
    np.abs(doses(source_dvh.dvh_vectors(ramp(axis), occupancy)) - true[axis])
    for axis in range(3)
  ]
  return 100 * (occupancy.volume_cc * 1000 / shape[2] - 1), np.max(off)


def by_ends():
  for name, shape in SHAPES.items():
    true = true_doses(shape)
    for spacing in SLICES_MM:
      cells = []
      for ends in contours.ENDS:
        args = (spacing, ends)
        found = np.array(
          [
            errors(shape, true, stack(shape, spacing, phase), *args)
            for phase in PHASES
          ]
        )
        half = errors(shape, true, stack(shape, spacing, 0.5), *args)
        very = errors(shape, true, stack(shape, spacing, 0.0, True), *args)
        rms = root((found**2).mean(0))
        worst = np.abs(found).max(0)
        cells.append(
          f'{rms[0]:.1f} ({worst[0]:.1f}), {rms[1]:.2f} ({worst[1]:.2f}); '
          f'{half[0]:+.1f}, {half[1]:.2f}; {very[0]:+.1f}, {very[1]:.2f}'
        )
      print(f'{name:22}{spacing:4}', ' | '.join(cells), flush=True)


def scattered(polygon, rng):
  """A contour as if drawn by hand: about 0.7 mm off, smoothly."""
  middle = polygon[:, :2].mean(0)
  arms = polygon[:, :2] - middle
  lengths = np.linalg.norm(arms, axis=1, keepdims=True)
  angle = np.arctan2(arms[:, 1], arms[:, 0])
  off = rng.normal(0, 0.5) + rng.normal(0, 0.4) * np.cos(angle)
  off += rng.normal(0, 0.4) * np.sin(angle)
  off += rng.normal(0, 0.3) * np.cos(2 * angle + rng.uniform(0, 2 * np.pi))
  grown = 1 + off[:, None] / np.maximum(lengths, 0.5)
  points = middle + arms * np.maximum(grown, 0.1)
  return np.concatenate([points, polygon[:, 2:]], 1)


def by_scatter():
  print('3 mm slices, contours by hand: mean, root mean square of volume, %')
  for name in ('sphere, radius 20', 'sphere, radius 4.5', 'cylinder, lying'):
    shape = SHAPES[name]
    rng = np.random.default_rng(0)
    drawn = [
      [scattered(one, rng) for one in stack(shape, 3.0, phase)]
      for phase in np.tile(PHASES, 10)
    ]
    cells = []
    for ends in contours.ENDS[:2]:
      volumes = np.array(
        [contours.occupancy(one, 3.0, ends)[0].volume_cc for one in drawn]
      )
      off = 100 * (volumes * 1000 / shape[2] - 1)
      cells.append(f'{off.mean():+.1f}, {root((off**2).mean()):.1f}')
    print(f'{name:22}', ' | '.join(cells))


def by_grid():
  print('grids: volume %; D95, D50, D2, mean along x in Gy')
  for name in ('sphere, radius 20', 'cylinder, lying', 'cone, upright'):
    shape = SHAPES[name]
    occupancy, _ = contours.occupancy(stack(shape, 3.0, 0.5), 3.0)
    true = true_doses(shape)[0]
    for spacing in GRIDS_MM:
      sizes = tuple(int(100 / step) for step in spacing)
      rows = []
      for position in range(POSITIONS):
        centre = np.random.default_rng(position).uniform(-2, 2, 3)
        grid = Grid(sizes, spacing, tuple(centre))
        mask = resample.to_mask(resample.fractions_on(grid, occupancy)) > 0
        inside = resample.trilinear(ramp(0), grid.axes)[mask]
        curve = source_dvh.curve(inside, np.ones(inside.size))
        ratio = mask.sum() * np.prod(spacing) / shape[2]
        rows.append([100 * (ratio - 1), *(doses(curve) - true)])
      size = np.abs(rows)
      print(
        f'{name:22}',
        spacing,
        *(f'{m:.2f} ({w:.2f})' for m, w in zip(size.mean(0), size.max(0))),
      )


if __name__ == '__main__':
  print('of rounded, half_slice and outermost each: slices anywhere, volume %,')
  print('doses Gy; contours half a slice from the ends; on the very ends')
  by_ends()
  by_scatter()
  by_grid()
