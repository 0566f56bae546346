"""The head and neck, as the OpenKBP challenge has it."""

from dvhflax.patient import Structure
from dvhflax.sites.organs import BODY, PTVS, Organ, paired
from dvhflax.sites.protocol import Oar, Protocol
from dvhflax.sites.site import Site
from dvhflax.sites.template import Template

STRUCTURES = (
  Structure('body', 'body'),
  Structure('Brainstem', 'oar'),
  Structure('SpinalCord', 'oar'),
  Structure('RightParotid', 'oar'),
  Structure('LeftParotid', 'oar'),
  Structure('Esophagus', 'oar'),
  Structure('Larynx', 'oar'),
  Structure('Mandible', 'oar'),
  Structure('PTV56', 'target'),
  Structure('PTV63', 'target'),
  Structure('PTV70', 'target'),
)

ORGANS = (
  BODY,
  *PTVS,
  Organ(
    'Brainstem',
    (
      'brainstem',
      'brain_?stem',
      'b(rain|rn?|rai)?_?ste?m|brain_?st|stammhirn|hirnstamm|'
      'tronc(_?c(e|é)r(e|é)bral)?|tronco(_?(encef(a|á)lico|encefalico|'
      'cerebral))?|hersenstam',
    ),
  ),
  Organ(
    'SpinalCord',
    (
      'spinalcord',
      'spinal_?cord',
      'cord|sp(in(al?)?)?_?(cord|crd)|myelon|r(ue|ü)ckenmark|'
      'moelle(_?(e|é)pini(e|è)re)?|medulla_?spinalis|'
      'm(e|é)dula(_?espinal)?|midollo(_?spinale)?|ruggenmerg',
    ),
  ),
  *paired(
    'LeftParotid',
    'RightParotid',
    'parotid',
    'parotis|parot|parotid_?(gland|gl|gld)|gla?nd_?parot(id|is)?|'
    'ohrspeicheldr(ue|ü)se|parotide|par(o|ó)tida',
    french='parotide',
    tg263='parotid',
  ),
  Organ(
    'Esophagus',
    (
      'esophagus',
      'o?esophagus(_?[su])?|speiser(oe|ö)hre',
      'o?esoph(ag)?|(ö|oe)sophagus|(o|œ)?esophage|œsophage|'
      '(o|œ)?(e|é)sophage|es(o|ó)fago|slokdarm',
    ),
  ),
  Organ('Larynx', ('larynx', 'larynx_?(sg|gl|oar)|kehlkopf|glottis|laringe')),
  Organ(
    'Mandible',
    (
      'bone_?mandible',
      'mandible|mandibula|unterkiefer|mandib|mandibule|mandibola',
    ),
    'bone_mandible',
  ),
  Organ(
    'OralCavity',
    ('cavity_?oral|oral_?cavity|mundh(oe|ö)hle|oral_?cav',),
    'cavity_oral',
  ),
  Organ(
    'OpticChiasm',
    ('optic_?chiasma?|opt_?chiasma?|chiasma?|chiasma_?opticum',),
  ),
  Organ('Brain', ('brain|gehirn|hirn|whole_?brain|brain_?whole|cerveau',)),
  *paired(
    'LeftSubmandibular',
    'RightSubmandibular',
    'gla?nd_?submand(ib(ular)?)?',
    'submand(ib(ular(is)?)?)?(_?(gland|gl|gld))?|subm|smg',
    tg263='glnd_submand',
  ),
  *paired(
    'LeftLens',
    'RightLens',
    'lens',
    'linse|lense|(eye|orbit)_?lens|cristallin',
    french='cristallin',
    tg263='lens',
  ),
  *paired(
    'LeftEye',
    'RightEye',
    'eye',
    'globe|auge|eye_?(ball|globe)|augapfel|bulbus(_?oculi)?',
    'orbita?',
    french='oeil|œil|orbite',
    tg263='eye',
  ),
  *paired(
    'LeftCochlea',
    'RightCochlea',
    'cochlea',
    'cochl?e?|cochl(e|é)e',
    tg263='cochlea',
  ),
  *paired(
    'LeftOpticNerve',
    'RightOpticNerve',
    'opticnrv',
    'optic_?nerve|opt(ic)?_?n(erve?|rv)?|n(ervus)?_?opticus|sehnerv|'
    'nerf_?optique',
    french='nerf_?optique',
    tg263='opticnrv',
  ),
  Organ('LeftOpticNerve', ('on_(l|lt|left)|(l|lt|left)_on',), 'opticnrv_l'),
  Organ('RightOpticNerve', ('on_(r|rt|right)|(r|rt|right)_on',), 'opticnrv_r'),
)

# A simultaneous boost to 70 Gy in 35 fractions, targets and dose levels as in
# the challenge. An OAR's threshold lies below the limit that plans are judged
# by (QUANTEC; RTOG 0615): parotids mean 26 Gy, larynx and oesophagus mean 45
# and 34, spinal cord 45, brainstem 54, mandible 70. Cord, brainstem and
# mandible are limits and not traded off.
_LIMIT = (0.2, 0.2)
_TRADED = (5e-3, 0.1)
PROTOCOL = Protocol(
  name='head and neck, 9 beams',
  beams=9,
  # Far more beamlets than in a pelvis: the bound is looser, not the plan.
  gap=0.05,
  targets={'PTV56': 56.0, 'PTV63': 63.0, 'PTV70': 70.0},
  oars={
    'Brainstem': Oar(40.0, _LIMIT, mean_share=0.0),
    'SpinalCord': Oar(33.0, _LIMIT, mean_share=0.0),
    'RightParotid': Oar(20.0, _TRADED),
    'LeftParotid': Oar(20.0, _TRADED),
    'Esophagus': Oar(30.0, _TRADED),
    'Larynx': Oar(35.0, _TRADED),
    'Mandible': Oar(62.0, _LIMIT, mean_share=0.0),
  },
)

TEMPLATES = (
  Template(
    'head-and-neck-openkbp',
    (
      'PTV70 D99 >= 66.5 Gy',
      'PTV63 D99 >= 59.85 Gy',
      'PTV56 D99 >= 53.2 Gy',
      'Brainstem D0.1cc <= 50 Gy',
      'SpinalCord D0.1cc <= 45 Gy',
      'RightParotid mean <= 26 Gy',
      'LeftParotid mean <= 26 Gy',
      'Esophagus mean <= 45 Gy',
      'Larynx mean <= 45 Gy',
      'Mandible D0.1cc <= 73.5 Gy',
    ),
    'head and neck',
    'The criteria of OpenKBP, for 70 Gy in 35 fractions (Babier et al. 2022, '
    'Phys Med Biol 67:185012)',
    built_in=True,
  ),
)

HEAD_AND_NECK = Site(
  'head and neck', STRUCTURES, ORGANS, PROTOCOL, templates=TEMPLATES
)
