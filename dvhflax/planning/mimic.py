"""Dose mimicking: the deliverable dose that is closest to any given one.

  python -m dvhflax.planning.mimic --cohort=cohorts/prostate_small \\
    --patient=sim-0009 --dose=runs/small/predictions/sim-0009/dose.npz

turns a prediction into a plan, and tells how physical it was: how far the
nearest dose is that beams of the protocol can deliver. Closest is meant in the
mean squared difference, structure by structure, each counted alike, with the
protocol's roughness as the price of a fluence that is hard to deliver.
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import zipfile
import zlib

from absl import flags
import jax.numpy as jnp
from ml_collections import config_flags
import numpy as np

from dvhflax import cli, errors, files
from dvhflax import config as config_lib
from dvhflax.cohort.store import Cohort
from dvhflax.io.resample import MOST_GY
from dvhflax.normalisation import DoseReference
from dvhflax.patient import named_masks
from dvhflax.planning import fluence as fluence_lib
from dvhflax.planning.density import density_of
from dvhflax.planning.planner import Model
from dvhflax.planning.protocol import Protocol
from dvhflax.trail import checksum

# Solved when the squared difference, over all structures, is known to be within
# this of the least: 0.3% of the prescription, squared. It is much closer then.
_ENOUGH = 1e-5
# Of the roughness, below which fluences are what the dose asks for.
_ROUGHNESS = 1e-4


@dataclasses.dataclass(frozen=True)
class Mimicked:
  """A deliverable dose.

  Attributes:
    dose_gy: `[X, Y, Z]` float32, not scaled; 0 out of the body.
    fluence: `[M]` of `model.beamlets.active`.
    model: the patient with the protocol's beams.
    difference: by structure, in % of the prescription: `mean` of deliverable
      minus given dose, `mean_absolute`, and `largest` magnitude.
  """

  dose_gy: np.ndarray
  fluence: np.ndarray
  model: Model
  difference: dict[str, dict[str, float]]


def mimic(
  dose_gy: np.ndarray,
  masks: Mapping[str, np.ndarray],
  spacing_mm: tuple[float, float, float],
  protocol: Protocol,
  density: np.ndarray | None = None,
  prescription_gy: float | None = None,
) -> Mimicked:
  """Finds the fluence whose dose is closest to a given one.

  Args:
    dose_gy: `[X, Y, Z]`, what to come close to.
    masks, spacing_mm, protocol, density: see `planner.plan_patient`.
    prescription_gy: of the patient, which differences are in % of; None: the
      protocol's highest.

  Raises:
    PlanningError: a dose of another shape, negative or no number; a patient
      that cannot be planned.
  """
  shape = masks['body'].shape if 'body' in masks else dose_gy.shape
  if dose_gy.shape != shape:
    raise errors.PlanningError(
      f'the dose has shape {dose_gy.shape}, but the masks {shape}'
    )
  if not np.isfinite(dose_gy).all() or dose_gy.min() < 0:
    raise errors.PlanningError('the dose is negative or no number somewhere')
  model = Model.of(masks, spacing_mm, protocol, density)
  wanted = protocol.reference.to_fraction(dose_gy[tuple(model.sampled.index.T)])
  old = model.problem.objectives
  # Each structure once: the means of OARs go, overdoses become deviations.
  keep = jnp.asarray(1 - old.linear)
  threshold = np.zeros(old.share.shape[1], np.float32)
  threshold[: len(wanted)] = wanted
  objectives = dataclasses.replace(
    old,
    share=old.share * keep[:, None],
    threshold=jnp.tile(threshold, (len(old.share), 1)),
    deviation=jnp.ones_like(old.deviation),
    linear=jnp.zeros_like(old.linear),
  )
  problem = dataclasses.replace(model.problem, objectives=objectives)
  weights = jnp.ones((1, len(old.share) + 1)).at[:, -1].set(_ROUGHNESS)
  solution = fluence_lib.solve(
    problem,
    weights,
    model.flat(1),
    gap=protocol.gap,
    most_iterations=10 * protocol.most_iterations,
    negligible=_ENOUGH / protocol.gap,
  )
  dose = model.dose_gy(solution.fluence)[0]
  return Mimicked(
    dose,
    np.asarray(solution.fluence[0]),
    model,
    differences(
      dose,
      dose_gy,
      masks,
      DoseReference.of_prescription(
        prescription_gy or protocol.prescription_gy
      ),
    ),
  )


def differences(
  dose_gy: np.ndarray,
  other_gy: np.ndarray,
  masks: Mapping[str, np.ndarray],
  reference: DoseReference,
) -> dict[str, dict[str, float]]:
  """See `Mimicked.difference`."""
  percent = reference.to_percent(reference.to_fraction(dose_gy - other_gy))
  found = {}
  for name, mask in masks.items():
    if mask.any():
      off = percent[mask > 0]
      found[name] = {
        'mean': float(off.mean()),
        'mean_absolute': float(np.abs(off).mean()),
        'largest': float(np.abs(off).max()),
      }
  return found


def read_prediction(path: str, masks: np.ndarray) -> np.ndarray:
  """`[X, Y, Z]` float32 Gy of the `dose.npz` that `dvhflax.predict` writes.

  Args:
    path: of the file.
    masks: `[X, Y, Z, S]` of the patient that it has to be of.

  Raises:
    UserError: for another file, one of another patient, or one that does not
      say what 1.0 stands for.
  """
  try:
    with open(path, 'rb') as raw, np.load(raw) as file:
      reference = DoseReference(
        float(file['reference_gy']), float(file['prescription_gy'])
      )
      owner, of_masks = str(file['patient']), str(file['masks_sha256'])
      dose_gy = reference.to_gy(file['dose'].astype(np.float32))
    if not reference.gy > 0 or not dose_gy.max() <= MOST_GY:
      raise ValueError(
        f'1.0 stands for {reference.gy:g} Gy, the maximum is '
        f'{dose_gy.max():.4g} Gy'
      )
    if of_masks != checksum(masks):
      raise errors.UserError(
        f'{path} is of patient {errors.plain(owner)} as he was predicted for, '
        'not of this one: name that one with --patient, or predict again'
      )
    return dose_gy
  except KeyError as error:
    raise errors.UserError(
      f'{path} lacks {error}: it is no dose.npz of dvhflax.predict, or of a '
      'version that did not say what 1.0 stands for: predict again'
    ) from None
  except (
    OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error,
  ) as error:  # fmt: skip
    raise errors.UserError(
      f'{path} is no dose.npz of dvhflax.predict: '
      f'{errors.plain(str(error), 200)}'
    ) from None


def _given(cohort: Cohort, index: int) -> np.ndarray:
  """`[X, Y, Z]` Gy of the dose that the command line names."""
  values, record = flags.FLAGS, cohort.patients[index]
  if (values.dose is None) == (values.plan is None):
    raise errors.UserError('say which dose: --dose=FILE.npz, or --plan=NUMBER')
  if values.plan is not None:
    if not 0 <= values.plan < record.plans:
      raise errors.UserError(
        f'--plan={values.plan}: {record.id} has plans 0 to {record.plans - 1}'
      )
    dose = cohort.dose(index, values.plan)
    return cohort.reference(index, values.plan).to_gy(dose)
  return read_prediction(values.dose, cohort.masks(index))


def _protocol(provenance) -> Protocol:
  """That of the configuration, if one is given, or of the patient's plans."""
  if flags.FLAGS.config is not None:
    return config_lib.protocol(flags.FLAGS.config)
  if not isinstance(provenance.get('protocol'), dict):
    raise errors.UserError(
      'the plans of this patient have no protocol: give a configuration with '
      'one, --config=configs/openkbp.py'
    )
  return Protocol.from_dict(provenance['protocol'])


def main(_):
  values = flags.FLAGS
  if not values.cohort or not values.patient:
    raise errors.UserError('say whose dose: --cohort, --patient')
  cohort = Cohort.open(values.cohort)
  index = cohort.index(values.patient)
  record = cohort.patients[index]
  protocol = _protocol(record.provenance)
  masks = named_masks(cohort.structures, cohort.masks(index),
                      cohort.present[index])  # fmt: skip
  done = mimic(
    _given(cohort, index),
    masks,
    record.spacing_mm,
    protocol,
    density_of(masks['body'], cohort.ct(index)),
    record.prescription_gy,
  )
  print('in % of the prescription   mean  mean absolute  largest')
  for name, row in done.difference.items():
    print(
      f'{name:24}{row["mean"]:+7.2f}{row["mean_absolute"]:15.2f}'
      f'{row["largest"]:9.2f}'
    )
  if not values.output:
    return
  os.makedirs(os.path.dirname(os.path.abspath(values.output)), exist_ok=True)
  prescribed = DoseReference.of_prescription(record.prescription_gy)
  beams = done.model.beamlets
  maps = np.zeros(beams.open.size, np.float32)
  maps[beams.active[beams.active >= 0]] = done.fluence[beams.active >= 0]
  with files.replacing(values.output) as aside, open(aside, 'wb') as file:
    np.savez_compressed(
      file,
      dose=prescribed.to_fraction(done.dose_gy),
      **prescribed.to_json(),
      spacing_mm=record.spacing_mm,
      fluence=maps.reshape(beams.open.shape),
      gantry_degrees=np.degrees(beams.angles),
      beamlet_mm=beams.width_mm,
      difference=json.dumps(done.difference),
    )
  print(f'written to {values.output}')


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', None)
  flags.DEFINE_string('cohort', None, 'A cohort store.')
  flags.DEFINE_string('patient', None, 'Id of a patient of it.')
  flags.DEFINE_string('dose', None, 'What dvhflax.predict wrote, dose.npz.')
  flags.DEFINE_integer('plan', None, 'Mimic this plan of the patient.')
  flags.DEFINE_string('output', None, 'File for dose and fluences, .npz.')
  cli.run(main)
