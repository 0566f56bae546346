"""Engines: what they promise."""

import threading

import pytest

from dvhflax import errors
from dvhflax.sources.engines import HERE


def test_here_the_second_step_is_beside_the_next_first():
  seen = []

  def first(item):
    seen.append((item, threading.get_ident()))
    if item == 1:
      raise errors.CohortError('faulty')
    return item

  def then(value):
    if value == 2:
      raise errors.PlanningError('cannot')
    return 10 * value, threading.get_ident()

  found = dict(HERE.map(first, then, range(4)))
  assert list(found) == [0, 1, 2, 3]
  assert str(found[1]) == 'faulty' and str(found[2]) == 'cannot'
  assert (found[0][0], found[3][0]) == (0, 30)
  me = threading.get_ident()
  assert seen == [(i, me) for i in range(4)]
  assert me not in (found[0][1], found[3][1])
  assert list(HERE.map(str, None, [7, 8])) == [(0, '7'), (1, '8')]


def test_here_a_bug_ends_all_after_what_is_under_way():
  done = []

  def first(item):
    if item == 2:
      raise ZeroDivisionError
    return item

  with pytest.raises(ZeroDivisionError):
    list(HERE.map(first, done.append, range(4)))
  assert done == [0, 1]
