"""A sample of the damaged input that `python -m inputs` reads 10,000 of."""

import os
import pathlib
import random

import pytest

from inputs import damage, kinds, pool

# Fast enough for a look at every kind that needs no JAX; of all, when slow.
SAMPLE = {'NIfTI': 20, 'wish files': 30}


def check(outcome, number):
  assert outcome.faults == []
  assert sum(outcome.counts.values()) == number
  # Neither is all refused, nor all taken for sound.
  assert outcome.counts['refused'] and outcome.counts['refused'] < number


@pytest.mark.parametrize('name', SAMPLE)
def test_a_sample(name):
  check(pool.run(name, range(SAMPLE[name])), SAMPLE[name])


@pytest.mark.slow
@pytest.mark.parametrize('name', kinds.KINDS)
def test_10_000(name):
  number = kinds.shares(10_000)[name]
  check(pool.run(name, range(number)), number)


def test_shares_are_all():
  assert abs(sum(kinds.shares(10_000).values()) - 10_000) < 10


class Faulty:
  """A kind whose reader does one thing that none may do."""

  words = ('file',)

  def make(self, folder):
    (folder / 'file').write_text('x')

  def open(self, folder):
    pass

  def damage(self, folder, rng):
    return ''

  def read(self, folder, rng):
    raise NotImplementedError


class Raising(Faulty):
  def read(self, folder, rng):
    raise KeyError('x')


class Nonsense(Faulty):
  def read(self, folder, rng):
    raise AssertionError


class Writing(Faulty):
  def read(self, folder, rng):
    pathlib.Path(folder.parents[1], 'elsewhere').write_text('x')
    return []


class Changing(Faulty):
  def read(self, folder, rng):
    (folder / 'file').write_text('changed')
    return []


class Greedy(Faulty):
  def read(self, folder, rng):
    return [str(len(bytearray(3 * 2**30)))]


class Dying(Faulty):
  def read(self, folder, rng):
    os._exit(139)


class Vague(Faulty):
  def read(self, folder, rng):
    return ['cannot be read']


@pytest.mark.parametrize(
  'cls, words',
  [
    pytest.param(Raising, "KeyError: 'x'", marks=pytest.mark.slow),
    pytest.param(Nonsense, 'AssertionError', marks=pytest.mark.slow),
    (Writing, 'elsewhere'),
    pytest.param(Changing, 'was changed', marks=pytest.mark.slow),
    pytest.param(Greedy, 'MemoryError', marks=pytest.mark.slow),
    (Dying, 'ended with 139'),
    pytest.param(Vague, 'neither file nor key', marks=pytest.mark.slow),
  ],
)
def test_faults_are_seen(cls, words):
  outcome = pool.run(f'test_inputs:{cls.__name__}', [0])
  assert outcome.counts == {'fault': 1}
  assert words in outcome.faults[0]['text']


def test_damage_follows_from_its_seed():
  content = bytes(range(256)) * 4
  found = [
    [damage.bytes_of(content, random.Random(n)) for n in range(50)]
    for _ in range(2)
  ]
  assert found[0] == found[1]
  assert sum(one != content for one in found[0]) > 45
