"""NIfTI: bytes, compressed and not, fields of the header, values, labels."""

import gzip
import json
import pathlib
import random

import nibabel
import numpy as np

from inputs import damage, imported

_SHAPE, _SPACING = (16, 16, 12), (4.0, 4.0, 5.0)
_FIELDS = {
  'dim': (0, 1, 2, -1, 3, 4, 7, 8, 100, 32767, -32768, 16, 12),
  'pixdim': (0, -1, 1, np.nan, np.inf, 1e-30, 1e30, 100, -4),
  'datatype': (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536,
               1792, 2048, 2304, -1, 9),
  'bitpix': (0, 1, 8, 16, 32, 64, 128, -1),
  'vox_offset': (0, 1, 348, 352, 353, 1e9, -352, np.nan, np.inf),
  'scl_slope': (0, 1, -1, 100, 1e-3, 1e30, np.nan, np.inf, 1e-45),
  'scl_inter': (0, 1, -1, -100, 1000, 1e30, np.nan, np.inf),
  'qform_code': (0, 1, 2, 5, -1, 300), 'sform_code': (0, 1, 2, 5, -1, 300),
  'quatern_b': (0, 1, 2, np.nan, 0.7), 'quatern_c': (0, 1, 2, np.nan, 0.7),
  'quatern_d': (0, 1, 2, np.nan, 0.7),
  'qoffset_x': (0, 1e9, np.nan, np.inf, -50), 'xyzt_units': range(32),
  'srow_x': (0, 1, -4, np.nan, np.inf, 1e9, 1e-9, 1e30),
  'srow_y': (0, 1, -4, np.nan, np.inf, 1e9, 1e-9, 1e30),
  'srow_z': (0, 1, -5, np.nan, np.inf, 1e9, 1e-9, 1e30),
  'magic': (b'', b'ni1', b'n+1', b'n+2', b'xxx'), 'sizeof_hdr': (0, 540, -1),
  'intent_code': (0, 1002, 1007, -1), 'slice_end': (-1, 100),
  'dim_info': (0, 255), 'cal_max': (np.nan, -1),
}  # fmt: skip


class Nifti:
  words = ('patient in', 'patient masks', 'patient labels')

  def make(self, folder: pathlib.Path) -> None:
    axes = [
      (np.arange(n) - (n - 1) / 2) * step for n, step in zip(_SHAPE, _SPACING)
    ]
    x, y, z = np.meshgrid(*axes, indexing='ij')
    masks = {
      'Body': np.hypot(x, y) <= 27,
      'Bladder': np.sqrt(x**2 + (y - 16) ** 2 + z**2) <= 8,
      'Rectum': np.hypot(x, y + 16) <= 7,
      'PTV': np.sqrt(x**2 + y**2 + z**2) <= 10,
    }
    far = np.sqrt(x**2 + y**2 + z**2)
    labels = np.zeros(_SHAPE, np.int16)
    for number, mask in enumerate(masks.values(), 1):
      labels[mask] = number
    for place in ('masks', 'labels'):
      (folder / place).mkdir()
      for n in range(2):
        dose = 80 / (1 + np.exp((far - 14) / (4 + n)))
        _save(folder / place / f'dose_{n}.nii.gz', dose.astype(np.float32), n)
      hu = np.where(masks['Body'], 0, -1000).astype(np.int16)
      _save(folder / place / 'ct.nii', hu)
    for name, mask in masks.items():
      _save(folder / 'masks' / f'{name}.nii.gz', mask.astype(np.uint8))
    _save(folder / 'labels' / 'labels.nii.gz', labels)
    (folder / 'labels' / 'labels.json').write_text(
      json.dumps({name: number for number, name in enumerate(masks, 1)})
    )

  def open(self, folder: pathlib.Path) -> None:
    self.sound = {}
    for place in ('masks', 'labels'):
      self.sound[place] = self._read(folder / place, False)
      assert len(self.sound[place][0].dose) == 2
      assert self.sound[place][0].ct_hu is not None

  def _read(self, folder, dose_optional):
    from dvhflax import errors
    from dvhflax.io import importing, nifti

    found, skipped = nifti.find_patients(folder, dose_optional=dose_optional)
    told = [f'{one.what}: {one.why}' for one in skipped]
    if not found:
      raise errors.CohortError(f'{folder}: {"; ".join(told)}')
    patient, entry = importing.assemble(
      nifti.read_patient(found[0], imported.NAMES),
      imported.SETTINGS,
      dose_optional=dose_optional,
    )
    imported.check(patient)
    assert patient.id == found[0].id
    return patient, told + entry['notes']

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    self.place = rng.choice(('masks', 'labels'))
    folder, told = folder / self.place, []
    names = {path.name for path in folder.iterdir()}
    for _ in range(rng.choice((1, 1, 1, 2))):
      paths = sorted(folder.iterdir())
      path = rng.choice(paths)
      ways = (_bytes, _compressed, _field, _field, _field, _values, _file)
      how = _json if path.suffix == '.json' else rng.choice(ways)
      try:
        told.append(f'{path.name}: {how(path, rng)}')
      except Exception:  # what is no NIfTI any more
        damage.file(path, rng)
        told.append(f'{path.name}: bytes')
    # What is not there, nobody can miss.
    there = {path.name for path in folder.iterdir()}
    self.whole = names <= there and 'labels.json' not in str(told)
    return '; '.join(told)

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    sound, known = self.sound[self.place]
    patient, told = self._read(folder / self.place, rng.random() < 0.2)
    self.differs = imported.changed(patient, sound)
    lost = self.whole and imported.lost(patient, sound)
    assert not lost or set(told) - set(known), f'without a word: {lost}'
    if set(told) - set(known):
      return [f'{folder}: ' + '; '.join(told)[:3000]]
    return []


def _save(path, values, slope=0):
  affine = np.diag([*_SPACING, 1.0])
  affine[:3, 3] = [-step * (n - 1) / 2 for n, step in zip(_SHAPE, _SPACING)]
  image = nibabel.Nifti1Image(values, affine)
  image.set_qform(affine, 1)
  image.set_sform(affine, 1)
  image.header.set_xyzt_units('mm')
  if slope:
    image.set_data_dtype(np.int16)
  nibabel.save(image, path)


def _content(path):
  content = path.read_bytes()
  return gzip.decompress(content) if path.suffix == '.gz' else content


def _write(path, content):
  if path.suffix == '.gz':
    content = gzip.compress(content, 1)
  path.write_bytes(content)


def _bytes(path, rng):
  other = rng.choice([p for p in sorted(path.parent.glob('*.gz')) if p != path])
  _write(path, damage.bytes_of(_content(path), rng, other.read_bytes()))
  return 'bytes'


def _json(path, rng):
  values, how = damage.json_of(json.loads(path.read_text()), rng)
  path.write_bytes(damage.dumped(values, rng))
  return str(how)


def _compressed(path, rng):
  damage.file(path, rng)
  return 'compressed bytes'


def _field(path, rng):
  content = bytearray(_content(path))
  header = np.frombuffer(
    bytes(content[:348]), nibabel.nifti1.header_dtype
  ).copy()
  told = []
  for _ in range(rng.choice((1, 1, 2))):
    name = rng.choice(sorted(_FIELDS))
    value = rng.choice(_FIELDS[name])
    field = header[name][0]
    with np.errstate(all='ignore'):
      if np.ndim(field):
        place = rng.randrange(len(field))
        header[name][0, place] = value
        name = f'{name}[{place}]'
      elif isinstance(value, bytes):
        header[name] = value
      else:
        kind = header.dtype[name]
        header[name] = np.array(value).astype(kind)
    told.append(f'{name} {value}')
  content[:348] = header.tobytes()
  if rng.random() < 0.05:
    content[:348] = header.byteswap().tobytes()
    told.append('byteswapped')
  _write(path, bytes(content))
  return ', '.join(told)


def _values(path, rng):
  content = bytearray(_content(path))
  kind, size = rng.choice((('<f4', 4), ('<i2', 2), ('<u1', 1), ('<f8', 8)))
  value = rng.choice((0, 1, -1, 7, 255, 30000, np.nan, np.inf, -np.inf, 1e30))
  with np.errstate(all='ignore'):
    one = np.array(value).astype(kind).tobytes()
  count = (len(content) - 352) // size
  start = rng.randrange(count)
  many = min(rng.choice((1, 1, 50, count)), count - start)
  content[352 + start * size : 352 + (start + many) * size] = one * many
  _write(path, bytes(content))
  return f'{many} values {value} as {kind}'


def _file(path, rng):
  others = [p for p in sorted(path.parent.iterdir()) if p != path]
  kind = rng.randrange(4)
  if kind == 0:
    path.unlink()
    return 'removed'
  if kind == 1:
    other = rng.choice(others)
    path.write_bytes(other.read_bytes())
    return f'is {other.name}'
  if kind == 2:
    name = rng.choice(('x', 'dose', 'é', 'a b', 'ptv', 'labels', 'CT'))
    path.rename(path.with_name(f'{name}.nii.gz'))
    return f'named {name}.nii.gz'
  _write(path, b'')
  return 'empty'
