"""The table of structure names: TG-263, aliases, the user's own rows."""

import json

import pytest

from dvhflax import errors
from dvhflax.io import names
from dvhflax.patient import Structure

PROSTATE = ('body', 'bladder', 'rectum', 'PTV')
HEAD_AND_NECK = (
  'body', 'Brainstem', 'SpinalCord', 'RightParotid', 'LeftParotid',
  'Esophagus', 'Larynx', 'Mandible', 'PTV56', 'PTV63', 'PTV70',
)  # fmt: skip
PAIRED = (
  'LeftParotid', 'RightParotid', 'LeftEye', 'RightEye', 'LeftLens',
  'RightLens', 'LeftOpticNerve', 'RightOpticNerve', 'LeftSubmandibular',
  'RightSubmandibular', 'femoral_head_left', 'femoral_head_right',
)  # fmt: skip


@pytest.mark.parametrize(
  'name, structure',
  [
    ('BODY', 'body'),
    ('External', 'body'),
    ('Patient Outline', 'body'),
    ('Bladder', 'bladder'),
    ('bladder_O', 'bladder'),
    ('Harnblase', 'bladder'),
    ('RECTUM', 'rectum'),
    ('Rektum', 'rectum'),
    ('PTV_High', 'PTV'),
    ('PTV 78 Gy', 'PTV'),
    ('ptv_7800', 'PTV'),
    ('PTV78.4', 'PTV'),
    ('BrainStem', 'Brainstem'),
    ('Spinal Cord', 'SpinalCord'),
    ('Parotid_R', 'RightParotid'),
    ('Lt Parotid', 'LeftParotid'),
    ('Parotid-Left', 'LeftParotid'),
    ('Oesophagus', 'Esophagus'),
    ('Larynx_SG', 'Larynx'),
    ('Bone_Mandible', 'Mandible'),
    ('PTV_7000', 'PTV70'),
    ('PTV63Gy', 'PTV63'),
  ],
)
def test_known_names(name, structure):
  structures = PROSTATE if structure in PROSTATE else HEAD_AND_NECK
  match = names.match(['Couch', name], structures)
  assert match.chosen == {structure: 1}
  assert match.unmapped == ['Couch']


@pytest.mark.parametrize(
  'name, structure',
  [
    ('BRSTEM', 'Brainstem'),
    ('BrStem', 'Brainstem'),
    ('Brain Stem', 'Brainstem'),
    ('brainstem ', 'Brainstem'),
    ('Tronc cérébral', 'Brainstem'),
    ('Rückenmark', 'SpinalCord'),
    ('Ru\u0308ckenmark', 'SpinalCord'),  # decomposed
    ('RÃ¼ckenmark', 'SpinalCord'),  # UTF-8 of an undeclared character set
    ('SPCORD', 'SpinalCord'),
    ('Œsophage', 'Esophagus'),
    ('Cavum Oris Mundhöhle', None),
    ('Mundho\u0308hle', 'OralCavity'),
    ('Außenkontur', 'body'),
    ('Ko\u0308rper', 'body'),
    ('Orbit - left', 'LeftEye'),
    ('Orbit – right', 'RightEye'),
    ('Eye_L', 'LeftEye'),
    ('Bulbus oculi re', 'RightEye'),
    ('lt parotid', 'LeftParotid'),
    ('Lt. Parotid', 'LeftParotid'),
    ('Parotid (right)', 'RightParotid'),
    ('Parotis links', 'LeftParotid'),
    ('PAROTID GLAND, RT', 'RightParotid'),
    ('Parotide G', 'LeftParotid'),
    ('Parotid\u00a0L', 'LeftParotid'),  # a blank that does not break
    ('FemoralHead_L', 'femoral_head_left'),
    ('Femoral Head Rt', 'femoral_head_right'),
    ('Hüftkopf li.', 'femoral_head_left'),
    ('ON_L', 'LeftOpticNerve'),
    ('Optic Nerve - Right', 'RightOpticNerve'),
    ('SMG_R', 'RightSubmandibular'),
    ('Linse_re', 'RightLens'),
    # Margins, parts and both sides together are something else.
    ('Brainstem_PRV', None),
    ('PRV BRSTEM', None),
    ('Brainstem_Core', None),
    ('SpinalCord_PRV05', None),
    ('Spinal Canal', None),
    ('_Parotid_L', None),
    ('Parotid', None),
    ('Parotis', None),
    ('submand', None),
    ('Eyes', None),
    ('Auge', None),
    ('Hip', None),
    ('Parotid_L-PTV', None),
    ('Optic_L', None),
    ('Lens_LR', None),
    ('PTV (78)-Eye_L', None),
  ],
)
def test_real_spellings(name, structure):
  """Each stands for one structure, or for none."""
  wanted = ('body', 'Brainstem', 'SpinalCord', 'Esophagus', 'OralCavity')
  match = names.match([name], (*wanted, *PAIRED, 'PTV'))
  assert match.chosen == ({structure: 0} if structure else {})
  assert match.unmapped == ([] if structure else [name])


def test_no_name_without_a_side_stands_for_both_sides():
  """Whole rows, as of an organ of which one alternative has no side."""
  for organ in ('parotis', 'parotid gland', 'submand', 'eye', 'globe', 'linse'):
    match = names.match([organ, f'{organ} l', f'r {organ}'], PAIRED)
    assert sorted(match.chosen.values()) == [1, 2], match
    assert match.unmapped == [organ]


def test_a_cohort_may_use_names_of_tg_263():
  wanted = ('Parotid_L', 'Femur_Head_R', 'Bone_Mandible')
  found = ['LT PAROTID', 'Right femoral head', 'mandible']
  assert names.match(found, wanted).chosen == dict(zip(wanted, range(3)))


def test_rows_of_the_user_see_signs_and_decomposed_letters():
  rows = [('rectum', r'rectum_\(v2\)'), ('bladder', 'Bla\u0308schen')]
  match = names.match(['Rectum (v2)', 'Bläschen'], PROSTATE, rows)
  assert match.chosen == {'rectum': 0, 'bladder': 1}


@pytest.mark.parametrize(
  'name',
  ['RectumWall', 'Rectum^Old', 'zBladder', 'PTV-Rectum', 'PTV_Ring', 'NoBody',
   'Bladder PRV', 'CTV', 'PTV 50-78', ''],
)  # fmt: skip
def test_others_are_not_guessed_at(name):
  match = names.match([name], PROSTATE)
  assert not match.chosen and match.unmapped == [name]


def test_two_alike_are_ambiguous_and_the_better_name_wins():
  found = ['PTV_60', 'PTV_78', 'Bladder', 'Blase', 'rectum', 'Rectum']
  match = names.match(found, PROSTATE)
  assert match.ambiguous == {
    'PTV': ['PTV_60', 'PTV_78'],
    'rectum': ['rectum', 'Rectum'],
  }
  assert match.chosen == {'bladder': 2}
  assert match.passed_over == {'bladder': ['Blase']}
  assert not match.unmapped
  text = ' '.join(names.describe(match))
  assert 'PTV left out: PTV_60, PTV_78' in text and 'cohort.names' in text


def test_rows_of_the_user_come_first(tmp_path):
  path = tmp_path / 'names.json'
  path.write_text(json.dumps({'PTV': ['ptv_78'], 'rectum': ['r(o|0)']}))
  rows = names.read_table(str(path), PROSTATE)
  match = names.match(['PTV', 'PTV-78', 'R0'], PROSTATE, rows)
  assert match.chosen == {'PTV': 1, 'rectum': 2}
  assert match.passed_over == {'PTV': ['PTV']}
  assert names.read_table(None, PROSTATE) == ()


def test_names_that_look_alike_are_told_apart():
  found = ['PTV', 'Rectum', 'PTV ', 'Ring', 'Ring']
  marks = [f'ROI {n}' for n in range(5)]
  match = names.match(found, PROSTATE, (), marks)
  assert match.names == [
    'PTV (ROI 0)', 'Rectum', 'PTV (ROI 2)', 'Ring (ROI 3)', 'Ring (ROI 4)'
  ]  # fmt: skip
  assert not match.chosen.keys() - {'rectum'}
  lines = names.describe(match)
  assert '2 structures are named PTV: PTV (ROI 0), PTV (ROI 2)' in lines
  assert '2 structures are named Ring: Ring (ROI 3), Ring (ROI 4)' in lines
  assert any('PTV (ROI 0), PTV (ROI 2) match alike' in line for line in lines)
  chosen = names.match(found, PROSTATE, (('PTV', '=PTV (ROI 2)'),), marks)
  assert chosen.chosen['PTV'] == 2 and not chosen.ambiguous
  assert chosen.passed_over == {'PTV': ['PTV (ROI 0)']}


def test_a_name_that_is_anothers_with_its_number():
  found = ['PTV', 'PTV', 'PTV (ROI 3)']
  told = ['PTV (ROI 3)', 'PTV (ROI 7)', 'PTV (ROI 3) (ROI 9)']
  for index, name in enumerate(told):
    rows = [('PTV', f'={name}')]
    match = names.match(found, PROSTATE, rows, ['ROI 3', 'ROI 7', 'ROI 9'])
    assert match.names == told and match.chosen == {'PTV': index}


def test_the_very_name_that_was_chosen(tmp_path):
  path = tmp_path / 'names.json'
  table = {'PTV': ['=Boost', '=Rectum', '=Bed (PTV'], 'bladder': ['blad', '=']}
  path.write_text(json.dumps(table))
  rows = names.read_table(str(path), PROSTATE)
  match = names.match(['Bladder', 'bed (ptv', 'Bed (PTV'], PROSTATE, rows)
  assert match.chosen == {'PTV': 2} and not match.ambiguous
  # It is no other structure's, unless a better one is there.
  match = names.match(['Rectum', 'ptv'], PROSTATE, rows)
  assert match.chosen == {'PTV': 0}
  match = names.match(['Rectum', 'Boost'], PROSTATE, rows)
  assert match.chosen == {'PTV': 1, 'rectum': 0}


@pytest.mark.parametrize(
  'content, match',
  [
    ('{"PTV": ["=x"], "body": ["=x"]}', "'x' is chosen for PTV and for body"),
    ('{"PTV": ["("]}', 'no regular expression'),
    ('{"PTV": [3]}', 'no regular expression'),
    ('{"PTV": "ptv"}', 'list of patterns'),
    ('{"Heart": ["heart"]}', 'none of cohort.structures'),
    ('[1]', 'must hold'),
    ('{', 'names.json'),
    ('[' * 100_000, 'names.json: maximum recursion'),
    ('{"PTV": ["a{99999999999}"]}', 'no regular expression'),
    (f'{{"PTV": ["{"(" * 9000}"]}}', 'no regular expression'),
    (None, 'No such file'),
  ],
)
def test_faulty_tables_are_refused(tmp_path, content, match):
  path = tmp_path / 'names.json'
  if content is not None:
    path.write_text(content)
  with pytest.raises(errors.ConfigError, match=match):
    names.read_table(str(path), PROSTATE)


def test_a_damaged_name_stays_on_one_line():
  (line,) = names.describe(names.match(['PTV', '25D\n\x00'], PROSTATE))
  assert line == r'unmapped: 25D\n\x00'


def test_roles_follow_from_names():
  roles = [Structure.from_name(name).role for name in (*PROSTATE, 'CTVn')]
  assert roles == ['body', 'oar', 'oar', 'target', 'target']
