"""A bundle of a trained run predicts what the run predicts."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

from conftest import STRUCTURES
import nibabel
import numpy as np
import pytest

import dvhflax
from dvhflax import errors
from dvhflax.cohort.store import Cohort
from dvhflax.evaluation import bundling
from dvhflax.evaluation.predict import predict_all

ROOT = pathlib.Path(dvhflax.__file__).parents[1]
SUMMARY = {'split': 'test', 'samples': 0, 'table1': {}}
WISH = 'rectum mean <= 30 Gy'


@pytest.fixture(scope='module')
def made(trained_run, evaluation, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    # The tiny patients are made up, but not by the simulation.
    patch.setattr(bundling, 'require_simulated', lambda cohort: None)
    return bundling.make_bundle(
      trained_run,
      str(tmp_path_factory.mktemp('bundling') / 'tiny'),
      evaluation=evaluation,
      patients=2,
      plans=1,
    )


@pytest.fixture
def bundle(made) -> str:
  return made.path


def test_doses_are_those_of_the_run(trained_run, made):
  """A weight of float16 is off by at most 1 in 2048 of itself."""
  of_run = dvhflax.Session.open(trained_run, 'p6')
  of_bundle = dvhflax.Session.open(made.path, 'p6')
  first = of_run.first_dose(), of_bundle.first_dose()
  # The same wish: in a DVH of so few voxels, rounding moves a whole voxel.
  curves = first[0].dvh
  tuned = of_run.tune(curves=curves), of_bundle.tune(curves=curves)
  for one, other in (first, tuned):
    assert 0 < np.abs(one.dose - other.dose).max() < 1e-3
    assert one.reference.gy == pytest.approx(other.reference.gy, rel=1e-3)
    for name, value in one.metrics['reach'].items():
      assert other.metrics['reach'][name] == pytest.approx(value)
  assert 0 < made.change < 1e-3
  assert made.size == sum(
    p.stat().st_size for p in pathlib.Path(made.path).rglob('*') if p.is_file()
  )


@pytest.mark.slow
def test_a_network_within_keeps_the_ranks(matched_run, tmp_path, monkeypatch):
  """The dose that is matched to a wish hangs on the order of its voxels."""
  monkeypatch.setattr(bundling, 'require_simulated', lambda cohort: None)
  monkeypatch.setattr(bundling, '_summary', lambda folder, step: SUMMARY)
  made = bundling.make_bundle(matched_run, str(tmp_path / 'x'), patients=1)
  one, other = (
    dvhflax.Session.open(path, 'p6') for path in (matched_run, made.path)
  )
  curves = one.cohort.dvh[6, 1]
  tuned = one.tune(curves=curves).dose, other.tune(curves=curves).dose
  assert 0 < np.abs(tuned[0] - tuned[1]).max() < 1e-3


def test_a_trail_tells_which_weights(trained_run, bundle, tmp_path):
  session = dvhflax.Session.open(bundle, 'p6')
  session.first_dose()
  session.save(tmp_path / 'trail.json')
  network = session.identity['network']
  of_run = dvhflax.load_network(trained_run)[0].identity
  assert network['workdir'] == 'tiny' and network['step'] == of_run['step']
  # Other weights, which are made of the run's.
  assert network['weights_sha256'] != of_run['weights_sha256']
  assert network['unrounded_sha256'] == of_run['weights_sha256']
  # A bundle is the same wherever it lies.
  moved = shutil.copytree(bundle, tmp_path / 'moved')
  replayed = dvhflax.Session.open(moved, 'p6').replay(tmp_path / 'trail.json')
  assert len(replayed) == 1
  with pytest.raises(errors.SessionError, match='another checkpoint'):
    dvhflax.Session.open(trained_run, 'p6').replay(tmp_path / 'trail.json')


def test_it_tells_no_place_and_goes_with_the_whole_cohort(bundle, cohort_path):
  text = pathlib.Path(bundle, 'bundle.json').read_text()
  assert os.path.dirname(cohort_path) not in text
  assert json.loads(text)['config']['cohort']['path'] == 'tiny'
  with pytest.raises(errors.CohortError, match=r'no masks of p0.*of p6, p7'):
    dvhflax.Session.open(bundle, 'p0')
  dvhflax.Session.open(bundle, 'p0', cohort_path=cohort_path).first_dose()


def test_the_card_has_the_evaluation(evaluation, bundle):
  card = pathlib.Path(bundle, 'card.md').read_text()
  summary = json.loads(pathlib.Path(evaluation, 'summary.json').read_text())
  row = summary['table1']['network']['structures']['rectum']['mean_dose']
  assert f'| rectum | network | {row["mean"]:+.2f} ± {row["std"]:.2f} |' in card
  slope = summary['obedience']['structures']['rectum']['slope']['mean_dose']
  assert f'\n| rectum | {slope:.2f} |' in card
  for words in (
    'not for clinical use',
    '| train patients | 5, 2 to 4 plans each |',
    'Masks of p6, p7 with 1 doses of each',
  ):
    assert words in card


@pytest.mark.slow
def test_the_command_predicts_from_it(bundle, tmp_path):
  """As after `pip install`: no cohort, no run, no download."""
  package = tmp_path / 'dvhflax'
  shutil.copytree(
    ROOT / 'dvhflax', package, ignore=shutil.ignore_patterns('__pycache__')
  )
  shutil.copytree(bundle, package / 'pretrained' / 'tiny')
  here = tmp_path / 'here'
  here.mkdir()

  def predict(*flags):
    return subprocess.run(
      [sys.executable, '-m', 'dvhflax', 'predict', *flags],
      cwd=here,
      env={**os.environ, 'PYTHONPATH': str(tmp_path)},
      capture_output=True,
      text=True,
      timeout=60,  # the minute that a new user is promised
    )

  done = predict('--network=tiny', '--patient=p6', f'--points={WISH}')
  assert done.returncode == 0, done.stderr
  assert WISH in done.stdout
  written = here / 'predictions' / 'tiny' / 'p6'
  with np.load(written / 'dose.npz') as stored:
    expected = dvhflax.Session.open(bundle, 'p6')
    expected.first_dose()
    np.testing.assert_allclose(
      stored['dose'], expected.tune(WISH).dose, atol=1e-5
    )
  # Nothing is written among installed packages.
  assert not (package / 'pretrained' / 'tiny' / 'predictions').exists()
  unknown = predict('--network=prostat', '--patient=p6')
  assert unknown.returncode == 2 and 'there are tiny' in unknown.stderr
  both = predict('--network=tiny', '--workdir=x', '--patient=p6')
  assert both.returncode == 2 and 'one of the two' in both.stderr


def test_patients_from_outside(trained_run, bundle, cohort, tmp_path):
  masks = cohort.masks(6)
  folder = tmp_path / 'in' / 'new'
  folder.mkdir(parents=True)
  for s, structure in enumerate(STRUCTURES):
    image = nibabel.Nifti1Image(masks[..., s], np.diag([-3.0, -3.0, 5.0, 1.0]))
    nibabel.save(image, folder / f'{structure.name}.nii.gz')
  one, other = (
    next(predict_all(str(path), nifti=str(folder), output=str(tmp_path / name)))
    for name, path in (('run', trained_run), ('bundle', bundle))
  )
  np.testing.assert_allclose(one.step.dose, other.step.dose, atol=1e-3)
  assert one.session.record.prescription_gy == 78


def test_what_a_bundle_is_not(bundle, cohort, config, tmp_path):
  with pytest.raises(errors.CheckpointError, match='without test plans'):
    dvhflax.evaluate(bundle)
  with pytest.raises(errors.CheckpointError, match='not trained on'):
    dvhflax.train(config, cohort, bundle)
  with pytest.raises(errors.UserError, match='bundle already'):
    bundling.make_bundle(bundle, str(tmp_path / 'x'))


def test_what_is_not_bundled(trained_run, evaluation, tmp_path, monkeypatch):
  out = str(tmp_path / 'x')
  with pytest.raises(errors.CohortError, match='not of simulated patients'):
    bundling.make_bundle(trained_run, out)
  monkeypatch.setattr(bundling, 'require_simulated', lambda cohort: None)
  for patients, plans in ((0, 0), (3, 0), (1, -1)):
    with pytest.raises(errors.UserError, match='there are 2 test patients'):
      bundling.make_bundle(trained_run, out, patients=patients, plans=plans)
  with pytest.raises(errors.UserError, match=r'summary\.json is missing'):
    bundling.make_bundle(trained_run, out, patients=1, evaluation=str(tmp_path))
  summary = json.loads(pathlib.Path(evaluation, 'summary.json').read_text())
  summary['step'] -= 1
  (tmp_path / 'summary.json').write_text(json.dumps(summary))
  with pytest.raises(errors.UserError, match=r'is of step 5, .* of step 6'):
    bundling.make_bundle(trained_run, out, patients=1, evaluation=str(tmp_path))
  assert not os.path.exists(out)


@pytest.mark.parametrize(
  'provenance, refused',
  [
    ({'source': 'simulated'}, False),
    ({'source': 'store', 'from': {'source': 'simulated'}}, False),
    ({'source': 'store', 'from': {'source': 'dicom'}}, True),
    ({'source': 'openkbp'}, True),
    ({}, True),
  ],
)
def test_whose_patients_are_given_away(provenance, refused, cohort):
  metadata = dataclasses.replace(cohort.metadata, provenance=provenance)
  of = Cohort(cohort.path, metadata)
  if not refused:
    return bundling.require_simulated(of)
  with pytest.raises(errors.CohortError, match='not of simulated patients'):
    bundling.require_simulated(of)


def test_a_plan_of_another_patient(bundle, tmp_path):
  copy = shutil.copytree(bundle, tmp_path / 'copy')
  plans = copy / 'cohort' / 'dose' / 'c'
  shutil.copy(plans / '7/0/0/0/0', plans / '6/0/0/0/0')
  with pytest.raises(
    errors.CheckpointError, match=r'cohort/dose/c/6/0/0/0/0 is .* another one'
  ):
    dvhflax.Session.open(copy, 'p6')
