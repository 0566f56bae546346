"""`dose.npz`: a predicted dose, whose it is, and what 1.0 of it stands for."""

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
      reference = DoseReference(
        float(file['reference_gy']), float(file['prescription_gy'])
      )
      owner, of_masks = str(file['patient']), str(file['masks_sha256'])
      dose_gy = reference.to_gy(file['dose'].astype(np.float32))
    if not reference.gy > 0 or not dose_gy.max() <= MOST_GY:
      raise ValueError(
        f'1.0 stands for {reference.gy:g} Gy, the maximum is '
        f'{dose_gy.max():.4g} Gy'
      )
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
    OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error,
  ) as error:  # fmt: skip
    raise errors.UserError(
      f'{path} is not a dose.npz written by `predict`: '
      f'{errors.plain(str(error), 200)}'
    ) from None
