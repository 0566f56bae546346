"""Time and memory of importing one patient of 128 x 128 x 64 voxels.

PYTHONPATH=tests/io python benchmarks/import_time.py

The patient, written first: 200 CT slices of 512 x 512, seven structures of 200
points a contour, doses of 137 x 137 x 137. Prints seconds, of the first import
and of later ones, and the peak memory of the process.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import measuring
import numpy as np
import synthetic_dicom as synthetic

from dvhflax.io import importing
from dvhflax.io.dicom import reader as dicom
from dvhflax.patient import Structure

NAMES = (
  'body', 'bladder', 'rectum', 'bowel', 'femoral_head_left',
  'femoral_head_right', 'PTV',
)  # fmt: skip
SLICES, PIXELS, PIXEL_MM, SLICE_MM = 200, 512, 1.0, 2.0
# Whether the CT is kept, whether there is a body, and plans.
CASES = {
  'without CT': (False, True, 1),
  'with CT': (True, True, 1),
  'with CT, body derived': (True, False, 1),
  'ten plans, without CT': (False, True, 10),
  'ten plans, with CT': (True, True, 10),
}


def folder_of(root, case):
  """Of a case's files."""
  _, has_body, plans = CASES[case]
  return pathlib.Path(root) / f'{has_body}{plans}'


def write(folder, has_body, plans):
  """Writes the patient."""
  others = {
    'Bladder': synthetic.sphere(35, SLICE_MM, centre=(0, -40)),
    'Rectum': synthetic.cylinder(18, 60, SLICE_MM, centre=(0, 40)),
    'Bowel': synthetic.cylinder(60, 60, SLICE_MM, centre=(0, -80)),
    'FemoralHead_L': synthetic.sphere(25, SLICE_MM, centre=(90, 0)),
    'FemoralHead_R': synthetic.sphere(25, SLICE_MM, centre=(-90, 0)),
    'PTV': synthetic.sphere(40, SLICE_MM),
  }
  body = {'Body': synthetic.cylinder(170, 200, SLICE_MM)} if has_body else {}
  synthetic.save(synthetic.structure_set(body | others), folder / 'structures')
  synthetic.save(synthetic.plan(78.0), folder / 'plan')
  x = np.arange(137) * 3.0 - 204
  distance = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)
  for n in range(plans):
    dose = 80 / (1 + np.exp((distance - 45) / (8 + n)))
    synthetic.save(
      synthetic.dose(dose, origin=(-204.0,) * 3, uid=f'1.2.3.4.8.{n}'),
      folder / f'dose{n}',
    )
  x = PIXEL_MM * (np.arange(PIXELS) - (PIXELS - 1) / 2)
  hu = np.where(np.hypot(x[:, None], x) <= 170, 20.0, -1000.0)
  hu[:, (x > 180) & (x < 185)] = 200
  hu = hu + np.random.default_rng(0).normal(0, 20, hu.shape)
  hu = np.broadcast_to(hu.clip(-1024, 3000)[..., None], (*hu.shape, SLICES))
  slices = synthetic.ct(
    hu, origin=(x[0], x[0], 1 - SLICES), spacing=(PIXEL_MM, PIXEL_MM, SLICE_MM)
  )
  for i, one in enumerate(slices):
    synthetic.save(one, folder / f'ct{i}')


def main():
  with tempfile.TemporaryDirectory() as root:
    for case, (_, has_body, plans) in CASES.items():
      if not folder_of(root, case).exists():
        write(folder_of(root, case), has_body, plans)
    for case in CASES:
      output = subprocess.run(
        [sys.executable, __file__, root, case],
        stdout=subprocess.PIPE, check=True,
      ).stdout  # fmt: skip
      row = json.loads(output)
      print(
        f'{case:24}first {row["first"]:.2f} s, then {row["median"]:.2f} '
        f'({row["min"]:.2f} to {row["max"]:.2f}) s; {row["peak_gb"]:.2f} GB',
        flush=True,
      )


def measure(root, case):
  ct, _, plans = CASES[case]
  settings = importing.Settings(
    tuple(map(Structure.from_name, NAMES)),
    (128, 128, 64), (3.75, 3.0, 3.0), ct=ct,
  )  # fmt: skip

  def run():
    (found,), skipped = dicom.find_patients(folder_of(root, case))
    patient, entry = importing.assemble(
      dicom.read_patient(found, NAMES), settings
    )
    assert patient.present.all() and len(patient.dose) == plans
    assert (patient.ct_hu is not None) == ct and not skipped, entry['notes']

  print(json.dumps(measuring.measure(run)))


if __name__ == '__main__':
  main() if len(sys.argv) == 1 else measure(*sys.argv[1:])
