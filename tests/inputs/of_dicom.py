"""DICOM-RT: bytes, and elements by their keywords."""

import contextlib
import io
import math
import pathlib
import random
import warnings

import numpy as np
import pydicom
from pydicom.dataelem import DataElement
import synthetic_dicom as synthetic

from inputs import damage, imported

_VRS = ('DS', 'LO', 'UN', 'SQ', 'US', 'OB', 'OW', 'IS', 'UI', 'CS', 'FL', 'FD',
        'UL', 'SL', 'AT', 'PN', 'OF')  # fmt: skip
_VALUES = (
  None, '', 'x', 'nan', 'inf', '-inf', '1e308', '1e-308', '-0', b'\xff\xff', 0,
  -1, 1, 65535, 2**31, 1e30, 0.0, -1.0, [], [1, 2], ['nan'] * 3, [0, 0],
  [1e-9, 1e-9], [1e9, 1e9], ['0'] * 6, [0, 1, 0, 1, 0, 0], [-1, 0, 0, 0, 1, 0],
  [0.7, 0.7, 0, -0.7, 0.7, 0], '1\\2\\3', '../../x', '/etc/passwd', '\x1b[2J',
  'a\nb', 'y' * 5000, '1.2.3', 'CGY', 'RELATIVE', 'BEAM', 'POINT', 'é',
)  # fmt: skip
_SLICES = 10
# What tells where a dose lies and how large it is.
_GEOMETRY = (
  'PixelSpacing', 'ImagePositionPatient', 'ImageOrientationPatient', 'Rows',
  'Columns', 'NumberOfFrames', 'GridFrameOffsetVector', 'DoseGridScaling',
  'BitsAllocated', 'BitsStored', 'HighBit', 'PixelRepresentation',
  'RescaleSlope', 'RescaleIntercept', 'SamplesPerPixel', 'PixelPaddingValue',
)  # fmt: skip


class Dicom:
  words = ('patient anna',)

  def make(self, folder: pathlib.Path) -> None:
    structures = {
      'BODY': synthetic.cylinder(30, 24, 6.0, points=24),
      'Bladder': synthetic.sphere(9, 6.0, centre=(0, -16), points=16),
      'Rectum': synthetic.cylinder(7, 15, 6.0, centre=(0, 17), points=16),
      'PTV_78': synthetic.sphere(9, 6.0, points=16),
    }
    axis = np.arange(17) * 4.0 - 32
    far = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    doses = [80 / (1 + np.exp((far - 14) / (4 + n))) for n in range(2)]
    grid = {'origin': (-32.0,) * 3, 'spacing': (4.0,) * 3}
    synthetic.save(synthetic.structure_set(structures), folder / 'set')
    synthetic.save(
      synthetic.plan(78.0, groups={1: (39, (1, 2))}), folder / 'plan'
    )
    for n, values in enumerate(doses):
      one = synthetic.dose(values, uid=f'1.2.3.4.8.{n}', bits=16, **grid)
      synthetic.save(one, folder / f'dose{n}')
    disk = np.hypot(axis[:, None], axis) <= 30
    hu = np.repeat(np.where(disk, 0, -1000)[..., None], _SLICES, 2)
    slices = {'origin': (-32.0, -32.0, -27.0), 'spacing': (4.0, 4.0, 6.0)}
    for i, one in enumerate(synthetic.ct(hu, **slices)):
      synthetic.save(one, folder / f'ct{i}')

  def open(self, folder: pathlib.Path) -> None:
    from dvhflax.io.contours import stack

    # Contours on fewer pixels take less time.
    stack.PIXELS = 24
    self.names = [path.name for path in folder.iterdir()]
    self.sound, self.told = self._read(folder, {})
    assert len(self.sound.dose) == 2 and self.sound.ct_hu is not None

  def _read(self, folder, options):
    from dvhflax import errors
    from dvhflax.io import formats, importing

    found, read, skipped = formats.open_folder(
      'dicom', str(folder), imported.NAMES, (), options,
      dose_optional=bool(options.get('dose_optional')),
    )  # fmt: skip
    told = [f'{one.what}: {one.why}' for one in skipped]
    if not found:
      raise errors.CohortError(f'{folder}: {"; ".join(told)}')
    # Two, where one file has become another patient's.
    patient, refused = None, []
    for one in found.values():
      try:
        patient, entry = importing.assemble(
          read(one), imported.SETTINGS, dose_optional=bool(options)
        )
        imported.check(patient)
        assert patient.id == one.id
        told += [f'{patient.id}: {note}' for note in entry['notes']]
      except errors.CohortError as error:
        refused.append(error)
    if patient is None:
      raise refused[0]
    return patient, told + [str(error) for error in refused]

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    told = []
    for _ in range(rng.choice((1, 1, 1, 1, 2))):
      scan = f'ct{rng.randrange(_SLICES)}'
      name = rng.choice(('set', 'set', 'set', 'dose0', 'dose0', 'plan', scan))
      path = folder / name
      how = rng.choice((_bytes, _element, _element, _element, _contours, _file))
      try:
        told.append(f'{name}: {how(path, rng)}')
      except Exception:  # what is no DICOM any more
        damage.file(path, rng)
        told.append(f'{name}: bytes')
    # What is not there, nobody can miss.
    self.whole = all((folder / name).exists() for name in self.names)
    return '; '.join(told)

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    options = rng.choice(
      (
        {}, {}, {}, {'dose_optional': True},
        {'sum_beams': True, 'sum_fractions': True, 'sum_plans': True},
        {'contour_ends': 'half_slice'}, {'contour_ends': 'outermost'},
      )
    )  # fmt: skip
    patient, told = self._read(folder, options)
    if 'contour_ends' not in options:
      self.differs = imported.changed(patient, self.sound)
    lost = self.whole and imported.lost(patient, self.sound)
    assert not lost or set(told) - set(self.told), f'without a word: {lost}'
    if set(told) - set(self.told):
      return ['set: ' + '; '.join(told)[:3000]]
    return []


def _bytes(path, rng):
  others = sorted(p for p in path.parent.iterdir() if p != path)
  other = rng.choice(others).read_bytes()
  path.write_bytes(damage.bytes_of(path.read_bytes(), rng, other))
  return 'bytes'


def _file(path, rng):
  kind = rng.randrange(6)
  others = sorted(p for p in path.parent.iterdir() if p != path)
  other = rng.choice(others)
  if kind == 0:
    path.unlink()
    return 'removed'
  if kind == 1:
    path.write_bytes(other.read_bytes())
    return f'is {other.name}'
  if kind == 2:
    (path.parent / 'copy').write_bytes(path.read_bytes())
    return 'twice'
  if kind == 3:
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = pydicom.dcmread(other).SOPInstanceUID
    dataset.save_as(path)
    return f'has the UID of {other.name}'
  if kind == 4:
    content = path.read_bytes()
    path.write_bytes(content[132:])
    return 'without preamble'
  dataset = pydicom.dcmread(path)
  syntax = rng.choice(
    ('1.2.840.10008.1.2', '1.2.840.10008.1.2.2', '1.2.840.10008.1.2.1.99',
     '1.2.840.10008.1.2.4.50', '1.2.840.10008.1.2.4.90', '1.2.840.10008.1.2.5',
     'x', '')
  )  # fmt: skip
  dataset.file_meta.TransferSyntaxUID = syntax
  with contextlib.suppress(Exception):
    content = io.BytesIO()
    pydicom.dcmwrite(content, dataset, little_endian=True, implicit_vr=False)
    path.write_bytes(content.getvalue())
  return f'transfer syntax {syntax!r}'


def _places(dataset):
  """Elements with the dataset that each is in."""
  for element in dataset:
    yield dataset, element
    if element.VR == 'SQ':
      items = list(element.value)
      for item in items[:3] + items[-1:]:
        yield from _places(item)


def _element(path, rng):
  dataset = pydicom.dcmread(path)
  for _ in range(20):
    places = list(_places(dataset))
    # By keyword first: contours have far more elements than all the rest.
    if rng.random() < 0.4:
      mine = [p for p in places if p[1].keyword in _GEOMETRY]
    else:
      keyword = rng.choice(sorted({e.keyword for _, e in places}))
      mine = [p for p in places if p[1].keyword == keyword]
    if not mine:
      continue
    whole, element = rng.choice(mine)
    told = f'{element.keyword} {_one(whole, element, rng)}'
    # Not every value can be written.
    with contextlib.suppress(Exception), warnings.catch_warnings():
      warnings.simplefilter('ignore')
      content = io.BytesIO()
      dataset.save_as(content)
      path.write_bytes(content.getvalue())
      return told
    dataset = pydicom.dcmread(path)
  return 'as it was'


def _one(whole, element, rng):
  kind, tag = rng.randrange(8), element.tag
  if kind == 0:
    del whole[tag]
    return 'removed'
  if kind == 1:
    vr = rng.choice(_VRS)
    with contextlib.suppress(Exception):
      whole[tag] = DataElement(tag, vr, element.value)
    return f'as {vr}'
  if kind == 2:
    numbers = np.atleast_1d(np.array(element.value, object)).tolist()
    rng.shuffle(numbers)
    whole[tag].value = numbers if len(numbers) > 1 else numbers[0]
    return 'shuffled'
  if kind in (3, 4):
    try:
      numbers = np.atleast_1d(np.asarray(element.value, float))
      by = rng.choice((-1, 0, 1e-3, 100, 1e6, math.nan, 0.5, 2, 1.001))
      place = rng.randrange(len(numbers))
      numbers[place] *= by
      if element.VR in ('US', 'IS', 'SS'):
        numbers = numbers.astype(int)
      values = numbers.tolist()
      whole[tag].value = values if len(values) > 1 else values[0]
      return f'{place} times {by}'
    except (ValueError, TypeError, OverflowError):
      pass  # Not of numbers, or not to be one of this kind.
  if kind == 5 and element.VR == 'SQ' and element.value:
    items = list(element.value)
    many = rng.choice((0, 2, 50))
    whole[tag].value = pydicom.Sequence(items * many)
    return f'{many} times as many items'
  if kind == 6:
    others = [e for e in whole if e.VR == element.VR and e.tag != tag]
    if others:
      other = rng.choice(others)
      whole[tag].value, whole[other.tag].value = other.value, element.value
      return f'swapped with {other.keyword}'
  value = rng.choice(_VALUES)
  vr = rng.choice((element.VR, element.VR, rng.choice(_VRS)))
  with contextlib.suppress(Exception), warnings.catch_warnings():
    warnings.simplefilter('ignore')
    whole[tag] = DataElement(tag, vr, value)
  return f'is {value!r} as {vr}'[:90]


def _contours(path, rng):
  path = path.parent / 'set'
  dataset = pydicom.dcmread(path)
  with contextlib.suppress(Exception), warnings.catch_warnings():
    warnings.simplefilter('ignore')
    region = rng.choice(list(dataset.ROIContourSequence))
    contour = rng.choice(list(region.ContourSequence))
    numbers = np.array(contour.ContourData, float)
    kind = rng.randrange(9)
    if kind == 0:
      numbers[rng.randrange(len(numbers))] = rng.choice(
        (math.nan, math.inf, 1e300, -1e9, 1e5, 0)
      )
    elif kind == 1:
      numbers = numbers[: rng.randrange(len(numbers))]
    elif kind == 2:
      numbers[2::3] += rng.choice((0.3, 4, 100, -1e4, 1e12))
    elif kind == 3:
      numbers = numbers * rng.choice((0, 1e-3, 10, -1, 1e6))
    elif kind == 4:
      numbers = np.tile(numbers, rng.choice((2, 300)))
    elif kind == 5:
      points = numbers.reshape(-1, 3)
      np.random.default_rng(rng.randrange(2**32)).shuffle(points)
      numbers = points.ravel()
    elif kind == 6:
      region.ContourSequence = pydicom.Sequence(
        list(region.ContourSequence) * rng.choice((2, 200))
      )
    elif kind == 7:
      numbers = np.random.default_rng(rng.randrange(2**32)).normal(
        0, rng.choice((1, 20, 500)), 3 * rng.choice((3, 100, 5000))
      )
      numbers[2::3] = 0
    else:
      contour.ContourGeometricType = rng.choice(
        ('POINT', 'OPEN_PLANAR', 'CLOSED_PLANAR_XOR', '', 'OPEN_NONPLANAR')
      )
    contour.ContourData = [f'{x:.6g}' for x in numbers]
    content = io.BytesIO()
    dataset.save_as(content)
    path.write_bytes(content.getvalue())
    return f'contours {kind}'
  return 'as it was'
