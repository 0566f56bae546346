"""Tumour sites, one a file: structures, aliases, protocol, simulated anatomy.

A new site is a file like `prostate.py` and a place in `SITES`.
"""

from dvhflax.sites.head_and_neck import HEAD_AND_NECK
from dvhflax.sites.organs import Organ, paired
from dvhflax.sites.prostate import PROSTATE
from dvhflax.sites.protocol import Oar, Protocol
from dvhflax.sites.site import Site
from dvhflax.sites.template import Template

__all__ = [
  'HEAD_AND_NECK',
  'PROSTATE',
  'SITES',
  'Oar',
  'Organ',
  'Protocol',
  'Site',
  'Template',
  'paired',
]

SITES = (PROSTATE, HEAD_AND_NECK)
