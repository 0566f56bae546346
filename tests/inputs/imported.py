"""What a patient that was imported must be."""

import numpy as np

from dvhflax import dvh
from dvhflax.dvh import DVHSpec
from dvhflax.io import importing
from dvhflax.io.resample import MOST_GY
from dvhflax.patient import LEAST_HU, MOST_HU, Structure
from dvhflax.report import folder_names

NAMES = ('body', 'bladder', 'rectum', 'PTV')
SETTINGS = importing.Settings(
  tuple(map(Structure.from_name, NAMES)), (16, 16, 8), (5.0, 5.0, 6.0), ct=True
)
SPEC = DVHSpec(points=16, max_dose=1.5)


def check(patient, settings=SETTINGS):
  """Raises an AssertionError unless a patient is one."""
  structures, grid = settings.structures, settings.shape
  masks, dose = patient.masks, patient.dose
  assert masks.shape == (*grid, len(structures)) and masks.dtype == np.uint8
  assert masks.max() == 1
  np.testing.assert_array_equal(patient.present, masks.any((0, 1, 2)))
  targets = [s.role == 'target' for s in structures]
  assert patient.present[targets].any()
  assert patient.present[[s.role == 'body' for s in structures]].all()
  assert all(0 < x < 1000 for x in patient.spacing_mm)
  assert 0 < patient.prescription_gy <= importing.MOST_PRESCRIBED_GY
  assert dose.shape == (len(patient.reference_gy), *grid)
  assert dose.dtype == np.float32 and np.isfinite(dose).all()
  assert np.isfinite(patient.reference_gy).all()
  for fractions, reference_gy in zip(dose, patient.reference_gy):
    dose_gy = fractions * reference_gy
    assert dose_gy.min() >= 0 and 0 < dose_gy.max() <= MOST_GY * 1.001
    curves = dvh.dvh_vectors(fractions, masks, SPEC)
    assert curves.min() >= 0 and curves.max() <= 1
    assert (np.diff(curves, axis=1) <= 1e-6).all()
    np.testing.assert_allclose(curves[patient.present, 0], 1)
  if patient.ct_hu is not None:
    assert patient.ct_hu.shape == grid and patient.ct_hu.dtype == np.int16
    assert patient.ct_hu.min() >= LEAST_HU and patient.ct_hu.max() <= MOST_HU
  assert patient.id
  name = folder_names.folder_name(patient.id)
  assert '/' not in name and name not in ('', '.', '..')


def lost(patient, sound):
  """What a patient lacks of a sound one, for a message to tell."""
  found = [
    name
    for name, has, had in zip(NAMES, patient.present, sound.present)
    if had and not has
  ]
  missing = len(sound.dose) - len(patient.dose)
  found += [f'{missing} plans'] * (missing > 0)
  if patient.ct_hu is None and sound.ct_hu is not None:
    found.append('CT')
  return found


def changed(patient, sound):
  """How an accepted patient differs from the sound one, in a few words."""
  words = []
  if not np.array_equal(patient.masks, sound.masks):
    words.append('masks')
  if len(patient.dose) != len(sound.dose):
    words.append('plans')
  else:
    own, its = (
      p.dose * np.reshape(p.reference_gy, (-1, 1, 1, 1))
      for p in (patient, sound)
    )
    apart = np.abs(own - its).max(initial=0)
    words += [f'dose by {apart:.3g} Gy'] * bool(apart > 1e-3)
  if patient.prescription_gy != sound.prescription_gy:
    words.append(f'prescribed {patient.prescription_gy:g} Gy')
  if patient.id != sound.id:
    words.append('id')
  return words
