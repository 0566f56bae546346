"""Time of pyRadPlan and of our planner for one patient's plans.

See planning_pyradplan.py, which runs this.
"""

import time
from unittest import mock

import jax
from measuring import peak_gb
import numpy as np
from pyradplan_setup import FULL, Patient, Theirs, quiet, say, weights

from dvhflax.planning import planner
from dvhflax.planning.influence import Influence
from dvhflax.sites.prostate import PROTOCOL


def averages(rows):
  """Mean of dictionaries, to 0.1."""
  return {k: round(float(np.mean([r[k] for r in rows])), 1) for k in rows[0]}


class Clock:
  """Sums the seconds of wrapped functions, results waited for."""

  def __init__(self):
    self.seconds = {}

  def wrap(self, owner, attribute, name):
    """Patch that times a function."""
    call = getattr(owner, attribute)

    def timed(*arguments, **options):
      start = time.perf_counter()
      result = call(*arguments, **options)
      jax.block_until_ready(getattr(result, 'depth', result))
      elapsed = time.perf_counter() - start
      self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
      return result

    return mock.patch.object(owner, attribute, timed)


def time_ours(patient, plans):
  """Seconds in all and of parts of `plan_patient`, and its quality."""
  clock = Clock()
  with (
    clock.wrap(planner, 'depth_maps', 'tracing'),
    clock.wrap(Influence, 'rows', 'rows'),
    clock.wrap(Influence, 'dose', 'full_dose'),
  ):
    start, cpu = time.perf_counter(), time.process_time()
    planned = planner.plan_patient(
      patient.masks, patient.grid.spacing_mm, plans, PROTOCOL
    )
    total = time.perf_counter() - start
  parts = {**clock.seconds, 'cpu': time.process_time() - cpu}
  body = planned.dose_gy[(slice(None), *patient.body.T)]
  return total, parts, averages([patient.quality(d) for d in body])


def times(plans, *shape):
  """Prints both sides' seconds and their ratio."""
  shape = shape or FULL
  patient = Patient(0, shape)
  # Their compiled kernels are loaded, and compiled, by the first call.
  with quiet():
    Theirs(Patient(1, (32, 32, 16))).influence()
  start, cpu = time.perf_counter(), time.process_time()
  theirs = Theirs(patient)
  setup = time.perf_counter() - start
  start = time.perf_counter()
  matrix = theirs.influence()
  influence = time.perf_counter() - start
  seconds, iterations, doses = [], [], []
  for row in weights(plans):
    start = time.perf_counter()
    fluence, number = theirs.optimise(matrix, row)
    doses.append(theirs.dose(matrix, fluence))
    seconds.append(time.perf_counter() - start)
    iterations.append(number)
  theirs_total = setup + influence + sum(seconds)
  cpu = time.process_time() - cpu
  say(
    case='time', who='pyRadPlan', plans=plans, grid=shape,
    total=theirs_total, cpu=cpu, setup=setup, influence=influence,
    plan=float(np.mean(seconds)), iterations=iterations,
    beamlets=matrix.total_num_of_bixels,
    entries=int(matrix.physical_dose.flat[0].nnz), peak_gb=peak_gb(),
    quality=averages([patient.quality(d) for d in doses]),
  )  # fmt: skip
  del matrix
  first, _, _ = time_ours(Patient(1, shape), plans)
  total, parts, quality = time_ours(patient, plans)
  own_influence = parts['tracing'] + parts['rows']
  own_cpu = parts.pop('cpu')
  say(
    case='time', who='dvhflax', plans=plans, grid=shape, total=total,
    cpu=own_cpu, first_call=first, influence=own_influence, **parts,
    rest=total - sum(parts.values()), quality=quality,
    beamlets=int(patient.beamlets().open.sum()),
  )  # fmt: skip
  say(
    case='ratio', plans=plans, grid=shape, total=theirs_total / total,
    cpu=cpu / own_cpu,
    influence=influence / own_influence,
    others=(theirs_total - influence) / (total - own_influence),
  )  # fmt: skip
