"""CSV files of OpenKBP: bytes, cells, indices, columns."""

import pathlib
import random

import numpy as np

from inputs import damage, imported

_GRID = (16, 16, 16)
_INDICES = ('-1', '2097152', '99999999999999999999', '1.5', 'nan', 'inf', '',
            '0', '7.0', '1e3', 'x', '0x10', '1_0')  # fmt: skip
_VALUES = ('-1', '-0.01', 'nan', 'inf', '-inf', '1e308', '7000', '1e-40', '',
           'x', '0', '70.0.1', '1,2', '7_0', '\x00')  # fmt: skip


class OpenKbp:
  words = ('PTV56', 'cohort.grid')

  def make(self, folder: pathlib.Path) -> None:
    folder = folder / 'pt_3'
    folder.mkdir()
    target, cord = _block((40, 48, 56), 16), _block((80, 16, 8), 8)
    possible = [*target, *cord]
    _write(folder, 'PTV70', target)
    _write(folder, 'PTV56', _block((40, 48, 32), 8))
    _write(folder, 'SpinalCord', cord)
    _write(folder, 'possible_dose_mask', possible)
    _write(folder, 'dose', possible, [70.5] * len(target) + [20.25] * len(cord))
    _write(folder, 'ct', possible, [1040] * len(target) + [1020] * len(cord))
    (folder / 'voxel_dimensions.csv').write_text('3.0\n4.0\n2.5\n')

  def open(self, folder: pathlib.Path) -> None:
    self.sound = self._read(folder)
    assert self.sound.ct_hu is not None

  def _read(self, folder):
    from dvhflax.io import importing, openkbp

    found, _ = openkbp.find_patients(folder)
    patient = openkbp.read_patient(found[0], grid=_GRID, ct=True)
    settings = importing.Settings(openkbp.STRUCTURES, _GRID, (1.0, 1.0, 1.0))
    imported.check(patient, settings)
    assert patient.id == 'pt_3' and patient.prescription_gy == 70
    return patient

  def damage(self, folder: pathlib.Path, rng: random.Random) -> str:
    path = rng.choice(sorted((folder / 'pt_3').iterdir()))
    if path.stem == 'voxel_dimensions' or rng.random() < 0.3:
      damage.file(path, rng)
      return f'{path.name}: bytes'
    lines = path.read_text().splitlines()
    kind = rng.randrange(8)
    place = rng.randrange(1, len(lines))
    index, _, value = lines[place].partition(',')
    if kind == 0:
      lines[place] = f'{rng.choice(_INDICES)},{value}'
    elif kind == 1:
      lines[place] = f'{index},{rng.choice(_VALUES)}'
    elif kind == 2:
      lines.insert(place, lines[rng.randrange(1, len(lines))])
    elif kind == 3:
      lines[place] += rng.choice((',', ',1', ' 1', ';', '\t', '"'))
    elif kind == 4:
      lines[0] = rng.choice(('', 'a,b,c', ',data', 'x'))
    elif kind == 5:
      by = rng.choice((100, -1, 1e-3, 0))
      lines[1:] = [
        f'{i},{by * float(v):g}' if v else f'{by},'
        for i, _, v in (line.partition(',') for line in lines[1:])
      ]
    elif kind == 6:
      path.unlink()
      return f'{path.name}: removed'
    else:
      lines = lines[:1] + lines[1:] * 2
    path.write_text('\n'.join(lines))
    return f'{path.name}: {kind} {lines[place][:60]!r}'

  def read(self, folder: pathlib.Path, rng: random.Random) -> list[str]:
    patient = self._read(folder)
    own, its = (p.dose * 70 for p in (patient, self.sound))
    self.differs = [f'dose by {np.abs(own - its).max():.3g}']
    return []


def _block(start, size):
  one = np.arange(size)
  places = [one + first for first in start]
  i, j, k = np.meshgrid(*places, indexing='ij')
  return ((i * 128 + j) * 128 + k).ravel().tolist()


def _write(folder, name, indices, values=None):
  values = values or [''] * len(indices)
  lines = [',data'] + [f'{i},{v}' for i, v in zip(indices, values)]
  (folder / f'{name}.csv').write_text('\n'.join(lines) + '\n')
