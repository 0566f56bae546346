"""Exports, uploads and imports."""

import base64
import gzip
import io
import json

from conftest import GRID, STRUCTURES
import nibabel
import numpy as np
import pydicom
import pytest

from dvhflax.tuning import wish_file

PULL = {'structure': 'rectum', 'dose_gy': 40.0, 'volume_percent': 20.0}


def put_file(client, upload, path, content):
  header = base64.urlsafe_b64encode(path.encode()).decode().rstrip('=')
  return client.put(
    f'/api/v1/uploads/{upload}/files',
    headers={'X-Path': header},
    content=content,
  )


def mask_file(mask, tmp_path):
  path = tmp_path / 'mask.nii.gz'
  nibabel.save(nibabel.Nifti1Image(mask, np.diag([-3.0, -3.0, 5.0, 1.0])), path)
  return path.read_bytes()


@pytest.fixture
def upload(client):
  return client.post('/api/v1/uploads', json={'kind': 'nifti'}).json()['upload']


def test_exports(client, begin, tmp_path):
  state = begin()
  one = f'/api/v1/sessions/{state["session"]}'
  client.put(f'{one}/goals', json=['rectum V40 <= 10%'])
  client.patch(f'{one}/steps/0', json={'note': '<b>&"note"</b> $x$'})
  answer = client.get(f'{one}/doses/step-0')
  unit = float(answer.headers['x-gy-per-unit'])
  shown = unit * np.frombuffer(answer.content, '<u2').reshape(GRID[::-1])
  found = {}
  for what in ('rtdose', 'nifti', 'pdf', 'html', 'csv'):
    answer = client.get(f'{one}/export?what={what}&dose=step-0')
    assert answer.status_code == 200, answer.text
    assert 'p6' not in answer.headers['content-disposition']
    assert 'attachment' in answer.headers['content-disposition']
    found[what] = answer.content
  rtdose = pydicom.dcmread(io.BytesIO(found['rtdose']))
  gy = rtdose.pixel_array * float(rtdose.DoseGridScaling)
  np.testing.assert_allclose(gy, shown, atol=unit)
  (tmp_path / 'dose.nii.gz').write_bytes(found['nifti'])
  image = nibabel.load(tmp_path / 'dose.nii.gz')
  np.testing.assert_allclose(
    np.maximum(image.get_fdata(), 0).transpose(2, 1, 0), shown, atol=unit
  )
  assert found['pdf'].startswith(b'%PDF')
  page = found['html'].decode()
  assert 'not for clinical use' in page and 'rectum V40' in page
  assert '&lt;b&gt;&amp;' in page and '<b>&' not in page
  assert 'src="http' not in page
  (tmp_path / 'dvh.csv').write_bytes(found['csv'])
  curves = wish_file.read_curves(str(tmp_path / 'dvh.csv'), 78.0)
  assert set(curves) == {'body', 'rectum', 'PTV'}
  rectum = shown[np.frombuffer(client.get(f'{one}/masks').content, 'u1')
                 .reshape(GRID[::-1]) & 2 > 0]  # fmt: skip
  v40 = curves['rectum'].volume_percent_at_dose(40.0)
  assert v40 == pytest.approx(100 * (rectum >= 40).mean(), abs=2)
  plan = client.get(f'{one}/export?what=rtdose&dose=plan-0')
  assert 'plan' in pydicom.dcmread(io.BytesIO(plan.content)).SeriesDescription


def test_the_deliverable_dose_of_an_undone_step_is_no_plan(
  client, begin, served
):
  state = begin()
  key, one = state['session'], f'/api/v1/sessions/{state["session"]}'
  client.post(f'{one}/steps', json={'points': ['rectum mean <= 20 Gy']})
  opened = served.desk._open[key]
  served.desk.kept.keep_made(key, 1, np.ones(GRID, np.float32))
  opened.made.append(1)
  client.post(f'{one}/undo')
  answer = client.get(f'{one}/export?what=rtdose&dose=deliverable-1')
  rtdose = pydicom.dcmread(io.BytesIO(answer.content))
  assert 'deliverable dose' in rtdose.SeriesDescription
  assert 'plan' not in rtdose.SeriesDescription
  answer = client.get(f'{one}/export?what=html&dose=deliverable-1')
  assert '<h1>Step 1, deliverable</h1>' in answer.text


@pytest.mark.parametrize(
  ('query', 'status'),
  [
    ('what=exe&dose=step-0', 400),
    ('what=csv&dose=step-5', 404),
    ('what=csv&dose=../x', 404),
    ('what=csv', 404),
    ('', 400),
  ],
)
def test_exports_that_cannot_be(client, begin, query, status):
  one = f'/api/v1/sessions/{begin()["session"]}'
  answer = client.get(f'{one}/export?{query}')
  assert answer.status_code == status and answer.json()['error']


def test_a_dropped_folder_is_imported_and_tuned(
  client, cohort, upload, tmp_path
):
  masks = cohort.masks(6)
  for s, structure in enumerate(STRUCTURES):
    content = mask_file(masks[..., s], tmp_path)
    path = f'case 1/{structure.name}.nii.gz'
    assert put_file(client, upload, path, content).status_code == 200
  twice = put_file(client, upload, 'case 1/PTV.nii.gz', b'x')
  assert twice.status_code == 409
  lacking = mask_file(masks[..., 0], tmp_path)
  put_file(client, upload, 'case 2/body.nii.gz', lacking)
  answer = client.post(f'/api/v1/uploads/{upload}/import', json={})
  assert answer.status_code == 200, answer.text
  found = answer.json()
  assert '1 patients imported' in found['report'] and len(found['failed']) == 1
  assert 'case 2' in found['failed'][0] or 'PTV' in found['failed'][0]
  assert 'uploads' not in json.dumps(found)
  [key] = found['patients']
  listed = {p['key']: p for p in client.get('/api/v1/patients').json()}
  assert listed[key]['label'] == 'case 1' and listed[key]['source'] == 'upload'
  assert listed[key]['prescription_gy'] == 78
  state = client.post('/api/v1/sessions', json={'patient': key}).json()
  one = f'/api/v1/sessions/{state["session"]}'
  tuned = client.post(f'{one}/steps', json={'handles': [PULL]})
  assert tuned.status_code == 200 and tuned.json()['patient']['key'] == key
  for what in ('rtdose', 'html'):
    answer = client.get(f'{one}/export?what={what}&dose=step-1')
    assert answer.status_code == 200
    assert 'case' not in answer.headers['content-disposition']
  assert client.delete(f'/api/v1/uploads/{upload}').status_code == 200
  assert key not in [p['key'] for p in client.get('/api/v1/patients').json()]
  gone = client.post('/api/v1/sessions', json={'patient': key})
  assert gone.status_code == 404


def test_prescription_and_names_are_heard(client, cohort, upload, tmp_path):
  masks = cohort.masks(6)
  for s, name in enumerate(('body', 'strange', 'PTV')):
    content = mask_file(masks[..., s], tmp_path)
    put_file(client, upload, f'case/{name}.nii.gz', content)
  options = {'prescription_gy': 70.0, 'names': {'rectum': ['strange']}}
  answer = client.post(f'/api/v1/uploads/{upload}/import', json=options)
  assert answer.status_code == 200, answer.text
  [key] = answer.json()['patients']
  state = client.post('/api/v1/sessions', json={'patient': key}).json()
  assert state['patient']['prescription_gy'] == 70
  assert all(structure['present'] for structure in state['structures'])


def test_names_are_told_and_chosen(client, cohort, upload, served, tmp_path):
  masks = cohort.masks(6)
  of = dict(zip(('body', 'rectum', 'PTV'), masks.transpose(3, 0, 1, 2)))
  for path, name in (
    ('a/body', 'body'), ('a/Tumor Bed (1', 'PTV'), ('a/Rectum', 'rectum'),
    ('b/body', 'body'), ('b/Boost', 'PTV'), ('b/Darm', 'rectum'),
    ('c/body', 'body'), ('c/PTV', 'PTV'), ('c/Rectum', 'rectum'),
  ):  # fmt: skip
    content = mask_file(of[name], tmp_path)
    put_file(client, upload, f'{path}.nii.gz', content)

  def read(**names):
    address = f'/api/v1/uploads/{upload}/import'
    answer = client.post(address, json={'names': names})
    return answer.status_code, answer.json()

  def listed():
    everyone = client.get('/api/v1/patients').json()
    return {p['label']: p for p in everyone if p['key'].startswith(upload)}

  _, found = read()
  assert [(s['name'], s['role'], s['needed']) for s in found['structures']] == [
    ('body', 'body', True), ('rectum', 'oar', False), ('PTV', 'target', True)
  ]  # fmt: skip
  names = {one['patient']: one for one in found['names']}
  assert sorted(names['a']['found']) == ['Rectum', 'Tumor Bed (1', 'body']
  assert names['a']['taken'] == {'body': 'body', 'rectum': 'Rectum'}
  assert len(found['patients']) == 1 and len(found['failed']) == 2
  # One table for all: each has the first that it has.
  table = {'PTV': ['=Boost', '=Tumor Bed (1'], 'rectum': ['=Darm']}
  _, found = read(**table)
  assert not found['failed'] and len(found['patients']) == 3
  assert [one['taken']['PTV'] for one in found['names']] == [
    'Tumor Bed (1', 'Boost', 'PTV'
  ]  # fmt: skip
  key = listed()['a']['key']
  state = client.post('/api/v1/sessions', json={'patient': key}).json()
  sizes = {s['name']: s['volume_cc'] for s in state['structures']}
  assert sizes['PTV'] == pytest.approx(of['PTV'].sum() * 0.045)
  # Choices that cannot be leave what there is, in memory and on disk.
  for bad, words in (
    ({'PTV': ['=Tumor']}, "'Tumor', chosen for PTV, is no name of these"),
    ({'PTV': ['=Darm'], 'rectum': ['=Darm']}, 'for PTV and for rectum'),
    ({'heart': ['=Darm']}, 'heart'),
  ):
    status, refused = read(**bad)
    assert status == 400 and words in refused['error']
    assert str(served.folder.path) not in refused['error']
    assert [p['faults'] for p in listed().values()] == [None] * 3
  imports = served.desk.imports
  imports.forget(served.desk.uploads.find(upload))
  again = client.post('/api/v1/sessions', json={'patient': key})
  assert again.status_code == 200, again.text
  # None, though one would match; and what one has, no other structure has.
  _, found = read(**table | {'rectum': ['=']})
  assert all('rectum' not in one['taken'] for one in found['names'])
  _, found = read(PTV=['=Rectum'])
  assert found['names'][0]['taken'] == {'body': 'body', 'PTV': 'Rectum'}


def test_structures_of_one_name_can_be_chosen(client, cohort, upload, tmp_path):
  masks = cohort.masks(6)
  large = masks[..., 2]
  large = np.roll(large, 1, 0) | large | np.roll(large, -1, 0)
  for path, mask in (
    ('body.nii.gz', masks[..., 0]), ('Rectum.nii.gz', masks[..., 1]),
    ('PTV.nii.gz', masks[..., 2]), ('PTV.nii', large),
  ):  # fmt: skip
    content = mask_file(mask, tmp_path)
    if path.endswith('.nii'):
      content = gzip.decompress(content)
    put_file(client, upload, f'mine/{path}', content)
  address = f'/api/v1/uploads/{upload}/import'
  found = client.post(address, json={}).json()
  assert not found['patients']
  assert 'PTV (PTV.nii), PTV (PTV.nii.gz) match alike' in found['failed'][0]
  names = found['names'][0]['found']
  assert sorted(names)[:2] == ['PTV (PTV.nii)', 'PTV (PTV.nii.gz)']
  table = {'PTV': ['=PTV (PTV.nii)']}
  found = client.post(address, json={'names': table}).json()
  assert found['names'][0]['taken']['PTV'] == 'PTV (PTV.nii)'
  assert '2 structures are named PTV: PTV (PTV.nii), PTV' in found['report']
  [key] = found['patients']
  state = client.post('/api/v1/sessions', json={'patient': key}).json()
  sizes = {s['name']: s['volume_cc'] for s in state['structures']}
  assert sizes['PTV'] == pytest.approx(large.sum() * 0.045)


@pytest.mark.parametrize(
  ('files', 'body', 'words'),
  [
    ({}, {}, 'no patient'),
    ({'a/body.nii.gz': b'not a file'}, {}, 'no patient|body'),
    ({}, {'prescription_gy': -1}, '> 0'),
    ({}, {'names': {'gut': ['x']}}, 'gut'),
    ({}, {'names': {'rectum': ['(']}}, 'pattern'),
    ({}, {'folder': '/etc'}, 'unknown field'),
  ],
)
def test_uploads_that_cannot_be_read(
  client, upload, served, files, body, words
):
  for path, content in files.items():
    put_file(client, upload, path, content)
  answer = client.post(f'/api/v1/uploads/{upload}/import', json=body)
  if answer.status_code == 200:
    assert answer.json()['patients'] == []
    text = answer.text
  else:
    assert answer.status_code == 400
    text = answer.json()['error']
  assert any(word in text for word in words.split('|'))
  assert str(served.folder.path) not in text


@pytest.mark.parametrize(
  'path',
  ['../x', '/etc/x', 'a/../../x', '.', 'a//b', 'a\\b', 'C:x', 'a\x00b', '~/x'],
)
def test_paths_that_leave_the_folder_are_refused(client, upload, path):
  answer = put_file(client, upload, path, b'x')
  assert answer.status_code == 400 and answer.json()['error']


def test_names_of_dicom_files_are_the_servers(client, served):
  answer = client.post('/api/v1/uploads', json={'kind': 'dicom'})
  upload = answer.json()['upload']
  for path in ('Doe^John/CT.1.dcm', 'Doe^John/CT.2.dcm'):
    assert put_file(client, upload, path, b'x').json() == {'bytes': 1}
  folder = served.folder.path / 'uploads' / upload
  names = [path.name for path in folder.rglob('*') if path.is_file()]
  assert len(names) == 2 and not any('Doe' in name for name in names)
  assert client.delete(f'/api/v1/uploads/{upload}').status_code == 200
  assert not folder.exists()
  assert put_file(client, upload, 'x', b'x').status_code == 404


def test_limits_of_an_upload(client, upload, monkeypatch):
  from dvhflax.app import upload_files

  monkeypatch.setattr(upload_files, 'MOST_FILE_BYTES', 1000)
  assert put_file(client, upload, 'a', b'x' * 1001).status_code == 413
  monkeypatch.setattr(upload_files, 'MOST_BYTES', 1500)
  assert put_file(client, upload, 'b', b'x' * 900).status_code == 200
  assert put_file(client, upload, 'c', b'x' * 900).status_code == 413
  assert put_file(client, upload, 'd', b'x' * 500).status_code == 200
  monkeypatch.setattr(upload_files, 'MOST_FILES', 2)
  assert put_file(client, upload, 'e', b'').status_code == 413
