"""The prostate."""

from dvhflax.sites.protocol import Oar, Protocol

# The paper's seven beams; 78 Gy as in the trials that design margins for it.
PROSTATE = Protocol(
  name='prostate, 7 beams',
  beams=7,
  targets={'PTV': 78.0},
  oars={
    'rectum': Oar(threshold_gy=31.2, weights=(4e-3, 0.05)),
    'bladder': Oar(threshold_gy=31.2, weights=(2e-3, 0.06)),
  },
)
