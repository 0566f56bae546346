"""A patient's DVHs beside those that the RTDOSE stores, and dicompyler-core's.

python benchmarks/dicom_case.py FOLDER [--dicompyler=VENV/bin/python]

Of every structure, ours minus theirs: volume in % of theirs; D95, D50, D2 and
mean in % of the maximum dose; the volume that receives 5% of the maximum dose,
in cc. Theirs are

- stored: the DVHs in the RTDOSE; ours in each way of `cohort.contour_ends`.
  The following are of slabs, as ours with `half_slice`:
- points: quasi-random points within the contours, each contour a prism half a
  slice up and down, the dose trilinear: the same by other means;
- dicompyler: dicompyler-core as it comes; `fine`, with pixels of an eighth of
  the dose grid's; and `at planes`, ours with the dose of the contours' planes
  throughout their slices minus `fine`.
"""

import argparse
import json
import pathlib
import subprocess

from matplotlib.path import Path
import numpy as np
from scipy import interpolate
from scipy.stats import qmc

from dvhflax.io import resample, source_dvh
from dvhflax.io.contours import stack as contours
from dvhflax.io.dicom import files, rtdose, rtstruct
from dvhflax.io.dicom import reader as dicom

HERE = pathlib.Path(__file__).parent
# Points a slice, a power of two.
POINTS = 2**15
COVERAGES = (95, 50, 2)
# Of the maximum dose.
LOW = 0.05
COLUMNS = ('volume', *(f'D{x}' for x in COVERAGES), 'mean', 'V5')


def slices(polygons):
  """`[N]` z of each contour, `[K]` of slices, and their distance."""
  heights = np.array([polygon[0, 2] for polygon in polygons]).round(2)
  places = np.unique(heights)
  return heights, places, contours.slice_spacing(places)


def ours(dose, occupancy):
  """cc; D95, D50, D2 and mean in Gy; cc that receive 5% of the maximum."""
  curve = source_dvh.dvh_vectors(dose, occupancy)
  cc = occupancy.volume_cc
  low = cc * curve.volume_percent_at_dose(LOW * dose.values.max()) / 100
  return np.array(
    [cc, *map(curve.dose_at_volume_percent, COVERAGES), curve.mean_dose, low]
  )


def at_planes(occupancy, places):
  """A structure all of whose layers lie in the planes of its contours."""
  lower, upper = occupancy.lower, occupancy.upper
  thick = upper[2] - lower[2]
  nearest = np.abs(occupancy.centres[2][:, None] - places).argmin(1)
  z = places[nearest]
  return resample.Occupancy(
    occupancy.fractions,
    (*lower[:2], z - thick / 2),
    (*upper[:2], z + thick / 2),
  )


def by_points(polygons, dose):
  """The same as `ours`, of points in prisms."""
  heights, places, step = slices(polygons)
  at = interpolate.RegularGridInterpolator(dose.axes, dose.values)
  ends = [(axis[0], axis[-1]) for axis in dose.axes]
  halves = [(axis[1] - axis[0]) / 2 for axis in dose.axes]
  doses, weights = [], []
  for place in places:
    here = [p for p, z in zip(polygons, heights) if z == place]
    low, high = (f(np.concatenate(here), 0)[:2] for f in (np.min, np.max))
    unit = qmc.Sobol(3, seed=0).random(POINTS)
    points = [*low, place - step / 2] + unit * [*(high - low), step]
    inside = np.zeros(POINTS, bool)
    for polygon in here:
      inside ^= Path(polygon[:, :2]).contains_points(points[:, :2])
    points = points[inside]
    # A voxel's value holds to its edge; beyond there is no dose.
    given = np.ones(len(points), bool)
    for axis, ((first, last), half) in enumerate(zip(ends, halves)):
      along = points[:, axis]
      given &= (along >= first - half) & (along <= last + half)
      points[:, axis] = along.clip(first, last)
    doses.append(np.where(given, at(points), 0))
    cc = np.prod(high - low) * step / POINTS / 1000
    weights.append(np.full(len(points), cc))
  doses, weights = np.concatenate(doses), np.concatenate(weights)
  order = np.argsort(doses)
  more = 1 - (weights[order].cumsum() - weights[order] / 2) / weights.sum()
  at_volume = np.interp(
    np.array(COVERAGES) / 100, more[::-1], doses[order][::-1]
  )
  low = weights[doses >= LOW * dose.values.max()].sum()
  mean = np.average(doses, weights=weights)
  return [weights.sum(), *at_volume, mean, low]


def stored(path, names, top):
  """The same of the DVHs in an RTDOSE, by name; `top` is the maximum dose."""
  found = {}
  for item in files.read(path).DVHSequence:
    if item.DVHType != 'CUMULATIVE' or item.DoseUnits != 'GY':
      continue
    widths, volumes = np.array(item.DVHData, float).reshape(-1, 2).T
    # A volume is that of the middle of its bin: so the means are as stored.
    edges = np.append(0, widths.cumsum())
    doses = np.append(0, (edges[1:] + edges[:-1]) / 2)
    doses *= float(item.DVHDoseScaling)
    volumes = np.append(volumes[0], volumes)
    at_volume = np.interp(
      np.array(COVERAGES) / 100, volumes[::-1] / volumes[0], doses[::-1]
    )
    mean = np.trapezoid(volumes, doses) / volumes[0]
    low = np.interp(LOW * top, doses, volumes, right=0)
    number = int(item.DVHReferencedROISequence[0].ReferencedROINumber)
    found[names[number]] = [volumes[0], *at_volume, mean, low]
  return found


def peer(python, structure_set, dose, top, **options):
  """The same of dicompyler-core, by name."""
  command = [
    python, HERE / 'dicom_case_dicompyler.py', structure_set, dose,
    str(LOW * top), json.dumps(options),
  ]  # fmt: skip
  output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
  return json.loads(output.splitlines()[-1])


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('folder')
  parser.add_argument('--dicompyler', help='an interpreter that has it')
  options = parser.parse_args()
  (found,), _ = dicom.find_patients(options.folder)
  where, ((dose_file,),) = found.structure_set.path, found.plans
  rois, _ = rtstruct.rois(files.read(where), where, found.structure_set.frames)
  cases = {
    ends: dicom.read_patient(
      found, [roi.name for roi in rois], contour_ends=ends
    )
    for ends in contours.ENDS
  }
  case = cases['half_slice']
  dose = rtdose.read_dose(dose_file.path)
  top = float(dose.values.max())
  numbers = {roi.number: roi.name for roi in rois}
  peers = {}
  kept = stored(dose_file.path, numbers, top)
  if options.dicompyler:
    run = (options.dicompyler, where, dose_file.path, top)
    fine = float(dose.axes[0][1] - dose.axes[0][0]) / 8
    peers['dicompyler'] = peer(*run)
    peers['fine'] = peer(*run, interpolation_resolution=fine)

  def line(label, first, row):
    print(f'{label:28}{first:>10}' + ''.join(f'{v:>10}' for v in row))

  def difference(label, these, those):
    doses = [f'{v:+.2f}' for v in 100 * (these - those)[1:5] / top]
    volume = f'{100 * (these[0] / those[0] - 1):+.2f}'
    line(f'{"":17}{label}', volume, [*doses, f'{(these - those)[5]:+.2f}'])

  print(f'maximum dose {top:.3f} Gy; {"; ".join(case.notes)}')
  line('', COLUMNS[0], COLUMNS[1:])
  for roi in rois:
    if roi.name not in case.occupancies:
      continue
    occupancy = case.occupancies[roi.name]
    mine = ours(dose, occupancy)
    label = f'{roi.name:17}cc, Gy, cc'
    line(label, f'{mine[0]:.3f}', [f'{v:.3f}' for v in mine[1:]])
    for ends, one in cases.items() if roi.name in kept else ():
      those = np.array(kept[roi.name])
      difference(ends, ours(dose, one.occupancies[roi.name]), those)
    polygons, _ = rtstruct.contours(roi, where)
    difference('points', mine, np.array(by_points(polygons, dose)))
    for name, by_roi in peers.items():
      if roi.name not in by_roi:
        continue
      theirs = np.array(by_roi[roi.name])
      difference(name, mine, theirs)
      if name == 'fine':
        changed = at_planes(occupancy, slices(polygons)[1])
        difference('at planes', ours(dose, changed), theirs)


if __name__ == '__main__':
  main()
