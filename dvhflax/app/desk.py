"""What the server has at hand: the network, patients, open sessions."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
import contextlib
import dataclasses
import json
import secrets
from typing import Any

import numpy as np

import dvhflax
from dvhflax import errors
from dvhflax.app import (
  faults,
  imports,
  jobs,
  memory,
  messages,
  patients,
)
from dvhflax.app import session_files as session_files_lib
from dvhflax.app.compute import Compute
from dvhflax.app.doses import Doses, step_of
from dvhflax.app.keeping import Folder
from dvhflax.app.opened import Opened
from dvhflax.app.state import dvh_of
from dvhflax.app.upload_files import Uploads
from dvhflax.cohort.store import Cohort
from dvhflax.patient import Patient
from dvhflax.sites import SITES
from dvhflax.training.runs import Network
from dvhflax.tuning.goals import known
from dvhflax.tuning.session import Session
from dvhflax.tuning.templates import Templates, built_in
from dvhflax.tuning.trail import USE

Loaded = tuple[Network, Cohort, Network | None]

# Sessions in memory; others are replayed when they are asked for.
_MOST_OPEN = 8


class Desk:
  """Patients and sessions of one network.

  Attributes:
    compute: the thread of the network.
    files: the thread that reads and writes files of patients.
    kept: the sessions on disk.
    doses: of sessions, by their names.
    uploads: what pages sent.
  """

  def __init__(self, load: Callable[[], Loaded], folder: Folder):
    """Loads nothing yet.

    Args:
      load: gives the network, its cohort, and the anatomy-only network.
      folder: of the sessions.
    """
    self._load = load
    self.compute, self.files = Compute('compute'), Compute('files')
    self.kept = session_files_lib.SessionFiles(folder.folder('sessions'))
    self.uploads = Uploads(folder.folder('uploads'))
    self.doses = Doses(self.compute, self.files, self.kept)
    self.jobs = jobs.Jobs(folder.folder('jobs'))
    self.templates = Templates(folder.path / 'templates')
    self._loaded: Loaded | None = None
    self.site: str | None = None
    self._ready = asyncio.Event()
    self._entries: dict[str, patients.Entry] = {}
    self._open: OrderedDict[str, Opened] = OrderedDict()
    self._opening = asyncio.Lock()

  async def load(self) -> None:
    """Loads the network; requests wait for it."""
    self._loaded = await self.compute.run(self._load)
    cohort = self._loaded[1]
    self.imports = imports.Imports(cohort)
    entries = [*patients.of_cohort(cohort)]
    for upload in self.uploads:
      entries += imports.entries_of(upload)
    self._entries = {entry.key: entry for entry in entries}
    self.site = site_of(cohort)
    self._ready.set()

  async def close(self) -> None:
    """Ends the threads; sessions are on disk after every step."""
    await self.jobs.close()
    self.compute.close()
    self.files.close()

  @contextlib.asynccontextmanager
  async def lifespan(self, _: Any) -> AsyncIterator[None]:
    """Of the server: closes at its end."""
    yield
    await self.close()

  async def loaded(self) -> Loaded:
    """Network, cohort and anatomy-only network, when they are there."""
    await self._ready.wait()
    assert self._loaded is not None
    return self._loaded

  def about(self) -> dict[str, Any]:
    """What `GET /api/v1/about` answers, also while the network is loaded."""
    found: dict[str, Any] = {'version': dvhflax.__version__, 'use': USE}
    if not self._ready.is_set() or self._loaded is None:
      return {**found, 'loading': True}
    network, cohort, _ = self._loaded
    return {
      **found,
      'loading': False,
      'network': {
        'name': network.identity['workdir'],
        'step': network.identity['step'],
      },
      'site': self.site,
      'dvh': dvh_of(cohort.dvh_spec),
    }

  @property
  def entries(self) -> list[patients.Entry]:
    """Of all patients."""
    return list(self._entries.values())

  def sessions(self) -> list[dict[str, Any]]:
    """What `GET /api/v1/sessions` answers, the last saved first."""
    listed = [
      {
        'session': key,
        'patient': one.patient,
        'label': one.label,
        'steps': one.steps,
        'saved': one.saved,
      }
      for key, one in self.kept.kept.items()
    ]
    return sorted(listed, key=lambda one: one['saved'], reverse=True)

  async def begin(self, patient: str) -> Opened:
    """A new session, with its first dose.

    Raises:
      NotThere: if there is no such patient.
      UserError: if there can be no session.
    """
    opened = await self._new(secrets.token_hex(8), self._entry(patient))
    await self.compute.run(opened.session.first_dose)
    opened.goals = self._usual_goals()
    return await self._keep(opened)

  async def resume(self, trail: bytes) -> Opened:
    """A new session that goes on from a trail.

    Raises:
      UserError: for another trail, or one that comes out otherwise.
    """
    try:
      patient = json.loads(trail)['patient']['id']
    except (ValueError, KeyError, TypeError, RecursionError):
      raise errors.UserError('the trail does not say whose it is') from None
    entries = [e for e in self.entries if e.id == patient]
    if not entries:
      raise errors.UserError(
        f'the trail is of patient {errors.shown(patient)}, who is not listed: '
        'upload that patient first'
      )
    key = secrets.token_hex(8)
    path = self.kept.trail(key)
    try:
      await self.files.run(path.write_bytes, trail)
      opened = await self._replayed(key, entries)
    except errors.UserError as error:
      raise errors.UserError(str(error)) from None
    finally:
      path.unlink(missing_ok=True)
    return await self._keep(opened)

  async def opened(self, key: str) -> Opened:
    """A session by its key, from memory or from disk.

    Raises:
      NotThere: if there is none.
      UserError: if it cannot be opened any more.
    """
    await self.loaded()
    async with self._opening:
      if key in self._open:
        self._open.move_to_end(key)
        return self._open[key]
      self.kept.find(key)
      kept = self.kept.kept[key]
      entries = [e for e in self.entries if e.id == kept.label]
      if not entries:
        raise faults.Conflict(
          f'the files of patient {errors.plain(kept.label)} were deleted: '
          'upload them again, then open the session'
        )
      entries.sort(key=lambda entry: entry.key != kept.patient)
      opened = await self._replayed(key, entries, kept.read_as)
      opened.goals, opened.made = [*kept.goals], [*kept.made]
      await self._remember(opened)
      return opened

  async def save(self, opened: Opened) -> None:
    """Writes a session after a change, and tells the pages.

    Raises:
      NotThere: if it was deleted meanwhile.
    """
    if opened.deleted:
      raise faults.NotThere('the session was deleted meanwhile')
    await self.compute.run(
      self.kept.save,
      opened.key,
      opened.session,
      opened.entry.key,
      opened.goals,
      opened.made,
      opened.read_as,
    )
    opened.changed()

  async def delete(self, key: str) -> None:
    """Removes a session.

    Raises:
      NotThere: if there is none.
    """
    self.kept.find(key)
    opened = self._open.pop(key, None)
    self.kept.delete(key)
    if opened:
      opened.deleted = True
      opened.changed()

  async def read_upload(
    self, key: str, asked: messages.Import
  ) -> imports.Imported:
    """Imports an upload; its patients are listed then."""
    await self.loaded()
    upload = self.uploads.find(key)
    try:
      return await self.files.run(self.imports.read_all, upload, asked)
    finally:
      self._forget(key)
      for entry in imports.entries_of(upload):
        self._entries[entry.key] = entry

  async def delete_upload(self, key: str) -> None:
    """Removes an upload and its patients."""
    await self.loaded()
    upload = self.uploads.find(key)
    self.imports.forget(upload)
    self._forget(key)
    await self.files.run(self.uploads.delete, key)

  async def deliver(self, opened: Opened, name: str) -> jobs.Job:
    """Begins to make a step's dose deliverable.

    Raises:
      NotThere: if there is no such step.
      UserError: if there are no beams to deliver it by.
    """
    step = step_of(opened, name)
    if step is None or not name.startswith('step-'):
      raise faults.NotThere(f'there is no step {errors.shown(name)}')
    number = step.number

    async def keep(dose_gy: np.ndarray) -> None:
      async with opened.changing:
        if opened.deleted:
          raise faults.NotThere('the session was deleted meanwhile')
        await self.files.run(self.kept.keep_made, opened.key, number, dose_gy)
        if number not in opened.made:
          opened.made.append(number)
        await self.save(opened)

    return self.jobs.begin(opened, number, step.dose_gy, keep)

  def _usual_goals(self) -> list[str]:
    """Those of the site's first template, as far as there are structures."""
    assert self._loaded is not None
    structures = self._loaded[1].structures
    for template in built_in():
      if self.site and template.site == self.site:
        return list(known(template.goals, structures))
    return []

  def _entry(self, key: str) -> patients.Entry:
    if key not in self._entries:
      raise faults.NotThere('there is no such patient: choose one of the list')
    entry = self._entries[key]
    if entry.faults:
      raise errors.UserError(entry.faults)
    return entry

  def _forget(self, upload: str) -> None:
    for entry in self.entries:
      if entry.upload == upload:
        del self._entries[entry.key]

  async def _replayed(
    self,
    key: str,
    entries: Sequence[patients.Entry],
    read_as: messages.Import | None = None,
  ) -> Opened:
    """A session whose trail is kept, of the first of those for whom it comes
    out: a patient may have been uploaded twice."""
    *others, last = entries
    for entry in others:
      with contextlib.suppress(errors.UserError):
        return await self._replay(key, entry, read_as)
    return await self._replay(key, last, read_as)

  async def _replay(
    self, key: str, entry: patients.Entry, read_as: messages.Import | None
  ) -> Opened:
    opened = await self._new(key, entry, read_as)
    path = self.kept.trail(key)
    await self.compute.run(session_files_lib.replay, opened.session, path)
    return opened

  async def _new(
    self,
    key: str,
    entry: patients.Entry,
    read_as: messages.Import | None = None,
  ) -> Opened:
    network, cohort, anatomy = await self.loaded()
    patient: str | Patient = entry.id
    if entry.upload:
      upload = self.uploads.find(entry.upload)
      found, read_as = await self.files.run(
        self.imports.patient, upload, entry, read_as
      )
      patient, ct = found, found.ct_hu
      # Not what another import of it may have found.
      entry = dataclasses.replace(
        entry,
        prescription_gy=found.prescription_gy,
        plans=len(found.dose),
        faults=None,
      )
    else:
      ct = await self.files.run(cohort.ct, cohort.index(entry.id))
      read_as = None
    session = await self.compute.run(Session, network, cohort, patient, anatomy)
    return Opened(key, entry, session, ct, read_as)

  async def _keep(self, opened: Opened) -> Opened:
    await self.save(opened)
    await self._remember(opened)
    return opened

  async def _remember(self, opened: Opened) -> None:
    self._open[opened.key] = opened
    for key, one in list(self._open.items()):
      if len(self._open) > _MOST_OPEN and not one.in_use and one is not opened:
        del self._open[key]
    await self.compute.run(memory.give_back)


def site_of(cohort: Cohort) -> str | None:
  """The site that knows all of a cohort's structures."""
  names = {s.name for s in cohort.structures}
  for site in SITES:
    if names <= {organ.name for organ in site.organs}:
      return site.name
  return None
