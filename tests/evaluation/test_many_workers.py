"""An evaluation gives the same files, whoever evaluates the patients."""

import dataclasses
import os
import pathlib
import pickle
import shutil
import signal

import pytest

from dvhflax import errors
from dvhflax.evaluation import patients
from dvhflax.evaluation.evaluate import evaluate
from dvhflax.sources import engines

# Of the tiny cohort's test patients, the last.
LAST = 7
TEXTS = ('samples.csv', 'summary.json', 'table1.txt', 'table1.md',
         'obedience.txt', 'obedience.md')  # fmt: skip


class LastFirst:
  """Sends all to another process, so to say, and begins at the end."""

  here = False

  def map(self, first, then, items):
    work = pickle.dumps(first)
    for place in reversed(range(len(items))):
      # As another process sees it, it has nothing open.
      assert pickle.loads(work)._opened is None
      yield place, engines._tried(pickle.loads(work), items[place])


class DiesOnce(patients.AtPatient):
  """Kills the first process that has the last patient."""

  marker = ''

  def __init__(self, opened):
    super().__init__(opened)
    self.died = DiesOnce.marker

  def __getstate__(self):
    return {**super().__getstate__(), 'died': self.died}

  def __call__(self, patient):
    if patient == LAST and not os.path.exists(self.died):
      pathlib.Path(self.died).touch()
      os.kill(os.getpid(), signal.SIGKILL)
    return super().__call__(patient)


def assert_same_files(folder, other):
  assert sorted(os.listdir(folder)) == sorted(
    name for name in os.listdir(other) if name != 'printed'
  )
  for name in TEXTS:
    one, two = (pathlib.Path(f, name).read_bytes() for f in (folder, other))
    assert one == two, name


def test_in_another_order_and_process(
  trained_run, anatomy_run, evaluation, tmp_path, monkeypatch
):
  monkeypatch.chdir(os.path.dirname(trained_run))
  evaluate(
    os.path.basename(trained_run),
    anatomy_workdir=os.path.basename(anatomy_run),
    output=tmp_path / 'out',
    engine=LastFirst(),
  )
  assert_same_files(tmp_path / 'out', evaluation)


@pytest.mark.parametrize('engine', [engines.HERE, LastFirst()])
def test_a_faulty_patient_is_named(trained_run, cohort_path, tmp_path, engine):
  path = shutil.copytree(cohort_path, tmp_path / 'c')
  shutil.rmtree(path / 'dose' / 'c' / str(LAST))
  with pytest.raises(
    errors.UserError, match=r'^1 of 2 patients not .*: patient p7: .*dose'
  ):
    evaluate(
      trained_run, cohort_path=path, output=tmp_path / 'out', engine=engine
    )
  assert not (tmp_path / 'out').exists()


def test_a_worker_that_finds_another_network_is_refused(trained_run):
  opened = patients.open_question(patients.Question(trained_run, 'best'))
  assert opened.question.which.isdecimal()
  other = dataclasses.replace(opened.question, weights_sha256=('0',))
  sent = patients.AtPatient(dataclasses.replace(opened, question=other))
  with pytest.raises(errors.ConfigError, match=r'on a worker: .*another step'):
    pickle.loads(pickle.dumps(sent))(LAST)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::ResourceWarning')
def test_a_cluster_whose_worker_dies(
  trained_run, anatomy_run, evaluation, tmp_path, monkeypatch
):
  pytest.importorskip('distributed')
  from dvhflax.sources.dask_engine import Dask

  monkeypatch.setattr(patients, 'AtPatient', DiesOnce)
  monkeypatch.setattr(DiesOnce, 'marker', str(tmp_path / 'died'))
  with Dask('local:2') as engine:
    evaluate(
      trained_run,
      anatomy_workdir=anatomy_run,
      output=tmp_path / 'out',
      engine=engine,
    )
  assert (tmp_path / 'died').exists()
  assert_same_files(tmp_path / 'out', evaluation)
