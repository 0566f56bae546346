"""Reads patients of the OpenKBP challenge (Babier et al. 2021, Med Phys).

A patient is a folder of CSV files on a grid of 128^3 voxels, C-order flat
indices in the first column. Array axes there run anterior to posterior, right
to left, superior to inferior; here they are turned to x to the patient's
left, y to posterior, z to superior.

`ct.csv` holds HU + 1000, without the voxels of 0. No document of the challenge
says so; the values do: in airways they are 5 to 30, in fluid 1010 to 1020, in
brain 1030 to 1040, in muscle 1055 to 1070, and 0 outside of the patient.
"""

from collections.abc import Sequence
import pathlib
import re

import numpy as np

from dvhflax import errors
from dvhflax.io.clutter import is_clutter
from dvhflax.io.import_report import Skipped
from dvhflax.io.plan_doses import LEAST_RATIO
from dvhflax.io.resample import MOST_GY, clip_hu
from dvhflax.io.undershoot import without_undershoot
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Patient, Structure, occupied
from dvhflax.sites import HEAD_AND_NECK

SOURCE_GRID = (128, 128, 128)
PRESCRIPTION_GY = 70.0
# HU of a value 0 in `ct.csv`, and what 12 bits hold.
CT_OFFSET_HU = -1000
_MOST_CT = 4095
# Of a voxel.
_MOST_MM = 100.0

# The challenge has no body contour: dose is possible within this mask only.
POSSIBLE_DOSE = Structure('PossibleDose', 'body')
STRUCTURES = (
  POSSIBLE_DOSE,
  *(s for s in HEAD_AND_NECK.structures if s.role != 'body'),
)


def find_patients(
  root: str | pathlib.Path,
) -> tuple[list[pathlib.Path], list[Skipped]]:
  """Folders `pt_N` at any depth below `root`, in the order of N.

  Returns:
    The folders, and those left out because several have the same name.

  Raises:
    CohortError: if there is no such folder.
  """
  root = pathlib.Path(root)
  folders: dict[str, list[pathlib.Path]] = {}
  for folder in sorted(root.rglob('pt_*')):
    if (
      re.fullmatch(r'pt_[0-9]+', folder.name)
      and not is_clutter(folder, root)
      and folder.is_dir()
    ):
      folders.setdefault(folder.name, []).append(folder)
  if not folders:
    raise errors.CohortError(
      f'{root} holds no folder pt_N: give the unpacked archive of the challenge'
    )
  found, skipped = [], []
  for name in sorted(folders, key=lambda name: (int(name[3:]), name)):
    if len(folders[name]) == 1:
      found += folders[name]
      continue
    places = ', '.join(str(folder) for folder in folders[name][:3])
    skipped.append(
      Skipped(
        f'patient {name}',
        f'there are {len(folders[name])} folders of that name: keep one of '
        f'{places}',
      )
    )
  return found, skipped


def read_patient(
  folder: pathlib.Path,
  *,
  grid: Sequence[int] = SOURCE_GRID,
  ct: bool = False,
) -> Patient:
  """Reads a patient.

  Args:
    folder: with `dose.csv`, `possible_dose_mask.csv`, `voxel_dimensions.csv`
      and a CSV a structure; `ct.csv` may be missing.
    grid: 128^3, or fewer voxels by a whole factor: doses are averaged over
      blocks, masks hold the blocks that a structure fills by half.
    ct: read the CT, if it is there; averaged over blocks too.

  Returns:
    The patient with its one clinical plan, in fractions of 70 Gy.

  Raises:
    ConfigError: for a grid that does not divide 128^3.
    CohortError: for a missing or faulty file, which it names.
  """
  grid = tuple(grid)
  if len(grid) != 3 or any(n < 1 or 128 % n for n in grid):
    raise errors.ConfigError(
      f'cohort.grid={grid}: each axis must divide 128, the voxels of OpenKBP'
    )
  factors = tuple(128 // n for n in grid)
  dose, notes = _read_dose(folder / 'dose.csv')
  fractions = []
  for structure in STRUCTURES:
    if structure is POSSIBLE_DOSE:
      mask = _read_mask(folder / 'possible_dose_mask.csv')
    elif (folder / f'{structure.name}.csv').exists():
      mask = _read_mask(folder / f'{structure.name}.csv')
    else:
      mask = np.zeros(SOURCE_GRID, np.float32)
    fractions.append(_block_mean(_turned(mask), factors))
  masks = _to_masks(np.stack(fractions, -1))
  present = occupied(masks)
  targets = [i for i, s in enumerate(STRUCTURES) if s.role == 'target']
  if not present[targets].any():
    raise errors.CohortError(f'{folder} has none of PTV56, PTV63, PTV70')
  if not present[0]:
    raise errors.CohortError(f'{folder / "possible_dose_mask.csv"} is empty')
  return Patient(
    id=folder.name,
    masks=masks,
    present=present,
    spacing_mm=_spacing(folder / 'voxel_dimensions.csv', factors),
    dose=DoseReference.of_prescription(PRESCRIPTION_GY).to_fraction(
      _block_mean(dose, factors)[None]
    ),
    reference_gy=np.array([PRESCRIPTION_GY]),
    prescription_gy=PRESCRIPTION_GY,
    plan_weights=np.zeros((1, 0)),
    provenance={
      'source': 'openkbp',
      'folder': folder.parent.name,
      **({'notes': list(notes)} if notes else {}),
    },
    ct_hu=_read_ct(folder / 'ct.csv', factors) if ct else None,
  )


def _read_columns(path: pathlib.Path) -> tuple[np.ndarray, list[bytes]]:
  """Indices of the first column, and the second column as text."""
  try:
    lines = path.read_bytes().split()
  except OSError as error:
    raise _unreadable(path, error) from None
  cells = b','.join(lines[1:]).split(b',') if len(lines) > 1 else []
  try:
    # The index may be written as a float, as pandas does.
    index = np.array(cells[::2], dtype='S').astype(np.float64)
  except ValueError:
    raise errors.CohortError(
      f'{path}: the first column must hold numbers only'
    ) from None
  if len(cells) != 2 * (len(lines) - 1) and lines:
    raise errors.CohortError(f'{path}: every line needs two columns')
  voxels = np.prod(SOURCE_GRID)
  if not ((index >= 0) & (index < voxels) & (index == np.rint(index))).all():
    raise errors.CohortError(f'{path}: an index lies outside of 128^3 voxels')
  return index.astype(np.int64), cells[1::2]


def _unreadable(path: pathlib.Path, error: OSError) -> errors.CohortError:
  if isinstance(error, FileNotFoundError):
    return errors.CohortError(f'{path} is missing')
  return errors.CohortError(f'{path} cannot be read: {error.strerror}')


def _read_dose(path: pathlib.Path) -> tuple[np.ndarray, tuple[str, ...]]:
  """`[X, Y, Z]` Gy, and notes on it."""
  dose, notes = without_undershoot(_turned(_read_values(path)), path)
  if dose.max() > MOST_GY:
    raise errors.CohortError(
      f'{path}: the maximum dose is {dose.max():.4g} Gy: is it in cGy?'
    )
  if dose.max() <= LEAST_RATIO * PRESCRIPTION_GY:
    raise errors.CohortError(
      f'{path}: the maximum dose is {dose.max():.3g} Gy, of a prescription of '
      f'{PRESCRIPTION_GY:g} Gy: is it in Gy?'
    )
  return dose, notes


def _read_mask(path: pathlib.Path) -> np.ndarray:
  index, _ = _read_columns(path)
  mask = np.zeros(np.prod(SOURCE_GRID), np.float32)
  mask[index] = 1
  return mask.reshape(SOURCE_GRID)


def _read_values(path: pathlib.Path) -> np.ndarray:
  index, cells = _read_columns(path)
  try:
    values = np.array(cells, dtype='S').astype(np.float32)
  except ValueError:
    raise errors.CohortError(
      f'{path}: the second column must hold numbers only'
    ) from None
  if not len(values) or not np.isfinite(values).all():
    raise errors.CohortError(f'{path}: a value is missing or not finite')
  once = np.zeros(np.prod(SOURCE_GRID), bool)
  once[index] = True
  if np.count_nonzero(once) != len(index):
    raise errors.CohortError(f'{path}: a voxel has more than one value')
  dense = np.zeros(np.prod(SOURCE_GRID), np.float32)
  dense[index] = values
  return dense.reshape(SOURCE_GRID)


def _read_ct(path: pathlib.Path, factors: tuple[int, ...]) -> np.ndarray | None:
  """`[X, Y, Z]` int16 HU; None if there is no such file."""
  if not path.exists():
    return None
  values = _read_values(path)
  if values.min() < 0 or values.max() > _MOST_CT:
    raise errors.CohortError(
      f'{path}: values from {values.min():g} to {values.max():g}; expected '
      f'0 to {_MOST_CT} (HU + 1000)'
    )
  return clip_hu(_block_mean(_turned(values), factors) + CT_OFFSET_HU)


def _turned(array: np.ndarray) -> np.ndarray:
  """(posterior, left, inferior) axes to (left, posterior, superior)."""
  return array.transpose(1, 0, 2)[:, :, ::-1]


def _spacing(
  path: pathlib.Path, factors: tuple[int, ...]
) -> tuple[float, float, float]:
  try:
    values = [float(word) for word in path.read_text().split()]
  except OSError as error:
    raise _unreadable(path, error) from None
  except ValueError:
    values = []
  if len(values) != 3 or not all(0 < v <= _MOST_MM for v in values):
    raise errors.CohortError(
      f'{path} must hold three positive lengths in mm, of at most '
      f'{_MOST_MM:g} mm'
    )
  y, x, z = values
  return (x * factors[0], y * factors[1], z * factors[2])


def _block_mean(array: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
  if factors == (1, 1, 1):
    return np.ascontiguousarray(array)
  (nx, ny, nz), (fx, fy, fz) = array.shape, factors
  blocks = array.reshape(nx // fx, fx, ny // fy, fy, nz // fz, fz)
  return blocks.mean((1, 3, 5))


def _to_masks(fractions: np.ndarray) -> np.ndarray:
  """`[X, Y, Z, S]` volume fractions to masks; targets do not overlap."""
  targets = [i for i, s in enumerate(STRUCTURES) if s.role == 'target']
  most = fractions.max((0, 1, 2))
  # A structure too thin to fill half a voxel keeps its fullest ones.
  threshold = np.where(most >= 0.5, 0.5, np.maximum(most / 2, 1e-6))
  masks = fractions >= threshold
  share = fractions[..., targets]
  # On a tie the last target, of the highest prescription, has the voxel.
  fullest = share.shape[-1] - 1 - share[..., ::-1].argmax(-1)
  for place, channel in enumerate(targets):
    masks[..., channel] &= fullest == place
  return masks.astype(np.uint8)
