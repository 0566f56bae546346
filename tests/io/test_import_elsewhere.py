"""An import that a cluster maps over is the same as one in this process."""

import pathlib
import pickle

import pytest
import synthetic_dicom as synthetic
import test_imported
import test_openkbp_cohort

from dvhflax import errors
from dvhflax.sources.build import build_cohort
from dvhflax.sources.engines import HERE


class Elsewhere:
  """As a cluster does it, without one: pickled, and in another order."""

  here = False

  def map(self, first, then, items):
    work = pickle.dumps((first, then))
    for place in reversed(range(len(items))):
      first, then = pickle.loads(work)
      try:
        value = first(items[place])
        result = value if then is None else then(value)
      except errors.ConfigError:
        raise
      except errors.UserError as error:
        result = error
      yield place, pickle.loads(pickle.dumps(result))


def content(path):
  return {
    str(f.relative_to(path)): f.read_bytes()
    for f in sorted(pathlib.Path(path).rglob('*'))
    if f.is_file()
  }


@pytest.mark.parametrize('kind', ['dicom', 'openkbp'])
def test_an_import_elsewhere_is_the_same(tmp_path, kind):
  raw = tmp_path / 'raw'
  for n in range(1, 5):
    if kind == 'openkbp':
      test_openkbp_cohort.write_patient(raw / f'pt_{n}')
    else:
      synthetic.write_patient(
        raw / f'{n}', patient=f'p{n}', prefix=f'1.2.{n}', plans=1
      )
  if kind == 'openkbp':
    (raw / 'pt_3' / 'possible_dose_mask.csv').unlink()
  else:
    broken = raw / '3' / 'a'
    broken.write_bytes(broken.read_bytes()[:3000])
  for name, engine in (('here', HERE), ('there', Elsewhere())):
    config = (
      test_openkbp_cohort.make_config(raw)
      if kind == 'openkbp'
      else test_imported.make_config(raw, 'c')
    )
    config.cohort.path = str(tmp_path / name / 'c')
    assert build_cohort(config, engine=engine)
  here, there = content(tmp_path / 'here'), content(tmp_path / 'there')
  assert 'c.import.json' in here and b'skipped' in here['c.import.json']
  assert there == here
