"""A cohort's patients from the files of one of the import formats."""

from collections.abc import Callable, Sequence
import dataclasses
import os
import sys
from typing import Any

import ml_collections
import tqdm

from dvhflax import errors
from dvhflax.io import import_report, importing, names
from dvhflax.io.formats import FORMATS, open_folder
from dvhflax.patient import Patient, Structure
from dvhflax.sources.engines import HERE, Engine
from dvhflax.sources.kept import Kept


class Imported:
  """The patients below `cohort.raw` that can be imported.

  One that cannot must not stop the others, and a cohort must know its
  patients from the start. So all are imported to see which can be, and the
  report is written, before any is stored. On disk they wait for that.
  """

  def __init__(
    self,
    cohort: ml_collections.ConfigDict,
    to_plan_gy: float | None = None,
    shard: tuple[int, int] = (0, 1),
    engine: Engine = HERE,
  ):
    """Finds the patients and writes the report beside `cohort.path`.

    Args:
      cohort: `config.cohort`, see `config.py`.
      to_plan_gy: the prescription of those who are planned next and need no
        dose; None: patients without one are skipped.
      shard: (i, n), patients i, i + n, i + 2n, ... will be asked for.
      engine: maps over the patients to see which can be.

    Raises:
      ConfigError: for a key that is missing or impossible, or a library that
        is not installed.
      CohortError: if no patient can be imported.
    """
    if not cohort.raw:
      raise errors.ConfigError(
        'cohort.raw is not set: give the folder of the patients, '
        '--config.cohort.raw=FOLDER'
      )
    self.structures = tuple(map(Structure.from_name, cohort.structures))
    x_mm, y_mm, z_mm = map(float, cohort.spacing_mm)
    self._settings = importing.Settings(
      self.structures,
      tuple(cohort.grid),
      (x_mm, y_mm, z_mm),
      cohort.prescription_gy or to_plan_gy,
      cohort.ct,
    )
    self._dose_optional = to_plan_gy is not None
    rows = names.read_table(cohort.names, cohort.structures)
    _refuse_foreign(cohort)
    path = os.path.normpath(cohort.path)
    self._kept = Kept(os.path.dirname(path) or '.')
    self._found, self._read_case, skipped = open_folder(
      cohort.source,
      cohort.raw,
      cohort.structures,
      rows,
      cohort,
      dose_optional=self._dose_optional,
    )
    entries = self._survey(cohort.raw, shard, skipped, engine)
    import_report.write_report(path, entries, skipped)
    if not entries:
      raise errors.CohortError(
        f'{cohort.raw} has no patient that can be imported; '
        f'{path}.import.txt says why'
      )
    _warn_of_phases(entries, path)
    print(
      f'{len(entries)} patients can be imported; skipped: {len(skipped)}, see '
      f'{path}.import.txt',
      file=sys.stderr,
    )
    self.ids = [entry['id'] for entry in entries]
    self.max_plans = max(len(entry['plans']) for entry in entries)
    self.provenance = {
      'source': cohort.source,
      'patients': len(entries),
      'spacing_mm': list(cohort.spacing_mm),
      'prescription_gy': cohort.prescription_gy,
      **{
        key: cohort[key]
        for one in FORMATS.values()
        for key in (*one.reading, *one.finding)
      },
      'names': [list(row) for row in rows],
    }

  def read(self, index: int) -> Patient:
    """Imports the patient of `ids[index]`."""
    kept = self._kept.take(self.ids[index])
    if kept is not None:
      return kept
    return self._assemble(self._found[self.ids[index]])[0]

  def _assemble(self, found: Any) -> tuple[Patient, dict[str, Any]]:
    """A patient and its entry in the report."""
    return importing.assemble(
      self._read_case(found), self._settings, dose_optional=self._dose_optional
    )

  def _survey(
    self,
    raw: str,
    shard: tuple[int, int],
    skipped: list[import_report.Skipped],
    engine: Engine,
  ) -> list[dict[str, Any]]:
    """Report entries of the patients that can be; adds the others."""
    check = self._assemble if engine.here else _Entry(self._assemble)
    results = {}
    kept = 0
    for place, result in tqdm.tqdm(
      engine.map(check, None, list(self._found.values())),
      f'checking {raw}',
      len(self._found),
      unit='patient',
      file=sys.stderr,
    ):
      if isinstance(result, tuple):
        patient, result = result
        if kept % shard[1] == shard[0]:
          self._kept.keep(patient)
        kept += 1
      results[place] = result
    entries: list[dict[str, Any]] = []
    for place, name in enumerate(self._found):
      result = results[place]
      if isinstance(result, errors.UserError):
        skipped.append(import_report.Skipped(f'patient {name}', str(result)))
      else:
        entries.append(result)
    return entries


@dataclasses.dataclass(frozen=True)
class _Entry:
  """A patient's entry without the patient, who is not to travel."""

  assemble: Callable[[Any], tuple[Patient, dict[str, Any]]]

  def __call__(self, found: Any) -> dict[str, Any]:
    return self.assemble(found)[1]


def _refuse_foreign(cohort: ml_collections.ConfigDict) -> None:
  """Raises a ConfigError for a switch that only another format has."""
  own = FORMATS[cohort.source]
  for name, one in FORMATS.items():
    for key in (*one.finding, *one.reading):
      if cohort[key] is True and key not in (*own.finding, *own.reading):
        raise errors.ConfigError(
          f'cohort.{key}=True is for {name} files, but cohort.source is '
          f'{cohort.source}: set it to False'
        )


def _warn_of_phases(entries: Sequence[dict[str, Any]], path: str) -> None:
  """Names patients whose plans differ in prescription, as phases do."""
  suspects = []
  for entry in entries:
    told = [
      plan['reference_gy']
      for plan in entry['plans']
      if plan['prescription_from'] == 'plan'
    ]
    if told and max(told) > 1.001 * min(told):
      suspects.append(entry['id'])
  if suspects:
    more = f' and {len(suspects) - 3} more' if len(suspects) > 3 else ''
    print(
      f'warning: plans of {", ".join(suspects[:3])}{more} differ in '
      'prescription: the phases of a course are no Pareto set, see '
      f'{path}.import.txt',
      file=sys.stderr,
    )
