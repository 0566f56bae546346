"""The formats that patients are imported from, each a module of its own.

A new one is a module with `find_patients` and `read_patient`, as `nifti.py` has
them, and a line in `FORMATS`; its name then is a value of `cohort.source`.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import importlib
from typing import Any

from dvhflax import errors
from dvhflax.io.case import Case
from dvhflax.io.import_report import Skipped


@dataclasses.dataclass(frozen=True)
class Format:
  """How patients of a format are found and read.

  Attributes:
    module: its name; imported when it is needed. It has
      `find_patients(folder, *, dose_optional, **finding)`, which returns the
      patients, each with an `id`, and a list of `Skipped`; and
      `read_patient(found, structures, rows, **reading)`, which returns a
      `Case`, see `open_folder`.
    finding, reading: keys of `config.cohort` that these two take.
  """

  module: str
  finding: tuple[str, ...] = ()
  reading: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {
  'dicom': Format(
    'dvhflax.io.dicom.reader',
    finding=('sum_beams', 'sum_fractions', 'sum_plans'),
    reading=('contour_ends',),
  ),
  'nifti': Format('dvhflax.io.nifti'),
}


def open_folder(
  source: str,
  folder: str,
  structures: Sequence[str],
  rows: Sequence[tuple[str, str]],
  options: Mapping[str, Any],
  *,
  dose_optional: bool = False,
) -> tuple[dict[str, Any], Callable[[Any], Case], list[Skipped]]:
  """Finds the patients of a folder.

  Args:
    source: one of `FORMATS`.
    folder: searched at any depth.
    structures: names of the cohort's structures.
    rows: the user's table of names, see `names.read_table`.
    options: `config.cohort`, or the provenance of a cohort; what it lacks has
      its default.
    dose_optional: find patients without a dose as well.

  Returns:
    What was found by id, the function that reads one of these, and what was
    skipped.

  Raises:
    ConfigError: if the library for these files is not installed.
    CohortError: if there is no such folder.
  """
  known = FORMATS[source]
  try:
    library = importlib.import_module(known.module)
  except ModuleNotFoundError as error:
    raise errors.ConfigError(
      f'{source} files need {error.name}: pip install {error.name}'
    ) from None

  def chosen(keys: Sequence[str]) -> dict[str, Any]:
    return {key: options[key] for key in keys if options.get(key) is not None}

  found, skipped = library.find_patients(
    folder, dose_optional=dose_optional, **chosen(known.finding)
  )
  read = functools.partial(
    library.read_patient,
    structures=structures,
    rows=rows,
    **chosen(known.reading),
  )
  return {one.id: one for one in found}, read, skipped
