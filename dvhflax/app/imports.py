"""Patients of uploads: read onto the cohort's grid as an import reads them."""

from collections import OrderedDict
from collections.abc import Iterator
import contextlib
import dataclasses
import threading

from dvhflax import errors, files
from dvhflax.app import messages
from dvhflax.app.patients import Entry
from dvhflax.app.upload_files import Found, Upload
from dvhflax.cohort.store import Cohort
from dvhflax.io import import_report
from dvhflax.patient import Patient
from dvhflax.tuning.external import ExternalPatients

# Patients that are kept in memory; others are read again.
_MOST_KEPT = 4


@dataclasses.dataclass(frozen=True)
class Imported:
  """What became of an upload.

  Attributes:
    report: for people.
    patients: that can be tuned for.
    failed: why others cannot.
  """

  report: str
  patients: list[Entry]
  failed: list[str]


class Imports:
  """Reads the patients of uploads, one at a time."""

  def __init__(self, cohort: Cohort):
    """For the network of a cohort."""
    self._cohort = cohort
    self._readers: dict[str, ExternalPatients] = {}
    self._kept: OrderedDict[str, Patient] = OrderedDict()
    self._reading = threading.Lock()

  def read_all(self, upload: Upload, asked: messages.Import) -> Imported:
    """Imports an upload, and keeps in its record what was found.

    Raises:
      UserError: if there is no patient in it.
    """
    with self._reading:
      upload.names.unlink(missing_ok=True)
      if asked.names:
        files.write_json(upload.names, asked.names)
      upload.record.prescription_gy = asked.prescription_gy
      self.forget(upload)
      entries, found, failed = [], [], []
      with _without_folder(upload):
        reader = self._reader(upload)
      for one in reader.ids:
        try:
          patient, entry = reader.read(one)
        except errors.UserError as error:
          failed.append(_plain(upload, error))
          found.append(Found(one, None, 0, failed[-1]))
          continue
        entries.append(entry)
        found.append(Found(one, patient.prescription_gy, len(patient.dose)))
        self._keep(f'{upload.key}-{len(found) - 1}', patient)
      upload.record.patients = found
      upload.save()
      report = import_report.report_text(entries, reader.skipped)
      listed = [e for e in entries_of(upload) if e.faults is None]
      return Imported(_plain(upload, report), listed, failed)

  def patient(self, upload: Upload, entry: Entry) -> Patient:
    """Reads a patient, unless it is in memory.

    Raises:
      UserError: if it cannot be read any more.
    """
    with self._reading:
      patient = self._kept.pop(entry.key, None)
      if patient is None:
        with _without_folder(upload):
          patient, _ = self._reader(upload).read(entry.id)
      self._keep(entry.key, patient)
      return patient

  def forget(self, upload: Upload) -> None:
    """Drops what is in memory of an upload."""
    self._readers.pop(upload.key, None)
    for key in [k for k in self._kept if k.startswith(f'{upload.key}-')]:
      del self._kept[key]

  def _reader(self, upload: Upload) -> ExternalPatients:
    if upload.key not in self._readers:
      self._readers[upload.key] = ExternalPatients(
        upload.record.kind,
        str(upload.files),
        self._cohort,
        prescription_gy=upload.record.prescription_gy,
        names=str(upload.names) if upload.names.exists() else None,
        ct=True,
      )
    return self._readers[upload.key]

  def _keep(self, key: str, patient: Patient) -> None:
    self._kept[key] = patient
    while len(self._kept) > _MOST_KEPT:
      self._kept.popitem(last=False)


def entries_of(upload: Upload) -> list[Entry]:
  """The patients that an upload is known to have."""
  return [
    Entry(
      f'{upload.key}-{n}',
      one.id,
      'upload',
      one.prescription_gy,
      one.plans,
      one.faults,
      upload.key,
    )
    for n, one in enumerate(upload.record.patients)
  ]


@contextlib.contextmanager
def _without_folder(upload: Upload) -> Iterator[None]:
  """Leaves the folder of an upload out of errors."""
  try:
    yield
  except errors.UserError as error:
    raise errors.UserError(_plain(upload, error)) from None


def _plain(upload: Upload, text: object) -> str:
  folder = str(upload.files)
  text = str(text).replace(f'cohort.names={upload.names}', 'names')
  return text.replace(f'{folder}/', '').replace(folder, 'the upload')
