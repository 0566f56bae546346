"""The planner beside pyRadPlan, on one simulated patient, in one process.

python benchmarks/planning_pyradplan.py agreement [X Y Z]
python benchmarks/planning_pyradplan.py time PLANS [X Y Z]

Needs an environment of its own (README.md). Prints JSON lines.

`agreement`: dose of the same beamlets' fluences by both. Our engine gets the
kernels of pyRadPlan's machine, fitted by Gaussians, and its cut-off; what is
left are ray tracing, the fit and the interpolation. In % of the maximum.

`time`: pyRadPlan's influence of the whole body and its optimisation, plan
after plan, then ours, which first plans another patient to compile. `cpu` are
processor seconds, which other processes disturb less. Both have
the target's squared deviation, each OAR's squared overdose and mean, and the
body's squared overdose as objectives; each has its own weights, stopping
rule, sampling of voxels and choice of beamlets.
"""

import contextlib
import json
import logging
import os
import resource
import sys
import time
from unittest import mock
import warnings

import jax
import numpy as np
from pyRadPlan import (
  PhotonPlan,
  StructureSet,
  calc_dose_influence,
  fluence_optimization,
  generate_stf,
)
from pyRadPlan.cst import create_voi
from pyRadPlan.ct import create_ct
from pyRadPlan.dose.engines._svdpb import PhotonPencilBeamSVDEngine
from scipy import ndimage

from dvhflax.planning import influence as influence_lib
from dvhflax.planning import planner
from dvhflax.planning.anatomy import sample_anatomy
from dvhflax.planning.beams import Beamlets, beam_axes, open_beamlets
from dvhflax.planning.grid import VoxelGrid
from dvhflax.planning.influence import Influence
from dvhflax.planning.kernel import DEPTH_STEP_MM, MAX_DEPTH_MM, GaussianKernel
from dvhflax.planning.protocol import PROSTATE
from dvhflax.planning.raytrace import depth_maps

FULL = (128, 128, 64)
FIELD_MM = (480.0, 320.0, 192.0)
OARS = ('rectum', 'bladder')
# Beyond this an OAR's overdose counts, in the protocol too.
OVERDOSE_GY = 31.2
BEAMLET_MM = 5.0
ENERGY_MV = 6.0
# `deep` voxels lie farther from the skin, where both trace rays differently.
DEEP_MM = 15.0
# pyRadPlan's grid of kernels, and how far from a ray it has dose.
FINE_MM, CUT_OFF_MM = 0.5, 50.0
# Standard deviations that its kernels are fitted with, before the penumbra.
FIT_SIGMA_MM = (0, 0.7, 1.2, 2, 3, 4.5, 7, 10, 15, 22, 32, 48, 70)


def say(**values):
  """One JSON line, floats to 4 digits."""
  rounded = {
    k: float(f'{v:.4g}') if isinstance(v, float) else v
    for k, v in values.items()
  }
  print(json.dumps(rounded), flush=True)


class Patient:
  """A simulated patient for both sides.

  Attributes:
    grid: voxels.
    masks: `[X, Y, Z]` by name.
  """

  def __init__(self, index, shape):
    spacing = tuple(f / n for f, n in zip(FIELD_MM, shape))
    self.grid = VoxelGrid(shape, spacing)
    rng = np.random.default_rng([0, index])
    self.masks = sample_anatomy(rng, shape, spacing).masks

  @property
  def isocentre(self):
    """`[3]` mm, the target's centroid as both sides take it."""
    index = np.argwhere(self.masks['PTV'])
    return self.grid.centres(index).mean(0)

  @property
  def body(self):
    """`[V, 3]` indices of voxels in the body."""
    return np.argwhere(self.masks['body'])

  def beamlets(self):
    """Those that our planner opens."""
    return open_beamlets(
      self.masks['PTV'],
      self.grid,
      angles=PROSTATE.angles,
      sad_mm=PROSTATE.sad_mm,
      width_mm=BEAMLET_MM,
      margin_mm=PROSTATE.margin_mm,
    )

  def quality(self, dose):
    """PTV D2 and OAR means in Gy of `[V]` body doses, D95 at 78 Gy."""
    cube = np.zeros(self.grid.shape)
    cube[tuple(self.body.T)] = dose
    target = cube[self.masks['PTV'] > 0]
    scale = PROSTATE.prescription_gy / np.quantile(target, 0.05)
    found = {'PTV D2': scale * np.quantile(target, 0.98)}
    for oar in OARS:
      outside = (self.masks[oar] > 0) & (self.masks['PTV'] == 0)
      found[f'{oar} mean'] = scale * cube[outside].mean()
    return found


def averages(rows):
  """Mean of dictionaries, to 0.1."""
  return {k: round(float(np.mean([r[k] for r in rows])), 1) for k in rows[0]}


class Theirs:
  """pyRadPlan's plan of a patient."""

  def __init__(self, patient):
    grid = patient.grid
    hounsfield = np.where(patient.masks['body'], 0.0, -1000.0)
    self.ct = create_ct(
      cube_hu=np.ascontiguousarray(hounsfield.transpose(2, 1, 0)),
      resolution=dict(zip('xyz', grid.spacing_mm)),
      origin=tuple(grid.first_centre),
      direction=(1, 0, 0, 0, 1, 0, 0, 0, 1),
    )
    self.patient = patient
    self.structures = self._structures((1.0, 1.0, 1.0))
    self.plan = PhotonPlan(machine='Generic')
    self.plan.prop_stf = {
      'gantry_angles': list(np.degrees(PROSTATE.angles)),
      'couch_angles': [0.0] * PROSTATE.beams,
      'iso_center': patient.isocentre,
      'bixel_width': BEAMLET_MM,
    }
    self.plan.prop_dose_calc = {'dose_grid': self.ct.grid}
    self.plan.prop_opt = {'solver': 'scipy'}
    with quiet():
      self.beams = generate_stf(self.ct, self.structures, self.plan)
    ours = patient.beamlets()
    for beam, opened in zip(self.beams.beams, ours.open):
      # Theirs are half a beamlet aside, and reach farther.
      half = np.array(opened.shape) / 2
      kept = []
      for ray in beam.rays:
        place = np.floor(ray.ray_pos_bev[[0, 2]] / BEAMLET_MM + half)
        place = place.astype(int).clip(0, np.array(opened.shape) - 1)
        if opened[tuple(place)]:
          kept.append(ray)
      beam.rays = kept

  def _structures(self, weights):
    top = PROSTATE.prescription_gy
    over = {
      'name': 'Squared Overdosing',
      'd_max': OVERDOSE_GY,
    }
    mean = {'name': 'Mean Dose', 'd_ref': 0.0, 'f_diff': 'linear'}
    roles = [
      ('PTV', 'TARGET', [{'name': 'Squared Deviation', 'd_ref': top}], 1.0),
      *(
        # The mean in units of the prescription, a quarter of the overdose.
        (oar, 'OAR', [over, {**mean, 'priority': weight * top / 4}], weight)
        for oar, weight in zip(OARS, weights)
      ),
      ('body', 'EXTERNAL', [{**over, 'd_max': 0.7 * top}], weights[-1]),
    ]
    found = []
    for name, kind, objectives, weight in roles:
      mask = self.patient.masks[name].astype(np.uint8).transpose(2, 1, 0)
      found.append(
        create_voi(
          voi_type=kind,
          name=name,
          ct_image=self.ct,
          mask=np.ascontiguousarray(mask),
          objectives=[{'priority': weight, **o} for o in objectives],
        )
      )
    return StructureSet(vois=found, ct_image=self.ct)

  def influence(self):
    """Their influence matrix, `[voxels, beamlets]` sparse, of the body."""
    with quiet():
      return calc_dose_influence(
        self.ct, self.structures, self.beams, self.plan
      )

  def optimise(self, influence, weights):
    """`[beamlets]` fluence, number of iterations."""
    info = {}
    with quiet():
      fluence = fluence_optimization(
        self.ct,
        self._structures(weights),
        self.beams,
        influence,
        self.plan,
        opt_info=info,
      )
    return fluence, info['num_iter']

  def dose(self, influence, fluence):
    """`[V]` dose of the body's voxels, in the order of `Patient.body`."""
    cube = influence.physical_dose.flat[0] @ fluence
    cube = cube.reshape(self.patient.grid.shape[::-1]).transpose(2, 1, 0)
    return cube[tuple(self.patient.body.T)]


@contextlib.contextmanager
def quiet():
  """Without their progress bars and warnings."""
  logging.disable(logging.WARNING)
  with (
    open(os.devnull, 'w') as nowhere,
    warnings.catch_warnings(),
    contextlib.redirect_stderr(nowhere),
    contextlib.redirect_stdout(nowhere),
  ):
    warnings.simplefilter('ignore')
    yield


def weights(plans):
  """`[N, 3]` spread weights of rectum, bladder and body, target 1."""
  share = np.random.default_rng(0).random((plans, 3))
  low, high = np.array([4e-3, 2e-3, 8.0]), np.array([0.05, 0.06, 12.0])
  return low * (high / low) ** share


def fitted_kernel(kernel, surface_mm):
  """Their kernels as a table of Gaussians for our engine.

  Each radial kernel is sampled on their grid, blurred by their penumbra and
  fitted over the distances that they have dose at; the table has each depth's
  sum of the three.

  Args:
    kernel: pyRadPlan's `PhotonSVDKernel`.
    surface_mm: distance from the source to the surface on the central ray.

  Returns:
    `GaussianKernel`, and the fit's largest error in 10 cm depth in % of the
    peak there.
  """
  radial = kernel.get_kernels_at_ssd(surface_mm)
  count = int(np.ceil(kernel.kernel_pos[-1] / FINE_MM))
  x = FINE_MM * np.arange(-count, count)
  r = np.hypot(x[:, None], x[None, :])
  penumbra = kernel.penumbra / np.sqrt(8 * np.log(2))
  blur = gaussian(r, penumbra)
  sigma = np.hypot(FIT_SIGMA_MM, penumbra)
  near = r <= CUT_OFF_MM + BEAMLET_MM
  distance, first = np.unique(r[near], return_index=True)
  columns = np.stack([gaussian(distance, s) for s in sigma], -1)
  # A ring's share grows with its radius; the peak has none without the rest.
  root = np.sqrt(distance + FINE_MM)[:, None]
  shares, errors, peaks = [], [], []
  for values in radial:
    sampled = np.interp(r, kernel.kernel_pos, values, right=0.0) * FINE_MM**2
    smooth = np.fft.fftshift(
      np.fft.ifft2(np.fft.fft2(sampled) * np.fft.fft2(blur)).real
    )[near][first]
    share = np.linalg.lstsq(columns * root, smooth * root[:, 0])[0]
    shares.append(share)
    errors.append(columns @ share - smooth)
    peaks.append(smooth[0])
  depth = np.arange(0, MAX_DEPTH_MM + DEPTH_STEP_MM, DEPTH_STEP_MM)
  slow, fast = kernel.m, kernel.kernel_betas
  rise = np.exp(-slow * depth)[:, None] - np.exp(-fast * depth[:, None])
  with_depth = fast / (fast - slow) * rise
  table = with_depth @ np.array(shares)
  at = with_depth[round(100 / DEPTH_STEP_MM)]
  fit = GaussianKernel(
    sigma.astype(np.float32), table.astype(np.float32), DEPTH_STEP_MM
  )
  return fit, 100 * np.abs(at @ errors).max() / (at @ peaks)


def gaussian(r, sigma):
  """Normalised in the plane."""
  return np.exp(-((r / sigma) ** 2) / 2) / (2 * np.pi * sigma**2)


class Shifted(Beamlets):
  """Beamlets where pyRadPlan's convolution puts them.

  Its fluence of 10 samples begins half a beamlet below the centre, so the
  samples' mean lies a quarter of a millimetre below.
  """

  def edges(self, axis):
    return super().edges(axis) - FINE_MM / 2


class Ours:
  """Our engine with the rays, kernels and cut-off of `Theirs`."""

  def __init__(self, theirs):
    self.patient, self.parts, self.errors = theirs.patient, [], []
    machine = PhotonPencilBeamSVDEngine.load_machine('photons', 'Generic')
    kernel = machine.get_kernel_by_energy(ENERGY_MV)
    grid, isocentre = self.patient.grid, self.patient.isocentre
    water = self.patient.masks['body'].astype(np.float32)
    for beam, angle in zip(theirs.beams.beams, PROSTATE.angles):
      place = np.array([ray.ray_pos_bev for ray in beam.rays])[:, [0, 2]]
      place = np.rint(place / BEAMLET_MM).astype(int)
      half = np.abs(place).max(0)
      i, j = (place + half).T
      opened = np.zeros((1, *(2 * half + 1)), bool)
      opened[0, i, j] = True
      beamlets = Shifted(
        isocentre, np.array([angle]), machine.sad, BEAMLET_MM, opened
      )
      maps = depth_maps(water, grid, beamlets)
      fit, error = fitted_kernel(kernel, self._surface(beamlets))
      self.errors.append(error)
      with mock.patch.object(influence_lib, 'gaussian_kernel', lambda f=fit: f):
        engine = Influence(beamlets, maps)
      # Places in the flattened lattice, in their order of rays.
      order = np.searchsorted(
        np.flatnonzero(opened), np.ravel_multi_index((i, j), opened.shape[1:])
      )
      self.parts.append((engine, order, place * BEAMLET_MM))

  def _surface(self, beamlets):
    """Distance from the source to the body on the central ray."""
    body, grid = self.patient.masks['body'], self.patient.grid
    _, along = beam_axes(beamlets.angles)
    t = np.arange(0, beamlets.sad_mm, 0.5)
    ray = np.zeros((3, len(t)))
    ray[:2] = along.T * (t - beamlets.sad_mm)
    ray += beamlets.isocentre[:, None] - grid.first_centre[:, None]
    index = ray / np.array(grid.spacing_mm)[:, None]
    inside = ndimage.map_coordinates(body.astype(np.uint8), index, order=0)
    return t[np.flatnonzero(inside)[0]]

  def dose(self, fluences):
    """`[N, V]` of `[N, beamlets]` in their order, in the body's voxels."""
    points = self.patient.grid.centres(self.patient.body)
    dose = np.zeros((len(fluences), len(points)))
    start = 0
    for engine, order, place in self.parts:
      beamlets = engine.beamlets
      fluence = fluences[:, start : start + len(order)]
      start += len(order)
      across, along = beam_axes(beamlets.angles)
      axes = np.stack([[*across[0], 0], [*along[0], 0], [0, 0, 1]])
      sad = beamlets.sad_mm
      rays = np.insert(place.astype(float), 1, sad, axis=1)
      rays /= np.linalg.norm(rays, axis=1, keepdims=True)
      for first in range(0, len(points), influence_lib.CHUNK):
        chunk = points[first : first + influence_lib.CHUNK]
        rows = np.asarray(engine.rows(chunk))
        rows = rows[: len(chunk), beamlets.active >= 0][:, order]
        p = (chunk - beamlets.isocentre) @ axes.T + [0, sad, 0]
        depth = p @ rays.T
        aside = (p**2).sum(1)[:, None] - depth**2
        rows = np.where(aside <= (CUT_OFF_MM / sad * depth) ** 2, rows, 0)
        dose[:, first : first + len(chunk)] += fluence @ rows.T
    return dose


def agreement(*shape):
  """Prints how far the doses of equal fluences are apart."""
  patient = Patient(0, shape or FULL)
  theirs = Theirs(patient)
  matrix = theirs.influence()
  count = matrix.total_num_of_bixels
  solved, _ = theirs.optimise(matrix, weights(1)[0])
  fluences = {
    'open': np.ones(count),
    'random': np.random.default_rng(0).random(count),
    'solved': solved,
  }
  ours = Ours(theirs)
  padded = np.pad(patient.masks['body'] > 0, 1)
  from_skin = ndimage.distance_transform_edt(padded, patient.grid.spacing_mm)
  deep = from_skin[1:-1, 1:-1, 1:-1][tuple(patient.body.T)] > DEEP_MM
  doses = ours.dose(np.stack(list(fluences.values())))
  for (name, fluence), own in zip(fluences.items(), doses):
    other = theirs.dose(matrix, fluence)
    error = 100 * (own - other) / other.max()
    size = np.abs(error)
    say(
      case='agreement', fluence=name, grid=shape or FULL, beamlets=count,
      voxels=len(error), fit_percent=max(ours.errors),
      bias_percent=float(error.mean()), mean_percent=float(size.mean()),
      p99_percent=float(np.quantile(size, 0.99)),
      max_percent=float(size.max()),
      over_2_percent=float(100 * (size > 2).mean()),
      deep_p99_percent=float(np.quantile(size[deep], 0.99)),
      deep_max_percent=float(size[deep].max()),
    )  # fmt: skip


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
      patient.masks, patient.grid.spacing_mm, plans, PROSTATE
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
    entries=int(matrix.physical_dose.flat[0].nnz), peak_gb=peak(),
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


def peak():
  """Largest memory so far in GB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == '__main__':
  case, *numbers = sys.argv[1:]
  {'agreement': agreement, 'time': times}[case](*map(int, numbers))
