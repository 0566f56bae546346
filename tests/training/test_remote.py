"""Workdirs at a URL: the same run, and a whole checkpoint after every kill."""

import functools
import http.server
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from s3_server import s3  # noqa: F401

from dvhflax import errors
from dvhflax.cohort import place
from dvhflax.evaluation.export import export
from dvhflax.training import history, remote, runs, url_files
from dvhflax.training.resuming import open_cohort
from dvhflax.training.train import train
from dvhflax.training.url_files import UrlFiles
from dvhflax.training.url_sender import Sender

# Of a checkpoint that cannot be read, TensorStore still brings arrays to
# Orbax's event loop, which is closed.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)
ROOT = pathlib.Path(__file__).parents[2]
URL = 's3://bucket/a/run'


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
  monkeypatch.setattr(url_files, '_SENDING_RETRIES', 0)


def upload(folder, server, prefix='a/run/'):
  for path in pathlib.Path(folder).rglob('*'):
    if path.is_file():
      name = prefix + path.relative_to(folder).as_posix()
      server.objects[name] = path.read_bytes()


def assert_same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def assert_same_run(url, folder):
  for which in ('best', 'latest'):
    (_, one, _, _, step), (_, other, _, _, step_of_other) = (
      runs.restore(workdir, which) for workdir in (url, folder)
    )
    assert step == step_of_other
    assert_same(one, other)
  assert history.read(url) == history.read(folder)


def make_step(folder, step, value):
  path = pathlib.Path(folder, 'checkpoints', str(step))
  for name in ('model/a', 'model/b', 'train/a', '_CHECKPOINT_METADATA'):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text(f'{value} {step} {name}')


def whole_steps(files, folder):
  """Those at the URL; all of their files must be as they were sent."""
  names = files.names()
  steps = {url_files.step_of(name) for name in names} - {None}
  for step in steps:
    there = {name: files.read(name) for name in names if step + '/' in name}
    here = {
      f'{step}/{path.relative_to(folder / step).as_posix()}': path.read_bytes()
      for path in (folder / step).rglob('*')
      if path.is_file()
    }
    assert there == here
  return {int(step.rpartition('/')[2]) for step in steps}


@pytest.mark.slow
def test_a_whole_checkpoint_is_there_whenever_it_ends(s3, tmp_path):  # noqa: F811
  everything = tmp_path / 'all'
  for step in (3, 6, 9):
    make_step(everything, step, 'of')
  ends = 0
  for allowed in range(100):
    s3.objects, s3.takes = {}, lambda *_: True
    work = tmp_path / f'work{allowed}'
    make_step(work, 3, 'of')
    files = UrlFiles(URL)
    sender = Sender(files, str(work))
    sender.send()
    left = [allowed]

    def takes(*_, left=left):
      left[0] -= 1
      return left[0] >= 0

    s3.takes = takes
    try:
      for step, gone in ((6, 3), (9, 6)):
        make_step(work, step, 'of')
        shutil.rmtree(work / 'checkpoints' / str(gone))
        sender.send()
    except errors.StorageError as error:
      assert 'AccessDenied' in str(error)
      ends += 1
    finished = left[0] >= 0
    found = whole_steps(files, everything)
    assert found and (not finished or found == {9})
    # Another machine goes on from there, and leaves no halves behind.
    s3.takes = lambda *_: True
    again = tmp_path / f'again{allowed}'
    again.mkdir()
    resumed = Sender(files, str(again))
    resumed.bring(lambda name: url_files.step_of(name) is not None)
    resumed.send()
    kept = {url_files.step_of(name) for name in files.listed()} - {None}
    assert {int(s.rpartition('/')[2]) for s in kept} == found
    if finished:
      break
  assert ends > 10


@pytest.mark.slow
def test_training_goes_on_on_another_machine(
  s3, config, cohort, trained_run, tmp_path  # noqa: F811
):  # fmt: skip
  def takes(method, key):
    return not key.endswith('checkpoints/6/_CHECKPOINT_METADATA')

  s3.takes = takes
  with pytest.raises(
    errors.StorageError, match=rf'{URL} is not written: .*cred'
  ):
    train(config, cohort, URL)
  assert runs.restore(URL, 'latest')[-1] == 3
  s3.takes = lambda *_: True
  assert open_cohort(config, URL).path == cohort.path
  state = train(config, cohort, URL + '/')
  assert int(state.step) == 6
  assert_same_run(URL, trained_run)
  for name in ('history.csv', 'terms.csv'):
    here = pathlib.Path(trained_run, name).read_bytes()
    assert s3.objects[f'a/run/{name}'] == here
  names = s3.objects['a/run/files.txt'].decode().split()
  assert 'checkpoints/6/_CHECKPOINT_METADATA' in names
  assert any(name.startswith('tensorboard/') for name in names)
  # Its files make a folder that is a run.
  for name, value in s3.under('a/run/').items():
    path = tmp_path / 'copied' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value)
  assert_same_run(str(tmp_path / 'copied'), trained_run)


@pytest.mark.slow
def test_a_killed_training_goes_on(s3, config, cohort, trained_run):  # noqa: F811
  script = (
    'import sys; sys.path.insert(0, "tests"); import conftest; '
    'config = conftest.make_config(sys.argv[1]); '
    'conftest.train_in(sys.argv[2], config)'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', script, config.cohort.path, URL],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )

  def takes(method, key):
    if key.startswith('a/run/checkpoints/6/model/'):
      process.kill()
    return True

  s3.takes = takes
  assert process.wait(300) == -signal.SIGKILL
  assert any('checkpoints/6/' in key for key in s3.objects)
  assert runs.restore(URL, 'latest')[-1] == 3
  train(config, cohort, URL)
  assert_same_run(URL, trained_run)


def test_the_training_that_began_last_goes_on(s3, tmp_path):  # noqa: F811
  senders = []
  for name in ('one', 'two'):
    make_step(tmp_path / name, 3, name)
    senders.append(Sender(UrlFiles(URL), str(tmp_path / name)))
  senders[0].send()
  with pytest.raises(errors.UserError, match='has saved there meanwhile'):
    senders[1].send()
  senders[0].send()
  third = Sender(UrlFiles(URL), str(tmp_path / 'three'))
  third.bring(lambda _: True)
  third.send()
  make_step(tmp_path / 'one', 6, 'one')
  with pytest.raises(errors.UserError, match='another training has begun'):
    senders[0].send()
  assert {*UrlFiles(URL).names()} == {
    *(f'checkpoints/3/{n}' for n in
      ('model/a', 'model/b', 'train/a', '_CHECKPOINT_METADATA')),
    'files.txt', 'training.txt',
  }  # fmt: skip


def test_only_what_is_needed_is_brought(s3, trained_run, tmp_path):  # noqa: F811
  upload(trained_run, s3)
  with remote.opened(URL) as there:
    assert os.path.basename(there.path) == 'run'
    before = {p.parent.name for p in pathlib.Path(there.path).rglob('*')}
    assert 'config' in before and not before & {'model', 'train', 'd'}
    there.bring('checkpoints/6/model/')
    assert pathlib.Path(
      there.path, 'checkpoints/6/model/manifest.ocdbt'
    ).exists()
  assert not os.path.exists(there.path)
  assert_same_run(URL, trained_run)
  network, store = runs.load_network(URL)
  folder, _ = runs.load_network(trained_run)
  assert store.path and network.identity['workdir'] == 'run'
  assert (
    network.identity['weights_sha256'] == (folder.identity['weights_sha256'])
  )
  for workdir in (URL, trained_run):
    export(workdir, str(tmp_path / f'{workdir[:2]}.onnx'))
  assert (tmp_path / 's3.onnx').read_bytes() == (
    tmp_path / f'{trained_run[:2]}.onnx'
  ).read_bytes()


def test_what_is_wrong_is_said_by_the_name_of_the_url(
  s3, config, cohort, trained_run, monkeypatch  # noqa: F811
):  # fmt: skip
  upload(trained_run, s3)
  key = next(k for k in s3.objects if k.endswith('6/model/manifest.ocdbt'))
  s3.objects[key] = b'\0' * 40
  with pytest.raises(
    errors.DamagedCheckpoint, match=rf"^{URL}/checkpoints/6: its 'model'"
  ):
    runs.restore(URL, 'latest')
  with pytest.raises(errors.CheckpointError, match=r'^s3://bucket/b has no ch'):
    runs.restore('s3://bucket/b')
  for name in ('runs.restore', 'train'):
    ask = {
      'runs.restore': runs.restore,
      'train': functools.partial(train, config, cohort),
    }[name]
    with pytest.raises(
      errors.CheckpointError, match=r's3://none/run is not read: .*make the b'
    ):
      ask('s3://none/run')
  s3.objects['a/run/bundle.json'] = b'{}'
  with pytest.raises(errors.CheckpointError, match='is a bundle: copy it'):
    runs.restore(URL)
  with pytest.raises(errors.ConfigError, match='--output=s3://x is a URL'):
    export(URL, 's3://x')
  monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'another')
  place.context.cache_clear()
  with pytest.raises(errors.CheckpointError, match=r'run is not read: .*AWS_'):
    runs.restore(URL)


class Quiet(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *_):
    pass


def test_over_http_a_run_is_read(config, cohort, trained_run, tmp_path):
  run = pathlib.Path(shutil.copytree(trained_run, tmp_path / 'run'))
  handler = functools.partial(Quiet, directory=str(tmp_path))
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
      url = f'http://127.0.0.1:{server.server_port}/run'
      with pytest.raises(errors.CheckpointError, match=r'has no files\.txt'):
        runs.restore(url)
      names = subprocess.run(
        ['find', '.', '-type', 'f'], cwd=run, capture_output=True, text=True
      ).stdout
      (run / 'files.txt').write_text(names + './../outside\n/outside\n')
      assert_same_run(url, trained_run)
      with pytest.raises(errors.ConfigError, match='can only be read: train'):
        train(config, cohort, url)
      with pytest.raises(errors.ConfigError, match='can only be read: give as'):
        remote.require_writable(url, '--output')
    finally:
      server.shutdown()
      thread.join()


def test_a_file_url_is_a_workdir(config, cohort, trained_run, tmp_path):
  url = f'file://{tmp_path}/run'
  train(config, cohort, url)
  assert_same_run(url, trained_run)
  assert_same_run(str(tmp_path / 'run'), trained_run)
