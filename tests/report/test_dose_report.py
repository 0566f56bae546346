"""The report on a dose: letters of any language."""

from matplotlib import font_manager
import numpy as np
import pytest

from dvhflax.patient import Structure
from dvhflax.report import dose_report, letters


def report(note):
  masks = np.zeros((8, 8, 8, 2), np.uint8)
  masks[..., 0] = 1
  masks[2:6, 2:6, 2:6, 1] = 1
  return dose_report.DoseReport(
    title='Step 1',
    patient='p1',
    prescription_gy=70.0,
    facts=[],
    note=note,
    dose_gy=70.0 * masks[..., 1].astype(np.float32),
    masks=masks,
    structures=(Structure('body', 'body'), Structure('PTV', 'target')),
    spacing_mm=(3.0, 3.0, 3.0),
    ct=None,
    desired={},
    goals=[],
    achieved={},
    wished=None,
  )


@pytest.fixture
def only_dejavu(monkeypatch):
  """As on a machine without other fonts."""
  manager = font_manager.fontManager
  fonts = [f for f in manager.ttflist if f.name.startswith('DejaVu Sans')]
  last = [f for f in manager.ttflist if f.name.startswith('Last Resort')]
  monkeypatch.setattr(manager, 'ttflist', fonts + last)


@pytest.mark.usefixtures('only_dejavu')
def test_letters_are_drawn_by_a_font_that_has_them():
  mono = 'DejaVu Sans Mono'
  assert letters.families('dose <= 10 %\n', mono) == ([mono], '')
  family, boxes = letters.families('א肿', mono)
  assert family == [mono, 'DejaVu Sans'] and boxes == '肿'


@pytest.mark.usefixtures('only_dejavu')
def test_letters_that_no_font_has_are_told_once(tmp_path, monkeypatch):
  pages = []
  page = dose_report._page
  monkeypatch.setattr(
    dose_report,
    '_page',
    lambda lines, family: pages.extend(lines) or page(lines, family),
  )
  dose_report.write_pdf(tmp_path / 'report.pdf', report('肿瘤, 肿'))
  text = ' '.join(pages)
  assert text.count('no font of this computer') == 1
  assert 'U+7624, U+80BF' in text and 'HTML' in text
  pages.clear()
  dose_report.write_pdf(tmp_path / 'report.pdf', report('tumour'))
  assert 'no font' not in ' '.join(pages)
  dose_report.write_html(tmp_path / 'report.html', report('肿瘤'))
  assert '肿瘤' in (tmp_path / 'report.html').read_text('utf-8')


def test_wide_letters_stay_on_the_page():
  lines = dose_report._wrapped('肿' * 100)
  assert ''.join(lines) == '肿' * 100
  assert max(map(len, lines)) == dose_report._COLUMNS // 2
  assert dose_report._wrapped('a' * 100) == ['a' * 96, 'aaaa']
  assert dose_report._wrapped('') == ['']
