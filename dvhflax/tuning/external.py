"""Patients from outside of a cohort, from DICOM-RT or NIfTI, to predict for.

They come onto the cohort's grid, with its structures and its table of names,
as if they were imported into it; but they need no dose.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.io import importing
from dvhflax.io import names as names_lib
from dvhflax.io.formats import open_folder
from dvhflax.patient import Patient


class ExternalPatients:
  """The patients below a folder.

  Attributes:
    skipped: what belongs to none of them.
    needed: structures that every training patient has.
    named: by id, the names in the files of those who were read or refused, and
      which of them stands for which structure.
  """

  def __init__(
    self,
    source: str,
    folder: str,
    cohort: Cohort,
    *,
    prescription_gy: float | None = None,
    names: str | None = None,
    ct: bool = False,
  ):
    """Finds the patients.

    Args:
      source: one of `io.formats.FORMATS`.
      folder: searched at any depth.
      cohort: of the training.
      prescription_gy: of patients whose RTPLAN is missing; None: that
        of the training, if all its patients had the same.
      names: JSON file of patterns that come before the training's, see
        `io.names.read_table`.
      ct: whether to read the CT, onto the cohort's grid, where there is one.

    Raises:
      ConfigError: for another source, an impossible prescription or table, or
        a library that is not installed.
      CohortError: if there is no such folder, or no patient in it.
    """
    if source not in ('dicom', 'nifti'):
      raise errors.ConfigError(f'source {source!r}: use dicom or nifti')
    if prescription_gy is not None and not prescription_gy > 0:
      raise errors.ConfigError(
        f'a prescription of {prescription_gy} Gy: it must be positive'
      )
    wanted = [s.name for s in cohort.structures]
    provenance = _of_import(cohort.metadata.provenance)
    rows: list[tuple[str, str]] = [*names_lib.read_table(names, wanted)]
    rows += [(name, pattern) for name, pattern in provenance.get('names', [])]
    found, self._read_case, self.skipped = open_folder(
      source,
      folder,
      wanted,
      rows,
      {**provenance, 'contour_ends': contour_ends(provenance)},
      dose_optional=True,
    )
    if not found:
      reasons = '; '.join(f'{one.what}: {one.why}' for one in self.skipped)
      raise errors.CohortError(
        f'{folder} has no patient to predict for: {reasons or "it is empty"}'
      )
    self._found = found
    x_mm, y_mm, z_mm = np.median(
      [p.spacing_mm for p in cohort.patients], axis=0
    ).tolist()
    # Where plans were computed here, prescribed was what their protocol says,
    # whatever was imported.
    if 'protocol' not in cohort.metadata.provenance:
      prescription_gy = prescription_gy or provenance.get('prescription_gy')
    self._settings = importing.Settings(
      cohort.structures,
      cohort.grid,
      (x_mm, y_mm, z_mm),
      prescription_gy,
      ct,
      usual_gy=_common([p.prescription_gy for p in cohort.patients]),
    )
    self._always = cohort.present[cohort.split('train')].all(0)
    self.needed = [name for name, need in zip(wanted, self._always) if need]
    self.named: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {}

  @property
  def ids(self) -> list[str]:
    """Of the patients, in the order of their files."""
    return list(self._found)

  def read(self, patient: str) -> tuple[Patient, dict[str, Any]]:
    """Reads a patient.

    Args:
      patient: one of `ids`.

    Returns:
      The patient, who has the plans that came along, if any; and the report's
      entry, see `importing.assemble`.

    Raises:
      CohortError: for a patient who cannot be read, has no prescription, or
        lacks a structure that all training patients have.
    """
    if patient not in self._found:
      raise errors.CohortError(
        f'there is no patient {patient!r} to predict for; there are '
        f'{", ".join(self._found)}'
      )
    case = self._read_case(self._found[patient])
    self.named[patient] = case.names, case.provenance.get('names', {})
    read, entry = importing.assemble(case, self._settings, dose_optional=True)
    lacking = [
      structure.name
      for structure, always, has in zip(
        self._settings.structures, self._always, read.present
      )
      if always and not has
    ]
    if lacking:
      raise errors.CohortError(
        f'patient {patient} lacks {", ".join(lacking)}, which every training '
        'patient has: contour it, or map its name in a table (--names); '
        f'{"; ".join(case.notes)}'
      )
    return read, entry


def _of_import(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
  """That of the cohort whose patients were imported, however often planned."""
  while isinstance(provenance.get('from'), dict):
    provenance = provenance['from']
  return provenance


def contour_ends(provenance: Mapping[str, Any]) -> str:
  """How contours of DICOM are read, as those of the cohort were."""
  provenance = _of_import(provenance)
  # Those that do not tell are older than the choice.
  older = 'half_slice' if provenance.get('source') == 'dicom' else 'rounded'
  return provenance.get('contour_ends', older)


def _common(values: Sequence[float]) -> float | None:
  """The value that all are, None if they differ."""
  return values[0] if np.ptp(values) < 1e-3 * values[0] else None
