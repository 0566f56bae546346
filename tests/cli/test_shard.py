"""The share of the patients that a flag or a cluster's environment names."""

import pytest

from dvhflax import errors
from dvhflax.cli import shard

SLURM = {
  'SLURM_ARRAY_TASK_ID': '7',
  'SLURM_ARRAY_TASK_COUNT': '4',
  'SLURM_ARRAY_TASK_MIN': '1',
  'SLURM_ARRAY_TASK_MAX': '10',
  'SLURM_ARRAY_TASK_STEP': '3',
}
KUBERNETES = {'JOB_COMPLETION_INDEX': '2', 'JOB_COMPLETIONS': '4'}


@pytest.mark.parametrize(
  'flag, environment, wanted',
  [
    (None, {}, (0, 1)),
    ('3/5', {}, (3, 5)),
    # --array=1-10:3
    (None, SLURM, (2, 4)),
    # --array=1-12:3 has no task 12.
    (None, {**SLURM, 'SLURM_ARRAY_TASK_MAX': '12'}, (2, 4)),
    (None, {'SLURM_ARRAY_TASK_ID': '3', 'SLURM_ARRAY_TASK_COUNT': '4'}, (3, 4)),
    (None, KUBERNETES, (2, 4)),
    # Both say the same; the flag is stronger than either.
    (None, {**SLURM, **KUBERNETES}, (2, 4)),
    ('0/1', {**SLURM, 'JOB_COMPLETION_INDEX': 'x'}, (0, 1)),
  ],
)
def test_who_says_which_share(flag, environment, wanted):
  found = shard.find(flag, environment)
  assert (found.index, found.count) == wanted
  assert bool(found.told_by) == bool(flag or environment)


def test_every_task_of_an_array_has_a_share_of_its_own():
  shares = [
    shard.find(None, {**SLURM, 'SLURM_ARRAY_TASK_ID': str(task)}).index
    for task in (1, 4, 7, 10)
  ]
  assert shares == [0, 1, 2, 3]


@pytest.mark.parametrize(
  'flag, environment, words',
  [
    ('4/4', {}, '--shard=4/4: use i/n'),
    ('a/b', {}, '--shard=a/b: use i/n'),
    (None, {'SLURM_ARRAY_TASK_ID': '1'}, 'SLURM_ARRAY_TASK_COUNT is not set'),
    (None, {'SLURM_ARRAY_TASK_COUNT': '2'}, 'SLURM_ARRAY_TASK_ID is not set'),
    (None, {'JOB_COMPLETION_INDEX': '1'}, 'JOB_COMPLETIONS is not set'),
    (None, {**KUBERNETES, 'JOB_COMPLETION_INDEX': '4'}, 'is beyond JOB_COMPL'),
    (None, {**KUBERNETES, 'JOB_COMPLETIONS': 'all'}, "JOB_COMPLETIONS='all'"),
    (None, {**SLURM, 'SLURM_ARRAY_TASK_ID': '5'}, 'submit a whole range'),
    (None, {**SLURM, 'SLURM_ARRAY_TASK_ID': '13'}, 'submit a whole range'),
    # --array=1,7,8,10: which of the four is 7?
    (None, {**SLURM, 'SLURM_ARRAY_TASK_STEP': '1'}, 'submit a whole range'),
    (None, {**SLURM, 'JOB_COMPLETION_INDEX': '1', 'JOB_COMPLETIONS': '4'},
     '2/4 by SLURM_ARRAY_TASK_ID=7, SLURM_ARRAY_TASK_COUNT=4 but 1/4 by'),
  ],
)  # fmt: skip
def test_what_is_no_share_is_one_error(flag, environment, words):
  with pytest.raises(errors.ConfigError, match=r'--shard') as caught:
    shard.find(flag, environment)
  assert words in str(caught.value)
