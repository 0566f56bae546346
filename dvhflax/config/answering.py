"""The network that answers the wish, and how it is trained.

Each setting is measured in docs/accuracy.md.
"""

import ml_collections


def answering(config: ml_collections.ConfigDict) -> None:
  """Changes the paper's configuration to that network's, whatever the site.

  Args:
    config: of `default`.
  """
  config.model.conditioning = 'film+matched'
  config.model.patch = 2
  config.model.smoothing = True
  config.model.standardise_dvh = True
  config.model.norm = 'mixed'
  config.model.dropout = 0.0
  # It needs little memory as it is.
  config.model.remat = False
  config.optimizer.learning_rate = 3e-3
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 50
  config.optimizer.average = 0.995
  config.loss.structure_weight = 1.0
  config.loss.mean_dose_weight = 3.0
  config.loss.max_dose_weight = 0.3
