"""Locked structures become no worse, and wishes go as far as that lets them."""

import json

import numpy as np
import pytest
from toy_network import BODY, CROSS_TALK, PTV, RECTUM, toy_session

from dvhflax import metrics
from dvhflax.errors import SessionError, WishError
from dvhflax.tuning import lock as lock_lib

NAMES = ('body', 'rectum', 'PTV')
# Of 78 Gy: what the lock's docstring allows of a mean, and of a maximum.
MEAN_GY, MAX_GY = 0.39, 0.78


@pytest.fixture
def session(cohort):
  """Its current wish is what the dose has, nearly, as after some tuning."""
  session = toy_session(cohort)
  session.tune(curves=session.current.dvh, reference_gy=78.0)
  return session


def of(session, step, structure):
  """(mean, max) in Gy."""
  means, maxima = metrics.means_and_maxima(
    step.dose_gy, session.masks, session.present
  )
  return means[structure], maxima[structure]


def test_a_wish_is_taken_as_far_as_the_lock_holds(session):
  before = session.current
  free = session.tune('body mean <= 12 Gy')
  assert of(session, free, RECTUM)[0] > of(session, before, RECTUM)[0] + 1
  session.undo()
  session.lock(['rectum'])
  step = session.tune('body mean <= 12 Gy')
  assert 0 < step.held.share < 1 and step.held.by == 'rectum'
  assert 'at the lock' in step.held.why
  (mean, most), (was, largest) = (
    of(session, one, RECTUM) for one in (step, before)
  )
  assert mean <= was + MEAN_GY and most <= largest + MAX_GY
  # It went some of the way, about as far as the cross-talk allows.
  body, started = (of(session, one, BODY)[0] for one in (step, before))
  assert body < started
  assert started - body == pytest.approx(
    step.held.share * (started - of(session, free, BODY)[0]), rel=0.1
  )
  assert (started - body) * CROSS_TALK < 2 * MEAN_GY


def shares_that_hold(session, wish):
  """By trying all of them."""
  start, held = session.current, []
  for share in np.linspace(0, 1, 101)[1:]:
    part = lock_lib.part(start, wish, share)
    dose = session._subject.dose(part)
    worst = lock_lib.worst(session._locks, *session._subject.read(dose))[0]
    held.append(worst.tolerances <= 1)
  return np.linspace(0, 1, 101)[1:][np.array(held)]


@pytest.mark.parametrize(
  'locked, wish',
  [
    (['rectum'], 'body mean <= 12 Gy'),
    (['rectum'], 'body mean <= 20 Gy; PTV D95 >= 96%'),
    (['rectum', 'PTV'], 'body V20 <= 20%'),
    (['body'], 'rectum mean <= 30 Gy'),
  ],
)
def test_the_share_is_close_to_the_largest(session, locked, wish):
  session.lock(locked)
  _, asked = session._wish(wish, None, None)
  held = shares_that_hold(session, asked)
  step = session.tune(wish)
  largest = held.max() if held.size else 0
  assert largest - 0.06 <= step.held.share <= largest + 0.01


def test_a_lock_never_makes_worse(session):
  """Whatever is asked of the others, one wish after another."""
  session.lock(['rectum', 'PTV'])
  then = session.current
  rng = np.random.default_rng(0)
  for _ in range(25):
    step = session.tune(f'body mean <= {rng.uniform(8, 30):.1f} Gy')
    mean, most = of(session, step, RECTUM)
    was, largest = of(session, then, RECTUM)
    assert mean <= was + MEAN_GY and most <= largest + MAX_GY
    assert of(session, step, PTV)[1] <= of(session, then, PTV)[1] + MAX_GY
    for name in ('D98%', 'D95%'):
      achieved, at_lock = (
        one.metrics['achieved']['PTV'][name] for one in (step, then)
      )
      assert achieved >= at_lock - MEAN_GY
    assert 0 <= step.held.share <= 1


def test_what_needs_no_holding_is_taken_whole(session):
  session.lock(['PTV'])
  step = session.tune('body mean <= 12 Gy')
  assert step.held.share == 1 and step.held.by == ''
  # The wish for the locked one is the curve that it had.
  np.testing.assert_array_equal(
    step.desired_dvh[PTV], session.steps[-2].dvh[PTV]
  )
  session.lock([])
  assert session.tune('body mean <= 11 Gy').held is None


def test_the_curve_given_for_a_locked_structure_does_not_count(session):
  session.lock(['rectum'])
  curves = session.current.desired_dvh.copy()
  curves[RECTUM] = session.cohort.dvh[0, 0, RECTUM]
  step = session.tune(curves=curves, reference_gy=78.0)
  np.testing.assert_array_equal(
    step.desired_dvh[RECTUM], session.steps[-2].dvh[RECTUM]
  )


def test_a_preview_marks_what_would_become_worse(session):
  session.lock(['rectum', 'PTV'])
  assert session.preview('body mean <= 12 Gy').worse == ('rectum',)
  assert session.preview('body mean <= 30 Gy').worse == ()


def test_locked_structures_and_their_words(session, cohort):
  assert session.locked == ()
  assert session.lock(['PTV', 'rectum', 'PTV']) == ('PTV', 'rectum')
  for act in (session.tune, session.preview):
    with pytest.raises(WishError, match='rectum is locked as it is'):
      act('rectum mean <= 30 Gy')
  with pytest.raises(WishError, match="'colon' cannot be locked"):
    session.lock(['colon'])
  assert session.locked == ('PTV', 'rectum')
  lacking = toy_session(cohort, 'p1')
  with pytest.raises(WishError, match="'rectum' cannot be locked"):
    lacking.lock(['rectum'])
  with pytest.raises(SessionError, match='call first_dose'):
    toy_session(cohort, first=False).lock(['rectum'])


def test_a_structure_stays_held_against_its_own_lock(session):
  """Another lock, later, does not move the first."""
  session.lock(['PTV'])
  session.tune('body mean <= 20 Gy')
  then = session._locks[0].step
  session.lock(['rectum', 'PTV'])
  locks = {lock.structure.name: lock.step for lock in session._locks}
  assert locks['PTV'] is then and locks['rectum'] is session.current


def test_from_a_dose_that_breaks_the_lock(session):
  """After going back, tuning starts from the step of the lock."""
  low = session.tune('rectum mean <= 35 Gy')
  session.lock(['rectum'])
  session.balanced()
  step = session.tune('body mean <= 12 Gy')
  assert of(session, step, RECTUM)[0] <= of(session, low, RECTUM)[0] + MEAN_GY


def test_locks_are_replayed(session, cohort, tmp_path):
  path = tmp_path / 'trail.json'
  session.lock(['rectum'])
  held = session.tune('body mean <= 12 Gy')
  session.lock(['PTV'])
  session.tune('body mean <= 8 Gy')
  session.lock(['rectum', 'body'])
  session.save(path)
  entries = json.loads(path.read_text())['steps']
  assert [e['action'] for e in entries].count('lock') == 3
  again = toy_session(cohort, first=False)
  again.replay(path)
  assert again.locked == session.locked
  for one, other in zip(session.steps, again.steps, strict=True):
    np.testing.assert_array_equal(one.dose, other.dose)
    assert one.held == other.held
  assert again.steps[2].held == held.held
  # And what follows is the same, too.
  wish = 'PTV D95 >= 97%'
  np.testing.assert_array_equal(session.tune(wish).dose, again.tune(wish).dose)


def test_few_doses_are_computed(session, monkeypatch):
  calls = []
  dose = session._subject.dose
  monkeypatch.setattr(
    session._subject, 'dose', lambda wish: calls.append(1) or dose(wish)
  )
  session.lock(['rectum'])
  session.tune('body mean <= 12 Gy')
  assert len(calls) <= 8


def test_the_search_for_a_share():
  def excess(share, bound=0.3):
    tolerances = 0.0 if share <= bound else 1 + 40 * (share - bound)
    return lock_lib.Excess(tolerances, 'rectum', f'{share:.2f}')

  share, by = lock_lib.furthest(excess, excess(1.0))
  assert 0.25 <= share <= 0.3 and by.structure == 'rectum'
  # Where next to nothing can be had, it is none.
  share, _ = lock_lib.furthest(lambda s: excess(s, 1e-9), excess(1.0, 1e-9))
  assert share == 0
