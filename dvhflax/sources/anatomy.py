"""Simulated male pelves.

Every organ is an implicit surface in millimetres round the prostate's centre,
so the grid only rasterises it: the same random state gives the same patient
on any grid. Sizes: Momin et al. 2019 (J Appl Clin Med Phys) for body, rectum
and bladder; J Urol 2008;179:501 for the prostate; Khan 2016 and Radiat Oncol
2014;9:29 for the margins.
"""

import dataclasses
import functools

import numpy as np

from dvhflax.planning.grid import VoxelGrid

# Between neighbouring organs, so that none touches another.
_GAP_MM = 1.0
# Grid on which volumes are measured while a size is searched.
_MEASURING = VoxelGrid((96, 96, 60), (3.0, 3.0, 3.2))
# Nothing of the bladder lies higher: the field of view ends there.
_BLADDER_TOP_MM = 90.0


@dataclasses.dataclass(frozen=True)
class Anatomy:
  """A simulated patient.

  Attributes:
    masks: name -> `[X, Y, Z]` uint8: `body`, `bladder`, `rectum`, `prostate`
      (with the seminal vesicles), `PTV`, `femoral_head_left` and
      `femoral_head_right`. Organs are disjoint; the PTV, the prostate with
      its margin, overlaps bladder and rectum.
    spacing_mm: voxel size.
  """

  masks: dict[str, np.ndarray]
  spacing_mm: tuple[float, float, float]


def _truncated(rng, mean: float, std: float, low: float, high: float):
  while True:
    value = rng.normal(mean, std)
    if low <= value <= high:
      return value


def _lognormal(rng, median: float, sigma: float, low: float, high: float):
  return np.exp(_truncated(rng, np.log(median), sigma, *np.log((low, high))))


@dataclasses.dataclass(frozen=True)
class _Ellipsoid:
  """An ellipsoid whose surface waves at low order.

  Attributes:
    centre: `[3]` mm.
    below, above: `[3]` half axes in mm to the negative and positive side.
    waves: `[5]` amplitudes of the five harmonics of order two.
  """

  centre: np.ndarray
  below: np.ndarray
  above: np.ndarray
  waves: np.ndarray

  def contains(self, x, y, z) -> np.ndarray:
    scaled = []
    for axis, u in enumerate((x, y, z)):
      u = u - self.centre[axis]
      scaled.append(u / np.where(u < 0, self.below[axis], self.above[axis]))
    u, v, w = scaled
    squared = u**2 + v**2 + w**2
    wave = (
      self.waves[0] * u * v
      + self.waves[1] * v * w
      + self.waves[2] * u * w
      + self.waves[3] * (u**2 - v**2)
      + self.waves[4] * (2 * w**2 - u**2 - v**2)
    ) / np.maximum(squared, 1e-9)
    return squared < (1 + wave) ** 2

  def grown(self, below, above) -> '_Ellipsoid':
    return dataclasses.replace(
      self, below=self.below + below, above=self.above + above
    )


@dataclasses.dataclass(frozen=True)
class _Tube:
  """The rectum: an elliptic cross-section along a curved centre line.

  Attributes:
    bottom, top: ends in z, mm.
    anterior: y of the anterior wall behind the prostate, mm.
    radius: mean radius, mm.
    bulge: relative change of the radius along z, and its phase.
    bend: how far the wall recedes at the ends (sacral curve), mm.
    sway: lateral amplitude in mm and its phase.
  """

  bottom: float
  top: float
  anterior: float
  radius: float
  bulge: tuple[float, float]
  bend: float
  sway: tuple[float, float]

  def contains(self, x, y, z) -> np.ndarray:
    middle, half = (self.top + self.bottom) / 2, (self.top - self.bottom) / 2
    place = (z - middle) / half
    inside = np.clip(1 - place**6, 0, None)
    radius = self.radius * np.sqrt(inside)
    radius = radius * (1 + self.bulge[0] * np.sin(3 * place + self.bulge[1]))
    wide, deep = 1.15 * radius, radius / 1.15
    wall = self.anterior + self.bend * (z / 60) ** 2
    centre_x = self.sway[0] * np.sin(2 * place + self.sway[1])
    across = (x - centre_x) / np.maximum(wide, 1e-6)
    along = (y - wall - deep) / np.maximum(deep, 1e-6)
    return (across**2 + along**2 < 1) & (radius > 0)


def _volume_cc(contains) -> float:
  inside = contains(*_MEASURING.axes())
  return float(inside.sum() * _MEASURING.voxel_cc)


def _fit_volume(shape_of, volume_cc: float, low: float, high: float):
  """The shape `shape_of(size)` of a volume, by bisection."""
  for _ in range(10):
    size = (low + high) / 2
    if _volume_cc(shape_of(size)) < volume_cc:
      low = size
    else:
      high = size
  return shape_of(size)


def sample_anatomy(
  rng: np.random.Generator,
  grid: tuple[int, int, int] = (128, 128, 64),
  spacing_mm: tuple[float, float, float] = (3.75, 2.5, 3.0),
) -> Anatomy:
  """Draws a patient; the prostate's centre is the grid's.

  Args:
    rng: consumed alike whatever the grid.
    grid: voxels along x (to the patient's left), y (posterior), z (superior).
    spacing_mm: voxel size.
  """
  contains = _sample_shapes(rng)
  axes = VoxelGrid(grid, spacing_mm).axes()
  masks = {
    name: np.ascontiguousarray(
      np.broadcast_to(inside(*axes), grid), dtype=np.uint8
    )
    for name, inside in contains.items()
  }
  return Anatomy(masks, spacing_mm)


def _sample_shapes(rng: np.random.Generator):
  """Name -> function of (x, y, z) in mm that tells what is inside."""
  half_x = _truncated(rng, 390, 60, 320, 460) / 2
  half_y = _truncated(rng, 230, 30, 180, 290) / 2
  # Behind the prostate lie rectum and sacrum: it sits a little posterior.
  body_y = rng.uniform(-0.12, -0.02) * half_y

  half_axes = np.array([5.2, 3.7, 4.3]) * rng.uniform(0.93, 1.07, 3)
  volume = _lognormal(rng, 43, 0.35, 27, 100)
  half_axes *= (volume * 1000 / (4 / 3 * np.pi * half_axes.prod())) ** (1 / 3)
  prostate = _Ellipsoid(
    np.zeros(3), half_axes, half_axes, rng.uniform(-0.05, 0.05, 5)
  )
  margin = rng.uniform(7, 10)
  posterior = rng.uniform(5, 6)
  ptv = prostate.grown(margin, np.array([margin, posterior, margin]))

  tube = _Tube(
    bottom=rng.uniform(-58, -48),
    top=rng.uniform(55, 75),
    # The prostate dents the rectum's anterior wall.
    anterior=half_axes[1] - rng.uniform(0.0, 3.5),
    radius=0.0,
    bulge=(rng.uniform(0.05, 0.2), rng.uniform(0, 2 * np.pi)),
    bend=rng.uniform(0, 5),
    sway=(rng.uniform(0, 5), rng.uniform(0, 2 * np.pi)),
  )
  # The target includes the seminal vesicles, behind and above the prostate.
  half_sv = rng.uniform((20, 8, 11), (27, 11, 17))
  vesicles = _Ellipsoid(
    half_axes * (0, 0.45, 0.9) + (0, 0, rng.uniform(4, 8)),
    half_sv,
    half_sv,
    rng.uniform(-0.05, 0.05, 5),
  )
  sv_margin = np.array([margin - 2, posterior, margin - 2])
  ptv_sv = vesicles.grown(margin - 2, sv_margin)

  def in_target(*p):
    return prostate.contains(*p) | vesicles.contains(*p)

  def in_ptv(*p):
    return ptv.contains(*p) | ptv_sv.contains(*p)

  def near_target(*p):
    return prostate.grown(_GAP_MM, _GAP_MM).contains(*p) | vesicles.grown(
      _GAP_MM, _GAP_MM
    ).contains(*p)

  def rectum_of(radius):
    shape = dataclasses.replace(tube, radius=radius)
    return lambda *p: shape.contains(*p) & ~near_target(*p)

  rectum = _fit_volume(rectum_of, _truncated(rng, 74, 34, 35, 120), 5.0, 35.0)

  # A fuller bladder rises up to the field of view's end, then widens.
  volume = _lognormal(rng, 222, 0.48, 80, 600)
  aspect = rng.uniform(0.95, 1.25)
  sink = rng.uniform(12, 22)
  back = rng.uniform(0.2, 0.45)
  waves = rng.uniform(-0.04, 0.04, 5)
  top = half_axes[2] - sink
  heads = {}
  for side, name in ((1, 'femoral_head_left'), (-1, 'femoral_head_right')):
    centre = np.array(
      [side * rng.uniform(85, 95), rng.uniform(-8, 4), rng.uniform(-5, 12)]
    )
    radius = np.full(3, rng.uniform(22, 27))
    heads[name] = _Ellipsoid(centre, radius, radius, np.zeros(5))

  def in_body(x, y, z, *, inset=0.0):
    shrink = 1 - 0.00025 * np.abs(z)
    across = np.abs(x / ((half_x - inset) * shrink)) ** 2.5
    along = np.abs((y - body_y) / ((half_y - inset) * shrink)) ** 2.5
    return across + along < 1

  def bladder_of(size):
    half = np.array([size * aspect, size, size])
    half[2] = min(size, (_BLADDER_TOP_MM - top) / 2)
    shape = _Ellipsoid(
      np.array([0, -back * half[1], top + half[2]]), half, half, waves
    )

    def contains(*p):
      inside = shape.contains(*p) & ~near_target(*p) & ~rectum(*p)
      for head in heads.values():
        inside &= ~head.contains(*p)
      return inside & in_body(*p, inset=12.0)

    return contains

  bladder = _fit_volume(bladder_of, volume, 15.0, 85.0)
  return {
    'body': functools.partial(in_body, inset=0.0),
    'bladder': bladder,
    'rectum': rectum,
    'prostate': in_target,
    'PTV': in_ptv,
    **{name: head.contains for name, head in heads.items()},
  }
