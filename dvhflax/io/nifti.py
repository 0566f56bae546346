"""Reads patients from NIfTI: doses, and masks or a label map.

A folder with a `dose*.nii` or `dose*.nii.gz` is a patient, each dose in Gy a
plan. Beside them lie a mask a structure, named as the structure, or a label
map `labels.nii[.gz]` with `labels.json`, `{"rectum": 1, ...}`. Masks may be on
another grid than the doses and may hold volume fractions. A CT in HU may be
there, `ct.nii[.gz]`. NIfTI's axes point to right, anterior, superior; here they
are turned to DICOM's LPS. File names may be in decomposed Unicode, as macOS has
them.
"""

from collections import Counter
from collections.abc import Sequence
import dataclasses
import functools
import pathlib
import re
from typing import Any
import unicodedata

import nibabel
import numpy as np

from dvhflax import errors
from dvhflax.grid import Axes
from dvhflax.io import mask_values
from dvhflax.io import names as names_lib
from dvhflax.io.case import Case, Plan, numbered
from dvhflax.io.clutter import is_clutter
from dvhflax.io.import_report import Skipped
from dvhflax.io.resample import MOST_GY, Dose, Occupancy, Scan, clip_hu
from dvhflax.io.undershoot import without_undershoot

# 512 x 512 x 256; read and resampled it stays below 2 GB.
MOST_VOXELS = 2**26
_SUFFIX = re.compile(r'\.nii(\.gz)?$', re.IGNORECASE)
# Off-axis parts of a direction, relative to the voxel size.
_STRAIGHT = 1e-3
# Of a voxel from the origin, as in DICOM: no scanner is this large.
_FARTHEST_MM = 1e4


@dataclasses.dataclass(frozen=True)
class Found:
  """A patient's files, yet to be read.

  Attributes:
    id: unique among those found together.
    doses: a file a plan; may be empty.
    masks: a file a structure; empty where there is a label map.
    labels: the label map, None where there are masks.
    ct: the CT, None without.
  """

  id: str
  doses: Sequence[pathlib.Path]
  masks: Sequence[pathlib.Path]
  labels: pathlib.Path | None
  ct: pathlib.Path | None = None


def find_patients(
  root: str | pathlib.Path, *, dose_optional: bool = False
) -> tuple[list[Found], list[Skipped]]:
  """Folders with a dose, at any depth, in the order of their paths.

  Args:
    root: searched at any depth.
    dose_optional: find folders with structures and no dose as well.

  Returns:
    The patients, named by their path below `root`, and the folders that have
    images but lack a dose or structures.

  Raises:
    CohortError: if there is no such folder.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise errors.CohortError(
      f'there is no folder {root}: give the folder of the patients'
    )
  images = sorted(
    path
    for path in root.rglob('*')
    if _SUFFIX.search(path.name)
    and not is_clutter(path, root)
    and path.is_file()
  )
  found, skipped = [], []
  for folder in sorted({path.parent for path in images}):
    inside = [path for path in images if path.parent == folder]
    doses = [path for path in inside if _stem(path).startswith('dose')]
    labels = [path for path in inside if _stem(path) == 'labels']
    cts = [path for path in inside if _stem(path) == 'ct']
    masks = [path for path in inside if path not in doses + labels + cts]
    twice = _twice(doses + labels)
    if not doses and not dose_optional:
      skipped.append(Skipped(str(folder), 'has no dose*.nii or dose*.nii.gz'))
    elif bool(masks) == bool(labels):
      skipped.append(
        Skipped(str(folder), 'needs either masks or one labels.nii[.gz]')
      )
    elif len(cts) > 1:
      skipped.append(
        Skipped(str(folder), 'has more than one CT, ct.nii and ct.nii.gz')
      )
    elif twice:
      skipped.append(
        Skipped(str(folder), f'has {" and ".join(twice)}: keep one of them')
      )
    else:
      found.append(
        Found(
          '/'.join(folder.relative_to(root).parts) or root.resolve().name,
          doses,
          masks,
          labels[0] if labels else None,
          cts[0] if cts else None,
        )
      )
  return numbered(_short_ids(found)), skipped


def _twice(paths: Sequence[pathlib.Path]) -> list[str]:
  """Names of files that are there twice, compressed and not."""
  counts = Counter(map(_stem, paths))
  return [path.name for path in paths if counts[_stem(path)] > 1]


def _short_ids(found: Sequence[Found]) -> list[Found]:
  """Ids with hyphens for slashes, where that makes no two the same."""
  whole = [unicodedata.normalize('NFC', one.id) for one in found]
  short = [one.replace('/', '-') for one in whole]
  counts = Counter(short)
  return [
    dataclasses.replace(one, id=b if counts[b] == 1 else a)
    for one, a, b in zip(found, whole, short)
  ]


def read_patient(
  found: Found,
  structures: Sequence[str],
  rows: Sequence[tuple[str, str]] = (),
) -> Case:
  """Reads a patient's structures; its doses are read when asked for.

  Args:
    found: see `find_patients`.
    structures: names of the cohort's structures.
    rows: the user's table of names, see `names.read_table`.

  Raises:
    CohortError: for a faulty file, which it names.
  """
  if found.labels:
    values, axes, step = _read(found.labels)
    values = mask_values.whole_labels(values, step, found.labels)
    numbers = mask_values.read_names(found.labels.with_name('labels.json'))
    sources: list[Any] = [
      functools.partial(_of_label, values, number, axes)
      for number in numbers.values()
    ]
    names = [unicodedata.normalize('NFC', name) for name in numbers]
    marks = [f'label {number}' for number in numbers.values()]
  else:
    sources = [functools.partial(_read_mask, path) for path in found.masks]
    names = [_SUFFIX.sub('', _name(path)) for path in found.masks]
    marks = [_name(path) for path in found.masks]
  rows = [(name, unicodedata.normalize('NFC', row)) for name, row in rows]
  match = names_lib.match(names, structures, rows, marks)
  notes = names_lib.describe(match)
  occupancies = {}
  for name, index in match.chosen.items():
    occupancy = sources[index]()
    if occupancy is None:
      notes.append(f'{name} left out: {match.names[index]} is empty')
    else:
      occupancies[name] = occupancy
  return Case(
    id=found.id,
    occupancies=occupancies,
    plans=[
      Plan(path.name, [functools.partial(read_dose, path)])
      for path in found.doses
    ],
    notes=notes,
    provenance={
      'source': 'nifti',
      'names': {name: match.names[i] for name, i in match.chosen.items()},
    },
    ct=functools.partial(_read_ct, found.ct) if found.ct else None,
    names=match.names,
  )


def read_dose(path: pathlib.Path) -> Dose:
  """Reads a dose in Gy.

  Raises:
    CohortError: for a faulty file, or a dose more negative than interpolation
      can make it, see `without_undershoot`.
  """
  values, axes = read_image(path)
  values, notes = without_undershoot(values, path)
  if values.max() > MOST_GY:
    raise errors.CohortError(
      f'{path}: the maximum dose is {values.max():.4g} Gy: is it in cGy?'
    )
  return Dose(values, axes, notes)


def read_scan(path: pathlib.Path) -> Scan:
  """Reads a CT in HU.

  Raises:
    CohortError: for a faulty file, or one that is not in HU.
  """
  values, axes = read_image(path)
  if values.min() >= 0:
    raise errors.CohortError(
      f'{path} holds no value below 0, so no air: is it in HU, not shifted by '
      '1000 or 1024?'
    )
  return Scan(clip_hu(values), axes)


def _read_ct(path: pathlib.Path) -> tuple[Scan, list[str]]:
  return read_scan(path), []


def read_image(path: pathlib.Path) -> tuple[np.ndarray, Axes]:
  """Reads an image.

  Returns:
    `[X, Y, Z]` float32, and ascending voxel centres in mm, LPS.

  Raises:
    CohortError: for a file that is damaged, not three-dimensional, too
      large, oblique, of unknown orientation, not in mm, or holds values that
      are not finite.
  """
  values, axes, _ = _read(path)
  return values, axes


def _read(path: pathlib.Path) -> tuple[np.ndarray, Axes, float]:
  """As `read_image`, and the step of its scaling, 0 for a file without."""
  try:
    image: Any = nibabel.load(path)
    step = _step(image)
    shape = tuple(image.shape)
    unit = image.header.get_xyzt_units()[0]
    oriented = image.header['sform_code'] or image.header['qform_code']
  except Exception as error:
    # nibabel raises whatever the malformed bytes happen to lead to.
    raise _unreadable(path, error) from None
  if len(shape) < 3 or any(n != 1 for n in shape[3:]):
    raise errors.CohortError(f'{path} has shape {shape}; expected three axes')
  if min(shape[:3]) < 2:
    raise errors.CohortError(
      f'{path} has shape {shape}: each axis needs at least two voxels'
    )
  if np.prod(shape, dtype=np.float64) > MOST_VOXELS:
    raise errors.CohortError(f'{path} has shape {shape}: too many voxels')
  if unit not in ('mm', 'unknown'):
    raise errors.CohortError(f'{path} is in {unit}: save it in mm')
  if not oriented:
    raise errors.CohortError(
      f'{path}: its orientation is unknown: set its sform or qform'
    )
  _check_straight(image.affine, path)
  try:
    turned = nibabel.as_closest_canonical(image)
    values = np.asarray(turned.dataobj, np.float32).reshape(turned.shape[:3])
  except Exception as error:  # as above
    raise _unreadable(path, error) from None
  if not np.isfinite(values).all():
    raise errors.CohortError(
      f'{path} holds values that are not finite (NaN or infinite)'
    )
  steps, origin = np.diag(turned.affine)[:3], turned.affine[:3, 3]
  right, anterior, superior = (
    start + step * np.arange(n)
    for start, step, n in zip(origin, steps, values.shape)
  )
  if max(np.abs(axis).max() for axis in (right, anterior, superior)) > (
    _FARTHEST_MM
  ):
    raise errors.CohortError(
      f'{path}: a voxel lies more than {_FARTHEST_MM:.0f} mm from the origin: '
      'is its affine in mm?'
    )
  axes = (-right[::-1], -anterior[::-1], superior)
  return values[::-1, ::-1], axes, step


def _step(image: Any) -> float:
  """Between two values that a file of scaled whole numbers can hold."""
  slope = getattr(image.dataobj, 'slope', 1)
  scaled = slope != 1 or getattr(image.dataobj, 'inter', 0) != 0
  whole = image.get_data_dtype().kind in 'iu'
  return abs(float(slope)) if scaled and whole else 0.0


def _check_straight(affine: np.ndarray, path: pathlib.Path) -> None:
  """Raises a CohortError unless the axes are those of the patient."""
  if not np.isfinite(affine).all():
    raise errors.CohortError(f'{path}: its affine is not finite')
  directions = np.abs(affine[:3, :3])
  sizes = directions.max(0)
  if sizes.min() <= 1e-3:
    raise errors.CohortError(f'{path}: a voxel size is not positive')
  straight = np.sort(directions / sizes, axis=0)[:2].max() < _STRAIGHT
  one_each = np.unique(directions.argmax(0)).size == 3
  if not (straight and one_each):
    raise errors.CohortError(
      f'{path} is oblique: resample it to axes along the patient'
    )


def _read_mask(path: pathlib.Path) -> Occupancy | None:
  values, axes, step = _read(path)
  return _occupancy(mask_values.mask_fractions(values, step, path), axes)


def _of_label(values: np.ndarray, number: int, axes: Axes) -> Occupancy | None:
  return _occupancy(values == number, axes)


def _occupancy(values: np.ndarray, axes: Axes) -> Occupancy | None:
  """The structure of a mask, cut to where it is; None if it is empty."""
  bounds = []
  for axis in range(3):
    others = tuple({0, 1, 2} - {axis})
    occupied = np.flatnonzero(values.any(others))
    if not occupied.size:
      return None
    bounds.append(slice(occupied[0], occupied[-1] + 1))
  x, y, z = (_edges(centres) for centres in axes)
  return Occupancy(
    values[tuple(bounds)].astype(np.float32),
    (x[:-1][bounds[0]], y[:-1][bounds[1]], z[:-1][bounds[2]]),
    (x[1:][bounds[0]], y[1:][bounds[1]], z[1:][bounds[2]]),
  )


def _edges(centres: np.ndarray) -> np.ndarray:
  """`[N + 1]` bounds of evenly spaced voxels."""
  step = centres[1] - centres[0]
  return centres[0] + step * (np.arange(len(centres) + 1) - 0.5)


def _name(path: pathlib.Path) -> str:
  """A file's name, composed, whichever way the file system has it."""
  return unicodedata.normalize('NFC', path.name)


def _stem(path: pathlib.Path) -> str:
  return _SUFFIX.sub('', _name(path)).lower()


def _unreadable(path: pathlib.Path, error: Exception) -> errors.CohortError:
  reason = (str(error).splitlines() or [''])[0][:120]
  return errors.CohortError(
    f'{path} cannot be read as NIfTI: {type(error).__name__} {reason}'.strip()
  )
