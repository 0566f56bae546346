"""Imported patients on disk, until they are written to a cohort."""

import contextlib
import os
import pickle
import tempfile
from typing import BinaryIO
import weakref

from dvhflax.patient import Patient


class Kept:
  """Patients on disk, in a file without a name: it goes with its process."""

  def __init__(self, folder: str):
    """Args: folder: of the disk; it is made if missing."""
    os.makedirs(folder, exist_ok=True)
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    weakref.finalize(self, file.close)
    self._file: BinaryIO | None = file
    self._places: dict[str, int] = {}

  def __getstate__(self) -> dict[str, object]:
    """Elsewhere nothing is kept."""
    return {'_file': None, '_places': {}}

  def keep(self, patient: Patient) -> None:
    """Keeps a patient; none at all, if the disk is too small for them."""
    if self._file is None:
      return
    try:
      place = self._file.seek(0, os.SEEK_END)
      pickle.dump(patient, self._file, pickle.HIGHEST_PROTOCOL)
      self._file.flush()
      self._places[patient.id] = place
    except OSError:
      self._places.clear()
      with contextlib.suppress(OSError):
        self._file.close()
      self._file = None

  def take(self, patient: str) -> Patient | None:
    """The patient of an id, if it is kept."""
    if self._file is None or patient not in self._places:
      return None
    self._file.seek(self._places[patient])
    return pickle.load(self._file)
