"""What a notebook's type checker sees of the public names; mypy reads it."""

import pathlib
from typing import assert_type

import jax
import numpy as np

import dvhflax


def work(folder: pathlib.Path, masks: dict[str, np.ndarray]) -> None:
  config = dvhflax.config.default()
  cohort = dvhflax.open_or_build_cohort(config)
  assert_type(cohort, dvhflax.Cohort)
  assert_type(cohort.structures, tuple[dvhflax.Structure, ...])
  assert_type(cohort.doses(0), np.ndarray)
  assert_type(dvhflax.validate_cohort(folder), list[str])
  dvhflax.train(config, cohort, folder)
  assert_type(dvhflax.evaluate(folder), str)

  session = dvhflax.Session.open(folder, 'sim-0009')
  step = session.tune('rectum V70 <= 10%')
  assert_type(step, dvhflax.Step)
  assert_type(step.dose_gy, np.ndarray)
  network, _ = dvhflax.load_network(folder)
  assert_type(network, dvhflax.Network)

  protocol = dvhflax.Protocol(
    'one target',
    7,
    {'PTV': 78.0},
    {'rectum': dvhflax.Oar(31.2, (4e-3, 0.05))},
  )
  plans = dvhflax.plan_patient(masks, (3.0, 3.0, 3.0), 10, protocol)
  assert_type(plans.dose_gy, np.ndarray)
  mimicked = dvhflax.mimic(step.dose_gy, masks, (3.0, 3.0, 3.0), protocol)
  assert_type(mimicked, dvhflax.Mimicked)

  curves = jax.numpy.ones((1, 10, 32))
  nearest = dvhflax.project(curves[:, 0], curves, jax.numpy.ones((1, 10), bool))
  assert_type(nearest, jax.Array)
  # A name that is not there is an error, not Any.
  assert dvhflax.Cohorts  # type: ignore[attr-defined]


def fails(path: str) -> str:
  try:
    dvhflax.Cohort.open(path)
  except dvhflax.errors.UserError as error:
    return str(error)
  return ''
