"""What the server has at hand: the network, patients, open sessions."""

import asyncio
from collections.abc import Callable
import secrets
from typing import Any

import numpy as np

import dvhflax
from dvhflax import errors
from dvhflax.app import faults, patients, state, volumes
from dvhflax.app.compute import Compute
from dvhflax.app.opened import Opened
from dvhflax.cohort.store import Cohort
from dvhflax.sites import SITES
from dvhflax.training.runs import Network
from dvhflax.tuning.session import Session
from dvhflax.tuning.trail import USE

Loaded = tuple[Network, Cohort, Network | None]


class Desk:
  """Patients and sessions of one network."""

  def __init__(self, load: Callable[[], Loaded], folder: str):
    """Loads nothing yet.

    Args:
      load: gives the network, its cohort, and the anatomy-only network.
      folder: of the sessions.
    """
    self._load, self._folder = load, folder
    self.compute = Compute()
    self._loaded: Loaded | None = None
    self._ready = asyncio.Event()
    self._entries: dict[str, patients.Entry] = {}
    self._open: dict[str, Opened] = {}

  async def load(self) -> None:
    """Loads the network; requests wait for it."""
    self._loaded = await self.compute.run(self._load)
    self._entries = {e.key: e for e in patients.of_cohort(self._loaded[1])}
    self._ready.set()

  def about(self) -> dict[str, Any]:
    """What `GET /api/v1/about` answers, also while the network is loaded."""
    found: dict[str, Any] = {'version': dvhflax.__version__, 'use': USE}
    if self._loaded is None:
      return {**found, 'loading': True}
    network, cohort, _ = self._loaded
    return {
      **found,
      'loading': False,
      'network': {
        'name': network.identity['workdir'],
        'step': network.identity['step'],
      },
      'site': _site(cohort),
      'dvh': state.dvh_of(cohort.dvh_spec),
    }

  async def loaded(self) -> Loaded:
    """Network, cohort and anatomy-only network, when they are there."""
    await self._ready.wait()
    assert self._loaded is not None
    return self._loaded

  async def patients(self) -> list[dict[str, Any]]:
    """What `GET /api/v1/patients` answers."""
    await self.loaded()
    return [entry.to_json() for entry in self._entries.values()]

  def sessions(self) -> list[dict[str, Any]]:
    """What `GET /api/v1/sessions` answers."""
    return [
      {
        'session': one.key,
        'patient': one.entry.key,
        'label': one.entry.id,
        'steps': len(one.session._steps),
        'saved': None,
      }
      for one in self._open.values()
    ]

  async def begin(self, patient: str) -> Opened:
    """A new session, with its first dose."""
    network, cohort, anatomy = await self.loaded()
    if patient not in self._entries:
      raise faults.NotThere('there is no such patient: choose one of the list')
    entry = self._entries[patient]

    def make() -> Session:
      session = Session(network, cohort, entry.id, anatomy)
      session.first_dose()
      return session

    session = await self.compute.run(make)
    opened = Opened(secrets.token_hex(8), entry, session)
    opened.ct = cohort.ct(cohort.index(entry.id))
    self._open[opened.key] = opened
    return opened

  async def opened(self, key: str) -> Opened:
    """A session by its key.

    Raises:
      NotThere: if there is none.
    """
    if key not in self._open:
      raise faults.NotThere('there is no such session: it may be deleted')
    return self._open[key]

  async def dose_gy(self, opened: Opened, name: str) -> np.ndarray:
    """`[X, Y, Z]` Gy of one of the state's `doses`.

    Raises:
      NotThere: if there is none such.
    """
    _, cohort, _ = await self.loaded()
    kind, _, number = name.rpartition('-')
    at = int(number) if number.isascii() and number.isdecimal() else -1
    if kind == 'step' and 0 <= at < len(opened.session._steps):
      return opened.session._steps[at].dose_gy
    if kind == 'plan' and 0 <= at < opened.entry.plans:
      index = cohort.index(opened.entry.id)
      return cohort.reference(index, at).to_gy(cohort.dose(index, at))
    if kind == 'deliverable' and at in opened.made:
      return opened.made[at]
    raise faults.NotThere(f'there is no dose {errors.shown(name)}')


def _site(cohort: Cohort) -> str | None:
  """The site that has all of the cohort's structures."""
  names = {s.name for s in cohort.structures}
  for site in SITES:
    if names <= {organ.name for organ in site.organs}:
      return site.name
  return None
