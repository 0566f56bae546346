"""One simulated patient for both planners, and pyRadPlan's plan of it."""

import contextlib
import json
import logging
import os
import warnings

import numpy as np
from planning import FIELD_MM
from pyRadPlan import (
  PhotonPlan,
  StructureSet,
  calc_dose_influence,
  fluence_optimization,
  generate_stf,
)
from pyRadPlan.cst import create_voi
from pyRadPlan.ct import create_ct

from dvhflax.grid import Grid
from dvhflax.planning.beams import open_beamlets
from dvhflax.sites.prostate import PROTOCOL
from dvhflax.sources.anatomy import sample_anatomy

FULL = (128, 128, 64)
OARS = ('rectum', 'bladder')
# Beyond this an OAR's overdose counts, in the protocol too.
OVERDOSE_GY = 31.2
BEAMLET_MM = 5.0


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
    self.grid = Grid(shape, spacing)
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
      angles=PROTOCOL.angles,
      sad_mm=PROTOCOL.sad_mm,
      width_mm=BEAMLET_MM,
      margin_mm=PROTOCOL.margin_mm,
    )

  def quality(self, dose):
    """PTV D2 and OAR means in Gy of `[V]` body doses, D95 at 78 Gy."""
    cube = np.zeros(self.grid.shape)
    cube[tuple(self.body.T)] = dose
    target = cube[self.masks['PTV'] > 0]
    scale = PROTOCOL.prescription_gy / np.quantile(target, 0.05)
    found = {'PTV D2': scale * np.quantile(target, 0.98)}
    for oar in OARS:
      outside = (self.masks[oar] > 0) & (self.masks['PTV'] == 0)
      found[f'{oar} mean'] = scale * cube[outside].mean()
    return found


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
      'gantry_angles': list(np.degrees(PROTOCOL.angles)),
      'couch_angles': [0.0] * PROTOCOL.beams,
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
    top = PROTOCOL.prescription_gy
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
