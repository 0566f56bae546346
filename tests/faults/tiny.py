"""A configuration whose commands take seconds, for `--config=PATH`."""

from dvhflax import config as config_lib


def get_config():
  config = config_lib.default()
  config.epochs = 4
  config.batch_size = 2
  config.cohort.patients = 4
  config.cohort.validation_patients = 1
  config.cohort.test_patients = 1
  config.cohort.plans = 2
  config.cohort.grid = (16, 16, 8)
  config.cohort.spacing_mm = (30.0, 20.0, 24.0)
  config.cohort.dvh_points = 16
  config.model.base_channels = 4
  config.model.max_channels = 8
  config.model.dropout = 0.2
  config.model.norm = 'group'
  config.model.conditioning = 'film'
  config.model.standardise_dvh = True
  config.data.validation_wishes = 3
  return config
