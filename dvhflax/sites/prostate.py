"""The prostate: the paper's protocol, and simulated male pelves.

Every organ is an implicit surface in millimetres round the prostate's centre,
so a grid only rasterises it: the same random state gives the same patient on
any grid. Sizes: Momin et al. 2019 (J Appl Clin Med Phys) for body, rectum and
bladder; J Urol 2008;179:501 for the prostate; Khan 2016 and Radiat Oncol
2014;9:29 for the margins.
"""

import dataclasses
import functools

import numpy as np

from dvhflax.patient import Structure
from dvhflax.sites.organs import BODY, PTVS, Organ, paired
from dvhflax.sites.protocol import Oar, Protocol
from dvhflax.sites.shapes import (
  Ellipsoid,
  fit_volume,
  lognormal,
  truncated,
)
from dvhflax.sites.site import Shape, Site
from dvhflax.sites.template import Template

STRUCTURES = (
  Structure('body', 'body'),
  Structure('bladder', 'oar'),
  Structure('rectum', 'oar'),
  Structure('PTV', 'target'),
)

ORGANS = (
  BODY,
  *PTVS,
  Organ(
    'PTV',
    (
      'ptv',
      'ptv_?high',
      r'ptv_?\d\d(\.\d+)?(_?gy)?|ptv_?\d{4}(_?cgy)?',
      'ptv_?(1|all|total|prost(ate)?)|ptv_?p',
    ),
  ),
  Organ(
    'bladder',
    (
      'bladder',
      'bladder_?(o|oar|whole)|urinary_?bladder|blad',
      '(harn)?blase|vessie|vejiga|vescica|blaas|bexiga',
    ),
  ),
  Organ(
    'rectum',
    (
      'rectum',
      'rectum_?(o|oar|whole)|rect',
      'rektum|enddarm|mastdarm|recto|retto',
    ),
  ),
  Organ(
    'bowel',
    (
      'bowel_?bag|bowel',
      '(small_?)?bowel(_?(small|space|loops))?|d(ue|ü)nndarm',
    ),
  ),
  Organ('penile_bulb', ('penilebulb|penile_?bulb|bulbus_?penis|bulb',)),
  Organ('prostate', ('prostate|prostata|ctv_?prostate',)),
  Organ('seminal_vesicles', ('seminalves|seminal_?vesicles?|sv',)),
  *paired(
    'femoral_head_left',
    'femoral_head_right',
    'femur_?head|head_?femur',
    'femoral_?head|head_?femoral',
    'femur|fem(ur)?_?hd|fem_?head|fem_?kopf|hip|h(ue|ü)ftkopf|'
    'oberschenkelkopf|femurkopf|caput_?femoris|t(e|ê)te_?f(e|é)morale|'
    'testa_?femore',
    french='t(e|ê)te_?f(e|é)morale',
    tg263='femur_head',
  ),
)

# The paper's seven beams; 78 Gy as in the trials that design margins for it.
PROTOCOL = Protocol(
  name='prostate, 7 beams',
  beams=7,
  targets={'PTV': 78.0},
  oars={
    'rectum': Oar(threshold_gy=31.2, weights=(4e-3, 0.05)),
    'bladder': Oar(threshold_gy=31.2, weights=(2e-3, 0.06)),
  },
)

# Between neighbouring organs, so that none touches another.
_GAP_MM = 1.0
# Nothing of the bladder lies higher: the field of view ends there.
_BLADDER_TOP_MM = 90.0


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

  def contains(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
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


def sample_shapes(rng: np.random.Generator) -> dict[str, Shape]:
  """Draws a patient: the prostate's centre is the origin.

  Returns:
    `body`, `bladder`, `rectum`, `prostate` (with the seminal vesicles), `PTV`,
    `femoral_head_left` and `femoral_head_right`. Organs are disjoint; the PTV,
    the prostate with its margin, overlaps bladder and rectum.
  """
  half_x = truncated(rng, 390, 60, 320, 460) / 2
  half_y = truncated(rng, 230, 30, 180, 290) / 2
  # Behind the prostate lie rectum and sacrum: it sits a little posterior.
  body_y = rng.uniform(-0.12, -0.02) * half_y

  half_axes = np.array([5.2, 3.7, 4.3]) * rng.uniform(0.93, 1.07, 3)
  volume = lognormal(rng, 43, 0.35, 27, 100)
  half_axes *= (volume * 1000 / (4 / 3 * np.pi * half_axes.prod())) ** (1 / 3)
  prostate = Ellipsoid(
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
  vesicles = Ellipsoid(
    half_axes * (0, 0.45, 0.9) + (0, 0, rng.uniform(4, 8)),
    half_sv,
    half_sv,
    rng.uniform(-0.05, 0.05, 5),
  )
  sv_margin = np.array([margin - 2, posterior, margin - 2])
  ptv_sv = vesicles.grown(margin - 2, sv_margin)

  def in_target(*p: np.ndarray) -> np.ndarray:
    return prostate.contains(*p) | vesicles.contains(*p)

  def in_ptv(*p: np.ndarray) -> np.ndarray:
    return ptv.contains(*p) | ptv_sv.contains(*p)

  def near_target(*p: np.ndarray) -> np.ndarray:
    return prostate.grown(_GAP_MM, _GAP_MM).contains(*p) | vesicles.grown(
      _GAP_MM, _GAP_MM
    ).contains(*p)

  def rectum_of(radius: float) -> Shape:
    shape = dataclasses.replace(tube, radius=radius)
    return lambda *p: shape.contains(*p) & ~near_target(*p)

  rectum = fit_volume(rectum_of, truncated(rng, 74, 34, 35, 120), 5.0, 35.0)

  # A fuller bladder rises up to the field of view's end, then widens.
  volume = lognormal(rng, 222, 0.48, 80, 600)
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
    heads[name] = Ellipsoid(centre, radius, radius, np.zeros(5))

  def in_body(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, inset: float = 0.0
  ) -> np.ndarray:
    shrink = 1 - 0.00025 * np.abs(z)
    across = np.abs(x / ((half_x - inset) * shrink)) ** 2.5
    along = np.abs((y - body_y) / ((half_y - inset) * shrink)) ** 2.5
    return across + along < 1

  def bladder_of(size: float) -> Shape:
    half = np.array([size * aspect, size, size])
    half[2] = min(size, (_BLADDER_TOP_MM - top) / 2)
    shape = Ellipsoid(
      np.array([0, -back * half[1], top + half[2]]), half, half, waves
    )

    def contains(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
      inside = (
        shape.contains(x, y, z) & ~near_target(x, y, z) & ~rectum(x, y, z)
      )
      for head in heads.values():
        inside &= ~head.contains(x, y, z)
      return inside & in_body(x, y, z, inset=12.0)

    return contains

  bladder = fit_volume(bladder_of, volume, 15.0, 85.0)
  return {
    'body': functools.partial(in_body, inset=0.0),
    'bladder': bladder,
    'rectum': rectum,
    'prostate': in_target,
    'PTV': in_ptv,
    **{name: head.contains for name, head in heads.items()},
  }


TEMPLATES = (
  Template(
    'prostate-quantec',
    (
      'PTV D98 >= 95%',
      'PTV D2 <= 107%',
      'rectum V50 <= 50%',
      'rectum V60 <= 35%',
      'rectum V65 <= 25%',
      'rectum V70 <= 20%',
      'rectum V75 <= 15%',
      'bladder V65 <= 50%',
      'bladder V70 <= 35%',
      'bladder V75 <= 25%',
      'bladder V80 <= 15%',
    ),
    'prostate',
    'Rectum and bladder: QUANTEC, for 1.8 to 2 Gy a fraction (Marks et al. '
    '2010, Int J Radiat Oncol Biol Phys 76 suppl 3:S10, table 1); PTV: 95% to '
    '107% of the prescription (ICRU 50), by near-minimum and near-maximum '
    '(ICRU 83)',
    built_in=True,
  ),
)

PROSTATE = Site(
  'prostate', STRUCTURES, ORGANS, PROTOCOL, sample_shapes, TEMPLATES
)
