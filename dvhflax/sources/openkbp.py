"""A cohort's patients from the files of the OpenKBP challenge."""

import functools
import os
import pathlib
import sys
from typing import Any

import ml_collections
import tqdm

from dvhflax import errors
from dvhflax.io import import_report, openkbp
from dvhflax.patient import Patient
from dvhflax.sources.engines import HERE, Engine
from dvhflax.sources.kept import Kept
from dvhflax.sources.splits import split_patients


class OpenKBP:
  """The patients below `cohort.raw` that can be read, clinical plans theirs.

  As in `Imported`, all are read to see which can be, and the report is written,
  before any is stored.

  Attributes:
    ids: `pt_N`, in the order of N.
    splits: of each; see `split_patients`.
    provenance: of the cohort.
  """

  structures = openkbp.STRUCTURES
  max_plans = 1

  def __init__(
    self,
    cohort: ml_collections.ConfigDict,
    shard: tuple[int, int] = (0, 1),
    engine: Engine = HERE,
  ):
    """Finds the patients and writes the report beside `cohort.path`.

    Args:
      cohort: `config.cohort`, see `config.py`.
      shard: (i, n), patients i, i + n, i + 2n, ... will be asked for.
      engine: maps over the patients to see which can be.

    Raises:
      ConfigError: for a key that is missing or impossible.
      CohortError: if no patient can be read.
    """
    if not cohort.raw:
      raise errors.ConfigError(
        'cohort.raw is not set: give the folder of the OpenKBP CSV files, '
        '--config.cohort.raw=.../provided-data'
      )
    path = os.path.normpath(cohort.path)
    self._options = {'grid': tuple(cohort.grid), 'ct': cohort.ct}
    self._kept = Kept(os.path.dirname(path) or '.')
    folders, skipped = openkbp.find_patients(cohort.raw)
    check = functools.partial(_checked, self._options, here=engine.here)
    results = {}
    kept = 0
    for place, result in tqdm.tqdm(
      engine.map(check, None, folders),
      f'checking {cohort.raw}',
      len(folders),
      unit='patient',
      file=sys.stderr,
    ):
      if isinstance(result, Patient):
        if kept % shard[1] == shard[0]:
          self._kept.keep(result)
        kept += 1
        result = _entry(result)
      results[place] = result
    entries: list[dict[str, Any]] = []
    usable = []
    for place, folder in enumerate(folders):
      result = results[place]
      if isinstance(result, errors.UserError):
        skipped.append(
          import_report.Skipped(f'patient {folder.name}', str(result))
        )
        continue
      entries.append(result)
      usable.append(place)
    self._folders = [folders[place] for place in usable]
    import_report.write_report(path, entries, skipped)
    if not entries:
      raise errors.CohortError(
        f'{cohort.raw} has no patient that can be imported: {skipped[0].what}: '
        f'{skipped[0].why}; {path}.import.txt has the others'
      )
    if skipped:
      print(
        f'{len(entries)} patients can be imported; skipped: {len(skipped)}, '
        f'see {path}.import.txt',
        file=sys.stderr,
      )
    self.ids = [folder.name for folder in self._folders]
    held_out = cohort.validation_patients + cohort.test_patients
    if held_out >= len(self.ids):
      raise errors.ConfigError(
        f'{len(self.ids)} patients leave no training patients after '
        f'{held_out} for cohort.validation_patients and cohort.test_patients'
      )
    self.splits = split_patients(
      len(folders),
      cohort.validation_patients,
      cohort.test_patients,
      cohort.seed,
      usable,
    )
    self.provenance = {'source': 'openkbp', 'patients': len(self.ids)}

  def read(self, index: int) -> Patient:
    """The patient of `ids[index]`."""
    kept = self._kept.take(self.ids[index])
    if kept is not None:
      return kept
    return openkbp.read_patient(self._folders[index], **self._options)


def _checked(
  options: dict[str, Any], folder: pathlib.Path, *, here: bool
) -> Patient | dict[str, Any]:
  """A patient; from elsewhere its entry, as the patient is not to travel."""
  patient = openkbp.read_patient(folder, **options)
  return patient if here else _entry(patient)


def _entry(patient: Patient) -> dict[str, Any]:
  """A patient's entry in the report."""
  return {
    'id': patient.id,
    'plans': [
      {
        'label': 'dose.csv',
        'reference_gy': float(patient.reference_gy[0]),
        'prescription_from': 'challenge',
      }
    ],
    'notes': list(patient.provenance.get('notes', ())),
    'structures': {},
  }
