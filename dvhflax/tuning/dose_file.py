"""`dose.npz`: a predicted dose, whose it is, and what 1.0 of it stands for."""

import struct
import tokenize
from typing import Any
import zipfile
import zlib

import numpy as np

from dvhflax import errors, files
from dvhflax.checksum import checksum
from dvhflax.io.resample import MOST_GY
from dvhflax.normalisation import DoseReference
from dvhflax.tuning.session import Session
from dvhflax.tuning.steps import Step
from dvhflax.tuning.trail import USE

# Below zero, of the maximum: more is no prediction.
_MOST_BELOW = 0.1
# Of the text of an id, or a number.
_MOST_BYTES = 2**16


def write(path: str, session: Session, step: Step) -> None:
  """Writes the dose of a session's step, whole or not at all."""
  record = session.record
  with files.replacing(path) as aside:
    np.savez_compressed(
      aside,
      dose=step.dose,
      spacing_mm=record.spacing_mm,
      patient=record.id,
      masks_sha256=checksum(session.masks),
      use=USE,
      **step.reference.to_json(),
    )


def read(path: str, masks: np.ndarray) -> np.ndarray:
  """`[X, Y, Z]` float32 Gy of the `dose.npz` that ``predict`` writes.

  Args:
    path: of the file.
    masks: `[X, Y, Z, S]` of the patient that it has to be of.

  Raises:
    UserError: for another file, one of another patient, or one that does not
      say what 1.0 stands for.
  """
  try:
    with open(path, 'rb') as raw, np.load(raw) as file:
      gy, prescription_gy = (
        float(_array(file, name, ()))
        for name in ('reference_gy', 'prescription_gy')
      )
      owner, of_masks = (
        str(_array(file, name, ())) for name in ('patient', 'masks_sha256')
      )
      dose = _array(file, 'dose', masks.shape[:-1]).astype(np.float32)
    most, least = float(dose.max()), float(dose.min())
    if not (0 < gy <= MOST_GY and 0 < most * gy <= MOST_GY):
      raise ValueError(
        f'1.0 stands for {gy:g} Gy, the maximum is {most * gy:.4g} Gy'
      )
    # NaN is no number above it either.
    if not least >= -_MOST_BELOW * most:
      raise ValueError(f'its lowest dose is {least * gy:.4g} Gy')
    dose_gy = DoseReference(gy, prescription_gy).to_gy(dose)
    if of_masks != checksum(masks):
      raise errors.UserError(
        f'{path} was predicted for patient {errors.plain(owner)} with other '
        'masks than these: name that patient with --patient, or predict again'
      )
    return dose_gy
  except KeyError as error:
    raise errors.UserError(
      f'{path} lacks {error}: it was not written by `predict`, or by a version '
      'that did not record the reference dose: predict again'
    ) from None
  except (
    OSError, ValueError, TypeError, EOFError, NotImplementedError, RuntimeError,
    struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
  ) as error:  # fmt: skip
    raise errors.UserError(
      f'{path} is not a dose.npz written by `predict`: '
      f'{errors.plain(str(error), 200)}'
    ) from None


def _array(file: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
  """An array of an open `.npz`, if it has a shape.

  Raises:
    KeyError: if there is none of that name.
    ValueError: for another shape, or a type that is neither number nor text;
      before what a faulty header claims is allocated.
  """
  if name not in file.files:
    raise KeyError(name)
  with file.zip.open(f'{name}.npy') as part:
    version = np.lib.format.read_magic(part)
    if version != (1, 0):
      raise ValueError(f'{name} is of version {version}')
    found, _, kind = np.lib.format.read_array_header_1_0(part)
  if (
    found != shape
    or kind.kind not in 'fiuU'
    or (not shape and kind.itemsize > _MOST_BYTES)
  ):
    raise ValueError(f'{name} is {kind} {found}, wanted {shape}')
  return np.asarray(file[name])
