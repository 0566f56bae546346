"""The paper's prostate system on a simulated cohort.

  dvhflax train --config=prostate
  dvhflax train --config=prostate:small --workdir=runs/small

Variants: none, the paper's own (97 patients, 128x128x64, 300 epochs);
`anatomy`, its anatomy-only network; `small`, for a CPU with two cores, with
the conditioning, norm, inputs and loss that make it answer the wish;
`small_faithful`, the paper's at that size; `small_anatomy`, anatomy only.
"""

from dvhflax import config as config_lib
from dvhflax import errors

VARIANTS = ('', 'anatomy', 'small', 'small_faithful', 'small_anatomy')


def get_config(variant: str = ''):
  if variant not in VARIANTS:
    raise errors.ConfigError(
      f'--config=prostate:{variant}: use one of {", ".join(VARIANTS[1:])}'
    )
  config = config_lib.default()
  if variant.startswith('small'):
    config.epochs = 9
    config.optimizer.learning_rate = 3e-3
    config.optimizer.decay = 0.01
    config.loss.structure_weight = 1.0
    config.loss.mean_dose_weight = 3.0
    config.cohort.path = 'cohorts/prostate_small'
    # On validation patients after as many updates, Gy are better predicted so:
    # mean of the PTV within 1.3 in place of 6.5, rectum 1.8 for 2.5.
    config.cohort.normalisation = 'prescription'
    config.cohort.patients = 40
    config.cohort.grid = (64, 64, 32)
    config.cohort.spacing_mm = (7.5, 5.0, 6.0)
    config.cohort.validation_patients = 3
    config.cohort.test_patients = 8
    config.model.base_channels = 8
    config.model.dropout = 0.0
    config.model.conditioning = 'film'
    config.model.standardise_dvh = True
    config.model.norm = 'mixed'
    config.model.beams = 7
    config.data.mirrored_share = 0.5
    config.data.validation_wishes = 5
    config.evaluation.wishes = 20
  if variant == 'small_faithful':
    paper = config_lib.default()
    config.cohort.path = 'cohorts/prostate_small_faithful'
    config.cohort.normalisation = paper.cohort.normalisation
    for field in (
      'conditioning',
      'standardise_dvh',
      'norm',
      'beams',
      'dropout',
    ):
      config.model[field] = paper.model[field]
    config.loss = paper.loss
  if variant.endswith('anatomy'):
    config.model.conditioning = 'none'
  return config
