"""The configuration of the run in `first_format.zip`, see README.md."""

from dvhflax import config as config_lib


def get_config():
  config = config_lib.default()
  config.epochs = 57
  config.batch_size = 2
  config.cohort.path = 'cohort'
  config.cohort.patients = 4
  config.cohort.plans = 2
  config.cohort.grid = (16, 16, 8)
  config.cohort.spacing_mm = (24.0, 16.0, 16.0)
  config.cohort.validation_patients = 1
  config.cohort.test_patients = 1
  config.cohort.dvh_points = 16
  config.planning.beamlet_mm = 20.0
  config.planning.gap = 0.05
  config.model.conditioning = 'film'
  config.model.standardise_dvh = True
  config.model.norm = 'mixed'
  config.model.base_channels = 2
  config.model.max_channels = 4
  config.model.beams = 7
  config.loss.structure_weight = 1.0
  config.loss.mean_dose_weight = 3.0
  config.data.mirrored_share = 0.5
  config.data.validation_wishes = 2
  config.evaluation.wishes = 4
  return config
