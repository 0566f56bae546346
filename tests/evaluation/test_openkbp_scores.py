"""The challenge's scores against plain loops, and on coarser grids."""

import numpy as np
import pytest

from dvhflax.evaluation import openkbp_scores
from dvhflax.io import openkbp
from dvhflax.patient import Structure

POSSIBLE = openkbp.STRUCTURES[0]


def test_openkbp_scores_equal_a_plain_loop():
  rng = np.random.default_rng(0)
  structures = (
    Structure('PossibleDose', 'body'),
    Structure('SpinalCord', 'oar'),
    Structure('Larynx', 'oar'),
    Structure('PTV70', 'target'),
  )
  masks = (rng.random((8, 8, 4, 4)) < 0.4).astype(np.uint8)
  masks[..., 2] = 0
  reference, predicted = 70 * rng.random((2, 8, 8, 4))
  # As in the challenge; its predictions are cut to the mask, too.
  reference *= masks[..., 0]
  case = openkbp_scores.Case(
    reference, predicted, masks[..., 0], masks, (4.0, 4.0, 2.5)
  )
  inside = masks[..., 0] > 0
  shown = np.where(inside, predicted, 0)
  dose_score = np.abs(reference - shown).sum() / inside.sum()
  cells = []
  for s, k in ((1, 'oar'), (3, 'target')):
    a, b = reference[masks[..., s] > 0], shown[masks[..., s] > 0]
    if k == 'oar':
      share = 100 - 100 * max(1, round(100 / 40)) / len(a)
      cells.append(abs(np.percentile(a, share) - np.percentile(b, share)))
      cells.append(abs(a.mean() - b.mean()))
    else:
      for q in (1, 5, 99):
        cells.append(abs(np.percentile(a, q) - np.percentile(b, q)))
  scores = openkbp_scores.scores([openkbp_scores.of_patient(case, structures)])
  assert scores.dose == pytest.approx(dose_score)
  assert scores.dvh == pytest.approx(np.mean(cells))


def write_patient(folder):
  """Dose in a ball and its target, which end within blocks of any size."""
  axis = np.arange(128)
  x, y, z = np.meshgrid(axis, axis, axis, indexing='ij', sparse=True)
  squared = (x - 61) ** 2 + (y - 62) ** 2 + (z - 63) ** 2
  ball, target = (np.flatnonzero(squared <= r**2) for r in (17, 9))
  dose = 70 - 1.5 * np.sqrt(squared.ravel()[ball])
  folder.mkdir()
  for name, index, values in (
    ('possible_dose_mask', ball, None),
    ('PTV70', target, None),
    # Partly where no dose is possible.
    ('SpinalCord', target + 16 * 128, None),
    ('dose', ball, dose),
  ):
    cells = [''] * len(index) if values is None else values
    lines = [',data', *(f'{i},{v}' for i, v in zip(index, cells))]
    (folder / f'{name}.csv').write_text('\n'.join(lines))
  (folder / 'voxel_dimensions.csv').write_text('3.5 3.5 2.0')
  return folder


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return write_patient(tmp_path_factory.mktemp('openkbp') / 'pt_1')


def case_of(folder, grid, shift_gy=0.0):
  """A prediction that is off by so much wherever it may be."""
  patient = openkbp.read_patient(folder, grid=grid)
  reference = 70 * patient.dose[0]
  return openkbp_scores.Case(
    reference,
    reference + np.float32(shift_gy),
    patient.masks[..., 0],
    patient.masks,
    patient.spacing_mm,
  )


GRIDS = [(128, 128, 128), (64, 64, 64), (64, 32, 128), (16, 16, 16)]


@pytest.mark.parametrize('grid', GRIDS)
def test_the_reference_scores_nothing(folder, grid):
  case = case_of(folder, grid)
  outside = case.reference[case.possible_dose == 0]
  assert outside.any() == (grid != (128, 128, 128))
  scores = openkbp_scores.scores(
    [openkbp_scores.of_patient(case, openkbp.STRUCTURES)]
  )
  assert scores.dose == 0 and scores.dvh == 0


def test_the_own_grid_of_the_challenge_has_its_scores(folder):
  """To the digit, those of a prediction that is cut to the mask."""
  case = case_of(folder, GRIDS[0])
  rng = np.random.default_rng(0)
  predicted = case.reference + rng.normal(0, 3, GRIDS[0])
  case = openkbp_scores.Case(
    case.reference, predicted, case.possible_dose, case.masks, case.spacing_mm
  )
  cut = np.where(case.possible_dose > 0, predicted, 0)
  difference = np.subtract(case.reference, cut, dtype=np.float64)
  assert openkbp_scores.dose_error(case) == (
    np.abs(difference).sum() / np.count_nonzero(case.possible_dose)
  )
  metrics = [
    openkbp_scores.dvh_metrics(
      dose, case.masks, openkbp.STRUCTURES, case.spacing_mm
    )
    for dose in (case.reference, cut)
  ]
  np.testing.assert_array_equal(
    openkbp_scores.dvh_errors_of(case, openkbp.STRUCTURES),
    np.abs(metrics[0] - metrics[1]),
  )


@pytest.mark.parametrize('grid', GRIDS)
def test_what_is_predicted_where_no_dose_is_possible(folder, grid):
  """It is not counted, wherever it is; half a Gy more elsewhere is."""
  case = case_of(folder, grid, 0.5)
  reached = np.count_nonzero(case.reference)
  error = openkbp_scores.dose_error(case)
  assert error == pytest.approx(
    0.5 * reached / case.possible_dose.sum(), rel=1e-4
  )
  if grid == GRIDS[0]:
    assert error == pytest.approx(0.5, rel=1e-4)
