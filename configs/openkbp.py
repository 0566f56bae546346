"""Head-and-neck patients of the OpenKBP challenge, one clinical plan each.

  dvhflax train --config=openkbp \
    --config.cohort.raw=.../provided-data --workdir=runs/openkbp

Variants: none, 128x128x128; `small`, 64x64x64 for a plain CPU; `planned` and
`small_planned`, where the clinical plan of each patient is replaced by 20
Pareto-optimal ones that are computed from the contours.
"""

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.sites import HEAD_AND_NECK

VARIANTS = ('', 'small', 'planned', 'small_planned')


def get_config(variant: str = ''):
  if variant not in VARIANTS:
    raise errors.ConfigError(
      f'--config=openkbp:{variant}: use one of {", ".join(VARIANTS[1:])}'
    )
  config = config_lib.default()
  config.epochs = 100
  config.batch_size = 2
  config.cohort.source = 'openkbp'
  config.cohort.path = 'cohorts/openkbp'
  # Clinical plans are not all scaled alike: Gy are to follow exactly.
  config.cohort.normalisation = 'prescription'
  config.cohort.grid = (128, 128, 128)
  config.cohort.validation_patients = 4
  config.cohort.test_patients = 8
  # One plan a patient: another patient's wish would always have the same
  # label, and the network would learn not to listen. The wish is the plan's.
  config.data.own_wish_share = 1.0
  config.data.validation_wishes = 1
  config.data.validation_own_wish_share = 1.0
  config.evaluation.wishes = 1
  config.evaluation.own_wish_share = 1.0
  config_lib.answering(config)
  config.model.beams = 9
  config.cohort.plans = 0
  config.planning = HEAD_AND_NECK.protocol.changed()
  if variant.startswith('small'):
    config.cohort.path = 'cohorts/openkbp_small'
    config.cohort.grid = (64, 64, 64)
    # Voxels are up to 8 mm wide.
    config.planning.beamlet_mm = 7.5
  if variant.endswith('planned'):
    config.cohort.path += '_planned'
    config.epochs = 5
    config.cohort.plans = 20
    config.cohort.replace_plans = True
    # Of few patients that are so unlike, other patients' wishes teach the
    # network not to listen: see docs/accuracy.md.
    config.data.own_wish_share = 0.5
    config.data.bent_wish_share = 0.5
    config.data.validation_wishes = 5
    config.data.validation_own_wish_share = 0.5
    config.data.validation_bent_wish_share = 0.5
    config.evaluation.wishes = 20
    config.evaluation.own_wish_share = 0.0
  return config
