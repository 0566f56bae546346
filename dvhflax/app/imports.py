"""Patients of uploads: read onto the cohort's grid as an import reads them."""

from collections import OrderedDict, deque
from collections.abc import Iterator
import contextlib
import dataclasses
import json
import os
import pathlib
import threading
from typing import Any

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
# The table of names of an import that may yet fail.
_TRIED = 'tried.json'
# That of an import before the last one, while a patient is read with it.
_EARLIER = 'earlier.json'


@dataclasses.dataclass(frozen=True)
class Imported:
  """What became of an upload.

  Attributes:
    report: for people.
    patients: that can be tuned for.
    failed: why others cannot.
    structures: that the network wants, JSON-serialisable.
    names: in the files of each patient, too.
  """

  report: str
  patients: list[Entry]
  failed: list[str]
  structures: list[dict[str, Any]]
  names: list[dict[str, Any]]


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
      UserError: if there is no patient in it, or names cannot be as asked; what
        was imported before stays.
    """
    with self._reading:
      tried = upload.names.with_name(_TRIED)
      files.write_json(tried, asked.names or {})
      entries, found, failed = [], [], []
      read: deque[tuple[str, Patient]] = deque(maxlen=_MOST_KEPT)
      with _without_folder(upload):
        reader = self._new_reader(upload, asked.prescription_gy, tried)
      for one in reader.ids:
        try:
          patient, entry = reader.read(one)
        except errors.UserError as error:
          failed.append(_plain(upload, error))
          found.append(Found(one, None, 0, failed[-1]))
          continue
        entries.append(entry)
        found.append(Found(one, patient.prescription_gy, len(patient.dose)))
        read.append((f'{upload.key}-{len(found) - 1}', patient))
      _check_chosen(asked, reader)
      os.replace(tried, upload.names)
      self.forget(upload)
      self._readers[upload.key] = reader
      for key, patient in read:
        self._keep(key, patient)
      upload.record.prescription_gy = asked.prescription_gy
      upload.record.patients = found
      upload.save()
      report = import_report.report_text(entries, reader.skipped)
      return Imported(
        _plain(upload, report),
        [e for e in entries_of(upload) if e.faults is None],
        failed,
        [
          {'name': s.name, 'role': s.role, 'needed': s.name in reader.needed}
          for s in self._cohort.structures
        ],
        [
          {'patient': one, 'found': list(names), 'taken': dict(taken)}
          for one, (names, taken) in reader.named.items()
        ],
      )

  def patient(
    self, upload: Upload, entry: Entry, asked: messages.Import | None = None
  ) -> tuple[Patient, messages.Import]:
    """Reads a patient, unless it is in memory.

    Args:
      upload: of the patient.
      entry: who it is.
      asked: of an earlier import, whose names and prescription it is to be read
        with; None: of the last one.

    Returns:
      The patient, and what it was read with.

    Raises:
      UserError: if it cannot be read any more.
    """
    with self._reading:
      last = _last_asked(upload)
      if asked is not None and asked != last:
        return self._read_as(upload, entry, asked), asked
      patient = self._kept.pop(entry.key, None)
      if patient is None:
        with _without_folder(upload):
          patient, _ = self._reader(upload).read(entry.id)
      self._keep(entry.key, patient)
      return patient, last

  def forget(self, upload: Upload) -> None:
    """Drops what is in memory of an upload."""
    self._readers.pop(upload.key, None)
    for key in [k for k in self._kept if k.startswith(f'{upload.key}-')]:
      del self._kept[key]

  def _read_as(
    self, upload: Upload, entry: Entry, asked: messages.Import
  ) -> Patient:
    names = upload.names.with_name(_EARLIER)
    try:
      files.write_json(names, asked.names or {})
      with _without_folder(upload):
        reader = self._new_reader(upload, asked.prescription_gy, names)
        return reader.read(entry.id)[0]
    finally:
      names.unlink(missing_ok=True)

  def _reader(self, upload: Upload) -> ExternalPatients:
    if upload.key not in self._readers:
      self._readers[upload.key] = self._new_reader(
        upload, upload.record.prescription_gy, upload.names
      )
    return self._readers[upload.key]

  def _new_reader(
    self, upload: Upload, prescription_gy: float | None, names: pathlib.Path
  ) -> ExternalPatients:
    return ExternalPatients(
      upload.record.kind,
      str(upload.files),
      self._cohort,
      prescription_gy=prescription_gy,
      names=str(names) if names.exists() else None,
      ct=True,
    )

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


def _last_asked(upload: Upload) -> messages.Import:
  names = None
  with contextlib.suppress(OSError, ValueError):
    names = json.loads(upload.names.read_bytes())
  return messages.Import(upload.record.prescription_gy, names or None)


def _check_chosen(asked: messages.Import, reader: ExternalPatients) -> None:
  """Raises a UserError for a chosen name that nobody has."""
  known = {name for names, _ in reader.named.values() for name in names}
  for structure, patterns in (asked.names or {}).items():
    for pattern in patterns:
      name = pattern.removeprefix('=')
      if name and name != pattern and name not in known:
        raise errors.UserError(
          f'names: {errors.shown(name)}, chosen for {structure}, is no name of '
          'these files: choose one that is'
        )


@contextlib.contextmanager
def _without_folder(upload: Upload) -> Iterator[None]:
  """Leaves the folder of an upload out of errors."""
  try:
    yield
  except errors.UserError as error:
    raise errors.UserError(_plain(upload, error)) from None


def _plain(upload: Upload, text: object) -> str:
  folder = str(upload.files)
  text = str(text)
  for name in (_TRIED, _EARLIER, upload.names.name):
    path = upload.names.with_name(name)
    text = text.replace(f'cohort.names={path}', 'names')
  text = text.replace('map its name in a table (--names)', 'choose its name')
  text = text.replace('name one in cohort.names', 'choose one')
  return text.replace(f'{folder}/', '').replace(folder, 'the upload')
