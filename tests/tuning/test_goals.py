"""Goals of a plan, and templates of them."""

import json

import numpy as np
import pytest
from toy_network import outsider, toy_session

from dvhflax.dose_volume import Voxels
from dvhflax.dvh import DVHSpec, dvh_vectors
from dvhflax.errors import SessionError, WishError
from dvhflax.normalisation import DoseReference
from dvhflax.patient import Structure
from dvhflax.sites import SITES
from dvhflax.tuning import goals, templates
from dvhflax.tuning.templates import Templates

STRUCTURES = (
  Structure('rectum', 'oar'), Structure('PTV', 'target'),
  Structure('bladder', 'oar'),
)  # fmt: skip
# Of 100 voxels, 0.1 cc each: 0 to 99 Gy, in fractions of 50 Gy.
RECTUM = Voxels(np.arange(100, dtype=np.float32) / 50)
PTV = Voxels(np.full(100, 60 / 50, np.float32))
REFERENCE = DoseReference(50.0, 60.0)
VOLUMES_CC = np.array([10.0, 10.0, 0.0])


def one(text):
  (result,) = goals.assess(
    [text], [RECTUM, PTV, None], REFERENCE, STRUCTURES, VOLUMES_CC
  )
  return result


@pytest.mark.parametrize(
  'text, achieved, unit, by',
  [
    ('rectum V40 <= 70%', 60.0, '%', 10.0),
    ('rectum V40 <= 50%', 60.0, '%', -10.0),
    ('rectum V40 >= 50%', 60.0, '%', 10.0),
    ('rectum V50% <= 8 cc', 7.0, 'cc', 1.0),
    ('rectum mean <= 45 Gy', 49.5, 'Gy', -4.5),
    ('rectum mean <= 100%', 49.5, 'Gy', 10.5),
    ('rectum max >= 100 Gy', 99.0, 'Gy', -1.0),
    ('PTV D95 >= 95%', 60.0, 'Gy', 3.0),
    ('PTV D2cc = 60 Gy', 60.0, 'Gy', 0.0),
    ('PTV mean = 50 Gy', 60.0, 'Gy', -10.0),
    # Beyond all doses, 300% of the prescription, or all of the volume.
    ('rectum V190 <= 10%', 0.0, '%', 10.0),
    ('rectum V190 >= 10%', 0.0, '%', -10.0),
    ('rectum max <= 190 Gy', 99.0, 'Gy', 91.0),
    ('rectum V50 <= 12 cc', 5.0, 'cc', 7.0),
    ('rectum V50 >= 12 cc', 5.0, 'cc', -7.0),
  ],
)
def test_known_answers(text, achieved, unit, by):
  result = one(text)
  assert result.achieved == pytest.approx(achieved, abs=1e-4)
  assert result.unit == unit
  assert result.by == pytest.approx(by, abs=1e-4)
  assert result.met == (result.by >= 0) == (by >= 0)
  assert result.fault == '' and result.text == text


@pytest.mark.parametrize('gy', [1.0, 50.0, 66.0])
@pytest.mark.parametrize(
  'text, met',
  [
    ('rectum mean <= 49.48 Gy', True),  # has 49.50; 0.03 Gy are not printed
    ('rectum mean <= 49.46 Gy', False),
    ('rectum D50 <= 49.48 Gy', True),
    ('PTV D95 >= 60.02 Gy', True),
    ('PTV D95 >= 60.04 Gy', False),
    ('PTV max = 100%', True),
  ],
)
def test_a_dose_is_judged_alike_whatever_it_is_a_fraction_of(gy, text, met):
  """A step's is of its reference, an export's or a plan's is in Gy."""
  reference = DoseReference(gy, 60.0)
  doses = [Voxels(inside.dose * 50 / gy) for inside in (RECTUM, PTV)]
  (result,) = goals.assess(
    [text], [*doses, None], reference, STRUCTURES, VOLUMES_CC
  )
  assert result.met is met and (result.by >= 0) is met


def test_what_plans_have_of_goals():
  spec = DVHSpec('dose_at_volume', 101, 1.2)
  # Of 50 Gy: a rectum of 0 to 40, and to 80 Gy; a PTV of 55, and 60 Gy.
  plans = np.zeros((2, 3, 101), np.float32)
  plans[:, 0] = np.linspace(0, 1, 101) * [[0.8], [1.6]]
  plans[:, 1] = [[1.1], [1.2]]

  def of(text):
    (found,) = goals.ranges(
      [text], plans, spec, REFERENCE, STRUCTURES, VOLUMES_CC
    )
    assert found.text == text
    return found

  v20 = of('rectum V20 <= 60%')
  assert (v20.low, v20.high) == pytest.approx((50, 75), abs=0.5)
  assert v20.unit == '%' and v20.kept == 1
  cc = of('rectum V20 <= 4 cc')
  assert (cc.low, cc.high) == pytest.approx((5, 7.5), abs=0.05)
  assert cc.unit == 'cc' and cc.kept == 0
  mean = of('rectum mean <= 40 Gy')
  assert (mean.low, mean.high) == pytest.approx((20, 40), abs=0.5)
  d95 = of('PTV D95 >= 95%')  # of 60 Gy
  assert (d95.low, d95.high) == pytest.approx((55, 60)) and d95.kept == 1
  # A DVH has the maximum to its next level alone; the bladder is not there.
  for text in (
    'PTV max <= 60 Gy',
    'bladder mean <= 30 Gy',
    'PTV D20cc <= 1 Gy',
  ):
    assert of(text).low is of(text).kept is None
  with pytest.raises(WishError):
    of('gut mean <= 1 Gy')


def test_what_a_dvh_does_not_reach_is_not_told():
  # Of 50 Gy, levels to 60: in half of the one rectum more, in the other none.
  spec = DVHSpec('volume_at_dose', 13, 1.2)
  plans = np.zeros((2, 3, 13), np.float32)
  plans[0, 0], plans[1, 0, :5] = np.linspace(1, 0.5, 13), 1

  def of(text, plans):
    (found,) = goals.ranges(
      [text], plans, spec, REFERENCE, STRUCTURES, VOLUMES_CC
    )
    return found.low, found.high, found.kept

  for text in ('rectum V70 <= 1%', 'rectum D2 <= 60 Gy'):
    assert of(text, plans) == (None, None, None)
    assert of(text, plans[1:])[2] == 1
  assert of('rectum V60 <= 1%', plans) == pytest.approx((0, 50, 1))
  assert of('rectum D80 >= 10 Gy', plans)[2] == 2


@pytest.mark.parametrize(
  'text, words',
  [
    ('rectum V1000 <= 10%', '1000 Gy are more than any course has, 200 Gy'),
    ('rectum mean <= 4000 Gy', 'are they cGy'),
    ('rectum V301% <= 10%', 'more than 300% of the prescription; write'),
    ('rectum V70 <= 110%', 'more than all the volume'),
    ('PTV D101 >= 50 Gy', 'more than all the volume'),
    ('rectum V70 <= 10', 'give the volume of V'),
    ('rectum V5cc <= 10%', 'V is at a dose'),
    ('PTV D60Gy >= 95%', 'D is at a volume'),
    ('rectum mean <= 30', 'give the dose in Gy or in %'),
    ('rectum max <= 5 cc', 'give the dose in Gy or in %'),
  ],
)
def test_goals_that_no_dose_can_tell(text, words, tmp_path):
  assert one(text).met is None and words in one(text).fault
  with pytest.raises(WishError, match=words):
    goals.refuse_untold(['rectum V70 <= 10%', text])
  with pytest.raises(WishError, match=words):
    Templates(tmp_path).put('mine', [text])


def test_what_is_printed_as_kept_is_kept():
  # 0.02 Gy too much, of the 0.025 Gy that are not printed.
  result = one('rectum mean <= 49.48 Gy')
  assert result.met and result.by == 0


@pytest.mark.parametrize(
  'text, fault',
  [
    ('bladder V40 <= 10%', 'the patient has no bladder'),
    ('bladder D2cc <= 10 Gy', 'the patient has no bladder'),
    ('rectum D20cc <= 10 Gy', 'more than all the volume, 10.0 cc'),
  ],
)
def test_goals_that_cannot_be_told(text, fault):
  result = one(text)
  assert result.met is None and result.by is None and result.achieved is None
  assert fault in result.fault and '\n' not in result.fault


@pytest.mark.parametrize(
  'texts, words',
  [
    (['rectum V70'], 'is not a point'),
    (['colon V70 <= 10%'], "no structure 'colon'"),
    (['PTV D95 >= 9%', 'PTV  D95 >= 9%'], 'is there twice'),
    ([f'PTV D{n} >= 9 Gy' for n in range(101)], '101 goals: give 100'),
    ('PTV D95 >= 9%', 'a list of texts'),
    ([5], 'a list of texts'),
  ],
)
def test_goals_that_are_none(texts, words):
  with pytest.raises(WishError, match=words):
    goals.check(texts, STRUCTURES)


def test_goals_of_a_session(cohort):
  session = toy_session(cohort, first=False)
  texts = ['rectum V40 <= 50%', 'body mean <= 20 Gy', 'PTV D95 >= 95%']
  with pytest.raises(SessionError, match='call first_dose'):
    session.assess(texts)
  first = session.first_dose()
  step = session.tune('; '.join(texts))
  for goal, point in zip(session.assess(texts), step.points, strict=True):
    assert (goal.achieved, goal.unit) == (point['achieved'], point['unit'])
    assert goal.met == point['met']
  assert session.assess(texts, step) == session.assess(texts)
  before = session.assess(texts, first)
  assert before != session.assess(texts)
  # Of a dose in Gy, such as a plan's, it is the same.
  for goal, other in zip(before, session.assess(texts, first.dose_gy)):
    assert goal.achieved == pytest.approx(other.achieved, abs=1e-4)
    assert goal.by == pytest.approx(other.by, abs=1e-4)


def test_goals_of_a_patient_without_the_structure(cohort):
  session = toy_session(cohort, outsider(lacking=(1,)))
  (result,) = session.assess(['rectum D2cc <= 40 Gy'])
  assert result.fault == 'the patient has no rectum'


def test_built_in_templates_can_be_read_and_are_of_their_site():
  found = templates.built_in()
  assert {'prostate', 'head and neck'} <= {one.site for one in found}
  for site in SITES:
    for template in site.templates:
      assert template.site == site.name and template.built_in
      assert template.source
      goals.check(template.goals, site.structures)
      assert goals.known(template.goals, site.structures) == template.goals
  (prostate,) = (one for one in found if one.name == 'prostate-quantec')
  assert 'rectum V70 <= 20%' in prostate.goals
  assert goals.known(prostate.goals, STRUCTURES[:1]) == tuple(
    goal for goal in prostate.goals if goal.startswith('rectum')
  )


def test_templates_are_kept_in_a_folder(tmp_path):
  folder = tmp_path / 'templates'
  mine = Templates(folder)
  built_in = templates.built_in()
  assert mine.all() == built_in and not folder.exists()
  put = mine.put('my-own', ['colon  V40 <= 20%'], 'rectum')
  assert put.goals == ('colon V40 <= 20%',) and not put.built_in
  assert Templates(folder).all() == [*built_in, put]
  assert Templates(folder).get('my-own') == put
  changed = mine.put('my-own', ['PTV D95 >= 95%'])
  assert mine.get('my-own') == changed and len(list(folder.iterdir())) == 1
  mine.delete('my-own')
  assert mine.all() == built_in
  with pytest.raises(WishError, match='no template my-own'):
    mine.delete('my-own')
  with pytest.raises(WishError, match='there are prostate-quantec'):
    mine.get('my-own')


@pytest.mark.parametrize(
  'name',
  [
    '',
    '-a',
    'a-',
    'a--b',
    'a/b',
    '../a',
    'a.b',
    'a b',
    'ä',
    'a' * 61,
    'a\n',
    5,
  ],
)
def test_names_that_are_refused(name, tmp_path):
  mine = Templates(tmp_path)
  for act in (
    lambda: mine.put(name, ['PTV D95 >= 95%']),
    lambda: mine.get(name),
    lambda: mine.delete(name),
  ):
    with pytest.raises(WishError, match='no name of a template'):
      act()
  assert not list(tmp_path.iterdir())


def test_what_no_template_may_be(tmp_path):
  mine = Templates(tmp_path)
  mine.put('mine', ['PTV D95 >= 95%'])
  for name, texts, words in (
    ('Prostate-QUANTEC', ['PTV D95 >= 95%'], 'comes with the package'),
    ('Mine', ['PTV D95 >= 95%'], 'in capitals only'),
    ('none', [], 'has no goal'),
    ('none', ['PTV D95'], 'is not a point'),
  ):
    with pytest.raises(WishError, match=words):
      mine.put(name, texts)
  with pytest.raises(WishError, match='comes with the package'):
    mine.delete('prostate-quantec')
  with pytest.raises(WishError, match='line of text'):
    mine.put('none', ['PTV D95 >= 95%'], 'two\nlines')
  assert [p.name for p in tmp_path.iterdir()] == ['mine.json']


@pytest.mark.parametrize(
  'content',
  [
    '{', '[]', 'null', '{"goals": []}',
    json.dumps({'schema_version': 2, 'goals': ['PTV D95 >= 95%']}),
    json.dumps({'schema_version': 1, 'goals': 'PTV D95 >= 95%'}),
    json.dumps({'schema_version': 1, 'goals': ['nonsense']}),
    '[' * 100_000, ' ' * 200_000,
  ],
  ids=range(9),
)  # fmt: skip
def test_damaged_files(content, tmp_path):
  mine = Templates(tmp_path)
  kept = mine.put('kept', ['PTV D95 >= 95%'])
  (tmp_path / 'damaged.json').write_text(content)
  (tmp_path / 'not a name.json').write_text('{}')
  (tmp_path / 'folder.json').mkdir()
  assert mine.all() == [*templates.built_in(), kept]
  with pytest.raises(WishError, match='template damaged cannot be read'):
    mine.get('damaged')
  mine.put('damaged', ['PTV D95 >= 95%'])
  assert mine.get('damaged').goals == kept.goals


def test_a_curve_of_a_dose_is_that_of_its_vectors(cohort):
  """What is ranked gives the same vectors as what is not."""
  session = toy_session(cohort)
  step = session.tune('rectum mean <= 40 Gy')
  np.testing.assert_array_equal(
    step.dvh, dvh_vectors(step.dose, session.masks, cohort.dvh_spec)
  )
