"""Folders of patients: one each, whatever their ids."""

import os
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from dvhflax.report.folder_names import MOST_BYTES, folder_name


@pytest.mark.parametrize(
  'patient', ['p0', 'LUNG1-001', 'sim-0001', 'a.b_c', '12_345', 'M\u00fcller']
)
def test_plain_ids_are_kept(patient):
  assert folder_name(patient) == patient
  assert folder_name(patient, [patient, 'other']) == patient


def test_ids_that_differ_by_signs_alone():
  """Characters that file names cannot have (dcm2niix issue 425)."""
  ids = ['12/345', '12_345', '12 345']
  names = [folder_name(one, ids) for one in ids]
  assert names[1] == '12_345'
  assert all(name.startswith('12_345~') for name in (names[0], names[2]))
  assert len(set(names)) == 3
  # Whoever else is predicted for.
  assert names == [folder_name(one) for one in ids]


ODD = (
  '', '.', '..', '../up', '/etc/passwd', 'C:\\x', '.hidden', 'a.', 'a ', 'a',
  'CON', 'con', 'con.1', 'nul', 'COM1', 'com\u00b9', 'LPT9.txt', 'a\nb',
  'a\0b', 'A', '\ud800', 'x' * 300, 'x' * 301, '\u5c71' * 100, '-rf', '~',
  'u\u0308', '\u00fc', 'a~0123456789',
)  # fmt: skip


def names_of(ids):
  """Names that must differ on any file system."""
  names = [folder_name(one, ids) for one in ids]
  folded = {unicodedata.normalize('NFD', n).casefold() for n in names}
  assert len(folded) == len(set(ids))
  for name in names:
    assert len(name.encode()) <= MOST_BYTES and name == os.path.basename(name)
    assert name[0] not in '.-~' and name[-1] not in '. '
    assert name.split('.')[0].lower() not in ('con', 'nul', 'com1', 'lpt9')
    assert name.isprintable() and not set(name) & set('<>:"/\\|?*\0')
  return names


def test_every_id_gets_a_name_that_file_systems_take():
  names = names_of(ODD)
  assert names[ODD.index('a')] != names[ODD.index('A')]
  # Nobody else's, so that they stay what they are.
  assert folder_name('A') == 'A' and folder_name('a') == 'a'


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(max_size=6), unique=True, max_size=6))
def test_any_ids(ids):
  names_of(ids)


@pytest.mark.parametrize(
  'content, kept',
  [
    ('{"patient": "AB"}', False),
    ('{"patient": "ab"}', True),
    ('{}', True),
    ('[', True),
  ],
)
def test_the_folder_of_another_is_left_alone(tmp_path, content, kept):
  """As `AB` finds it where capitals and small letters are the same."""
  (tmp_path / 'ab').mkdir()
  (tmp_path / 'ab' / 'metrics.json').write_text(content)
  name = folder_name('ab', output=str(tmp_path))
  assert (name == 'ab') == kept
