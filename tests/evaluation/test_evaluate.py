"""Evaluation: files, table, and a network that ignores its wish."""

import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest

from dvhflax.errors import CheckpointError, ConfigError, UserError
from dvhflax.evaluation import evaluate, measuring, patients, predictors
from dvhflax.training import first_dose
from dvhflax.training.sampler import Sampler


def test_run_is_evaluated(evaluation):
  with open(os.path.join(evaluation, 'printed')) as file:
    text = file.read()
  # Whether the wish is heard comes first.
  head, rectum = (line.split() for line in text.splitlines()[:2])
  assert head[-2:] == ['ratio', 'slope'] and rectum[0] == 'rectum'
  for name in (patients.SHUFFLED, patients.ANATOMY, patients.MEAN_DOSE):
    assert name in text
  for name in (
    'figure4_losses',
    'figure5_predictions',
    'figure6_violins',
    'obedience',
  ):
    with open(os.path.join(evaluation, f'{name}.png'), 'rb') as file:
      assert file.read(4) == b'\x89PNG'
  with open(os.path.join(evaluation, 'summary.json')) as file:
    summary = json.load(file)
  assert summary['samples'] == 8 and summary['split'] == 'test'
  obeyed = summary['obedience']
  assert obeyed['wishes'] == 3 + 4 and obeyed['patients'] == 2
  row = obeyed['structures']['rectum']
  of_table = summary['table1'][patients.SHUFFLED]['structures']['rectum']
  assert (
    row['shuffled']['mean_dose']['ratio'] == (of_table['mean_dose']['ratio'])
  )
  assert rectum[-1] == f'{row["slope"]["mean_dose"]:.2f}'
  # Both say the same.
  for name in ('obedience.txt', 'obedience.md'):
    with open(os.path.join(evaluation, name)) as file:
      assert f'{row["slope"]["V50%"]:.2f}' in file.read()
  with open(os.path.join(evaluation, 'samples.csv')) as file:
    assert len(file.readlines()) == 1 + 4 * 8


def test_rows_of_a_markdown_table_have_the_cells_of_its_head(evaluation):
  for name in ('obedience.md', 'table1.md'):
    text = pathlib.Path(evaluation, name).read_text()
    tables = re.findall(r'(?:^\|.*\|\n)+', text, re.MULTILINE)
    assert len(tables) >= 3
    for table in tables:
      assert len({row.count('|') for row in table.splitlines()}) == 1


def test_a_network_without_a_wish_is_asked_too(anatomy_run, tmp_path):
  workdir = shutil.copytree(anatomy_run, tmp_path / 'run')
  text = evaluate.evaluate(workdir, split='validation')
  assert 'validation patients' in text and 'test patients' not in text
  folder = os.path.join(workdir, 'evaluation_validation')
  with open(os.path.join(folder, 'summary.json')) as file:
    summary = json.load(file)
  assert summary['split'] == summary['obedience']['split'] == 'validation'
  rectum = summary['obedience']['structures']['rectum']
  assert rectum['slope']['mean_dose'] == pytest.approx(0, abs=1e-6)
  assert rectum['right_order'] == 0
  assert rectum['shuffled']['mean_dose']['ratio'] is None


def test_what_cannot_be_evaluated(trained_run):
  with pytest.raises(ConfigError, match=r'evaluation\.split=.train.: use one'):
    evaluate.evaluate(trained_run, split='train')
  with pytest.raises(UserError, match=r'mimicked=1: .* no protocol'):
    evaluate.evaluate(trained_run, mimicked=1)


@pytest.mark.slow
def test_a_network_within_is_a_baseline(matched_run, tmp_path):
  tables = []
  for anatomy in (None, first_dose.workdir_of(matched_run)):
    evaluate.evaluate(
      matched_run, anatomy_workdir=anatomy, output=str(tmp_path)
    )
    with open(tmp_path / 'summary.json') as file:
      tables.append(json.load(file)['table1'][patients.ANATOMY])
  within, alone = (str(table) for table in tables)
  assert within == alone


def test_predictions_with_and_without_the_wish_are_told_apart(cohort):
  sampler = Sampler(cohort, 'test', seed=0, own_wish_share=1.0)
  samples = sampler.samples(sampler.fixed(6))
  shuffled = samples.desired_dvh[::-1]

  def look_up_in_turn():
    # The test patients are measured in order.
    patients = iter(cohort.split('test'))

    def look_up(masks, wishes):
      p = next(patients)
      for wish in wishes:
        distance = np.abs(cohort.dvh[p] - wish).sum((1, 2))
        yield cohort.dose(p, distance[cohort.valid[p]].argmin())

    return look_up

  def ignoring(masks, wishes):
    yield from (np.zeros(cohort.grid, np.float32) for _ in wishes)

  results, _ = measuring.measure(
    {
      'perfect': (look_up_in_turn(), samples.desired_dvh),
      'perfect, shuffled': (look_up_in_turn(), shuffled),
      'ignoring': (ignoring, samples.desired_dvh),
      'ignoring, shuffled': (ignoring, shuffled),
    },
    cohort,
    samples,
  )
  errors = {
    name: np.nanmax(np.abs(r.mean_error)) for name, r in results.items()
  }
  assert errors['perfect'] == 0 and errors['perfect, shuffled'] > 5
  assert errors['ignoring'] == errors['ignoring, shuffled'] > 5


def test_shift_is_undone_by_its_opposite():
  dose = np.zeros((6, 5, 4))
  dose[2:4, 2:4, 1:3] = np.arange(8).reshape(2, 2, 2)
  moved = predictors.shift(dose, (1, -2, 1))
  assert moved[3, 0, 2] == dose[2, 2, 1]
  np.testing.assert_array_equal(predictors.shift(moved, (-1, 2, -1)), dose)


def test_no_checkpoint(tmp_path):
  with pytest.raises(CheckpointError, match='no checkpoint'):
    evaluate.evaluate(str(tmp_path))
