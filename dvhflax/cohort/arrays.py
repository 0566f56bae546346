"""The TensorStore arrays of a cohort: layout, opening, checksums."""

import os
import zlib

import numpy as np
import tensorstore as ts

from dvhflax.cohort import place
from dvhflax.cohort.schema import CohortMetadata


def layout(
  metadata: CohortMetadata, patients: int
) -> dict[str, tuple[tuple[int, ...], str, tuple[int, ...]]]:
  """Name -> (shape, dtype, chunk): one read is one patient or one plan.

  Args:
    metadata: of the cohort.
    patients: P, that it has or will have.
  """
  grid, plans = tuple(metadata.grid), metadata.max_plans
  structures, points = len(metadata.structures), metadata.dvh.points
  masks = (patients, *grid, structures)
  dose = (patients, plans, *grid)
  dvh = (patients, plans, structures, points)
  described = {
    'masks': (masks, 'uint8', (1, *masks[1:])),
    'dose': (dose, metadata.dose_dtype, (1, 1, *grid)),
    'dvh': (dvh, 'float32', (1, *dvh[1:])),
  }
  if metadata.ct:
    described['ct'] = ((patients, *grid), 'int16', (1, *grid))
  return described


def open_array(
  path: str,
  name: str,
  shape: tuple[int, ...],
  dtype: str,
  chunk: tuple[int, ...],
) -> ts.TensorStore:
  """Opens an array for writing; several processes may create it at once."""
  codecs = [
    {'name': 'bytes', 'configuration': {'endian': 'little'}},
    {'name': 'zstd', 'configuration': {'level': 3}},
    # So that a damaged chunk is an error and never a wrong dose.
    {'name': 'crc32c'},
  ]
  if dtype == 'uint8':
    codecs[0] = {'name': 'bytes'}
  spec = {
    'driver': 'zarr3',
    'kvstore': {'driver': 'file', 'path': os.path.join(path, name)},
    'store_data_equal_to_fill_value': True,
    'metadata': {
      'shape': list(shape),
      'data_type': dtype,
      'chunk_grid': {
        'name': 'regular',
        'configuration': {'chunk_shape': list(chunk)},
      },
      'codecs': codecs,
    },
  }
  return ts.open(spec, create=True, open=True).result()


def read_array(path: str, name: str) -> ts.TensorStore:
  """Opens an array read-only; the path of its cohort may be a URL."""
  spec = {
    'driver': 'zarr3',
    'kvstore': place.kvstore(path, name),
    # A chunk that is gone is an error, and not a dose of 0. Only a CT may be
    # all water, which writers before this left out.
    'fill_missing_data_reads': name == 'ct',
  }
  return ts.open(spec, read=True, context=place.context()).result()


def checksum(array: np.ndarray) -> int:
  """CRC-32 of an array's values."""
  return zlib.crc32(np.ascontiguousarray(array).tobytes())
