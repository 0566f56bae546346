"""Prostate patients of your own, from DICOM-RT files.

  dvhflax train --config=dicom \
    --config.cohort.raw=FOLDER --workdir=runs/mine

The folder may hold any mix of series of any number of patients; beside the
cohort, `cohorts/dicom.import.txt` says what was imported, what was not and
why, and what the cohort's grid costs in accuracy. For masks and doses in NIfTI
add `--config.cohort.source=nifti`. Several plans a patient are its Pareto set;
with one plan each, see `configs/openkbp.py`. If they are the phases of one
course, add `--config.cohort.sum_plans`.
"""

from dvhflax import config as config_lib


def get_config():
  config = config_lib.default()
  config.cohort.source = 'dicom'
  config.cohort.path = 'cohorts/dicom'
  # Clinical plans are not all scaled alike: Gy are to follow exactly.
  config.cohort.normalisation = 'prescription'
  config.cohort.grid = (128, 128, 64)
  config.cohort.spacing_mm = (3.75, 3.0, 3.0)
  config.cohort.structures = ('body', 'bladder', 'rectum', 'PTV')
  # 10, say, computes as many Pareto-optimal plans a patient after
  # `config.planning`, in place of (`replace_plans`) or beside its own.
  config.cohort.plans = 0
  config.cohort.validation_patients = 1
  config.cohort.test_patients = 1
  config_lib.answering(config)
  config.model.beams = 7
  return config
