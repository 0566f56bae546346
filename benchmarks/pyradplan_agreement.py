"""Dose of the same fluences by pyRadPlan and by our engine.

See planning_pyradplan.py, which runs this.
"""

from unittest import mock

import numpy as np
from pyRadPlan.dose.engines._svdpb import PhotonPencilBeamSVDEngine
from pyradplan_setup import BEAMLET_MM, FULL, Patient, Theirs, say, weights
from scipy import ndimage

from dvhflax.planning import influence as influence_lib
from dvhflax.planning.beams import Beamlets, beam_axes
from dvhflax.planning.influence import Influence
from dvhflax.planning.kernel import DEPTH_STEP_MM, MAX_DEPTH_MM, GaussianKernel
from dvhflax.planning.raytrace import depth_maps
from dvhflax.sites.prostate import PROTOCOL

ENERGY_MV = 6.0
# `deep` voxels lie farther from the skin, where both trace rays differently.
DEEP_MM = 15.0
# pyRadPlan's grid of kernels, and how far from a ray it has dose.
FINE_MM, CUT_OFF_MM = 0.5, 50.0
# Standard deviations that its kernels are fitted with, before the penumbra.
FIT_SIGMA_MM = (0, 0.7, 1.2, 2, 3, 4.5, 7, 10, 15, 22, 32, 48, 70)


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
    for beam, angle in zip(theirs.beams.beams, PROTOCOL.angles):
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
