"""An import format is a module with two functions and a line in a table."""

import numpy as np

from dvhflax.io import formats, importing
from dvhflax.patient import Structure

NAMES = ('body', 'rectum', 'PTV')


def test_a_format_of_ones_own(tmp_path, monkeypatch):
  monkeypatch.setitem(formats.FORMATS, 'npz', formats.Format('npz_format'))
  shape, spacing_mm = (12, 12, 8), (5.0, 5.0, 5.0)
  masks = np.zeros((3, *shape), np.uint8)
  masks[0, 1:11, 1:11] = 1
  masks[1, 4:8, 7:9, 2:6] = 1
  masks[2, 4:8, 3:7, 2:6] = 1
  dose = 20.0 * masks[0] + 58.0 * masks[2]
  (tmp_path / 'a').mkdir()
  np.savez(
    tmp_path / 'a' / 'anna.npz', dose=dose, spacing_mm=spacing_mm,
    External=masks[0], Rektum=masks[1], PTV_78=masks[2], Magen=masks[1],
  )  # fmt: skip
  options = {'contour_ends': 'rounded', 'sum_beams': False}
  found, read, skipped = formats.open_folder(
    'npz', str(tmp_path), NAMES, (), options
  )
  assert list(found) == ['anna'] and not skipped
  case = read(found['anna'])
  assert case.notes == ['unmapped: Magen']
  settings = importing.Settings(
    tuple(map(Structure.from_name, NAMES)), (12, 12, 8), spacing_mm, 78.0
  )
  patient, _ = importing.assemble(case, settings)
  assert patient.present.all()
  # The cohort's grid is centred on the target: whole volumes stay.
  assert patient.masks[..., 2].sum() == masks[2].sum()
  inside = patient.dose[0][patient.masks[..., 2] > 0]
  assert (inside == 1.0).all() and patient.prescription_gy == 78.0
