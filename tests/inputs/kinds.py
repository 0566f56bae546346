"""The kinds of input, each a class of a module of its own."""

import importlib
import pathlib
import random
from typing import Protocol

# Name -> module, class, and how many of 10,000.
KINDS = {
  'DICOM': ('of_dicom', 'Dicom', 1300),
  'NIfTI': ('of_nifti', 'Nifti', 2200),
  'OpenKBP': ('of_openkbp', 'OpenKbp', 400),
  'wish files': ('of_wishes', 'WishFiles', 1500),
  'points': ('of_wishes', 'Points', 1500),
  'templates': ('of_wishes', 'Templates', 600),
  'trails': ('of_trails', 'Trails', 900),
  'stores': ('of_stores', 'Stores', 700),
  'checkpoints': ('of_networks', 'Checkpoints', 300),
  'configs': ('of_configs', 'Configs', 900),
  'ONNX': ('of_networks', 'Onnx', 150),
  'dose files': ('of_trails', 'DoseFiles', 400),
}


class Kind(Protocol):
  """A kind of input.

  Attributes:
    words: what a message may name beside the files of an input.
  """

  words: tuple[str, ...]

  def make(self, folder: pathlib.Path) -> None:
    """Writes a sound input."""

  def open(self, folder: pathlib.Path) -> None:
    """Imports what is needed and reads the sound input that is there."""

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    """Damages a copy of the sound input, and says how."""

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    """Reads it; raises an AssertionError if what is accepted is no sound
    result.

    Returns:
      Messages on what was refused or left out; none if all is accepted.
    """


def kind(name: str) -> Kind:
  """One of `KINDS`, or `MODULE:CLASS`."""
  module, cls, *_ = KINDS.get(name) or name.split(':')
  return getattr(importlib.import_module(f'inputs.{module}'), cls)()


def shares(number: int) -> dict[str, int]:
  """How many inputs of each kind make a number of them together."""
  total = sum(share for *_, share in KINDS.values())
  return {k: round(number * share / total) for k, (*_, share) in KINDS.items()}
