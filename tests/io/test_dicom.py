"""DICOM-RT import on files that the tests write."""

import re
import warnings

import numpy as np
import pydicom
import pytest
import synthetic_dicom as synthetic

from dvhflax import dose_volume, errors
from dvhflax.io import import_report, importing
from dvhflax.io.dicom import reader as dicom
from dvhflax.io.dicom import rtdose
from dvhflax.patient import Structure

NAMES = ('body', 'bladder', 'rectum', 'PTV')
SETTINGS = importing.Settings(
  tuple(map(Structure.from_name, NAMES)), (32, 32, 16), (4.0, 4.0, 6.0)
)


def import_one(folder, wanted=SETTINGS, **options):
  (found,), _ = dicom.find_patients(folder, **options)
  names = [s.name for s in wanted.structures]
  return importing.assemble(dicom.read_patient(found, names), wanted)


def reasons(folder, **options):
  """Why nothing could be imported, in one text."""
  found, skipped = dicom.find_patients(folder, **options)
  whys = [one.why for one in skipped]
  for one in found:
    try:
      importing.assemble(dicom.read_patient(one, NAMES), SETTINGS)
      whys.append('imported')
    except errors.CohortError as error:
      whys.append(str(error))
  assert not any('\n' in why for why in whys)
  return ' | '.join(whys)


@pytest.fixture
def folder(tmp_path):
  return synthetic.write_patient(tmp_path / 'in', plans=2)


def change(path, **attributes):
  dataset = pydicom.dcmread(path)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of the values that are at fault
    for keyword, value in attributes.items():
      if value is None:
        delattr(dataset, keyword)
      else:
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def test_a_patient_with_two_plans(folder):
  patient, entry = import_one(folder)
  assert patient.present.all() and patient.masks.shape == (32, 32, 16, 4)
  assert patient.dose.shape == (2, 32, 32, 16)
  np.testing.assert_array_equal(patient.reference_gy, [78, 78])
  assert [p['prescription_from'] for p in entry['plans']] == ['plan', 'plan']
  # Centred on the PTV; bladder in front of it (y < 0), rectum behind.
  middles = [
    np.argwhere(patient.masks[..., s]).mean(0) * (4, 4, 6)
    - np.array([62, 62, 45])
    for s in range(4)
  ]
  np.testing.assert_allclose(middles[3], 0, atol=0.1)
  np.testing.assert_allclose(middles[1], [0, -26, 0], atol=0.3)
  np.testing.assert_allclose(middles[2], [0, 28, 0], atol=0.3)
  assert 'unmapped: CouchSurface' in entry['notes']
  assert patient.provenance['names']['PTV'] == 'PTV_78'


def test_the_report_says_what_the_grid_costs(folder):
  _, entry = import_one(folder)
  ptv = entry['structures']['PTV']
  assert ptv['volume_cc'] == pytest.approx(4 / 3 * np.pi * 3.375, rel=0.01)
  for plan in ptv['plans']:
    assert set(plan) == {'source', 'cohort'}
    assert plan['source']['D95'] == pytest.approx(plan['cohort']['D95'], abs=4)
  text = import_report.report_text(
    [entry], [import_report.Skipped('x', 'broken')]
  )
  assert 'skipped x: broken' in text and 'D95' in text and 'rectum' in text


@pytest.mark.parametrize('bits', [16, 32])
@pytest.mark.parametrize('absolute', [False, True])
def test_dose_round_trip(tmp_path, bits, absolute):
  values = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32) * 70
  path = synthetic.save(
    synthetic.dose(
      values,
      origin=(-3.0, 4.0, -12.0),
      spacing=(2.0, 2.5, 3.0),
      bits=bits,
      absolute_offsets=absolute,
    ),
    tmp_path / 'dose',
  )
  dose = rtdose.read_dose(path)
  np.testing.assert_allclose(dose.values, values, atol=70 / 2**bits + 1e-5)
  np.testing.assert_allclose(dose.axes[0], -3 + 2 * np.arange(5))
  np.testing.assert_allclose(dose.axes[1], 4 + 2.5 * np.arange(6))
  np.testing.assert_allclose(dose.axes[2], -12 + 3 * np.arange(7))


@pytest.mark.parametrize(
  'syntax, options',
  [
    (pydicom.uid.ImplicitVRLittleEndian, (True, True)),
    (pydicom.uid.ExplicitVRBigEndian, (False, False)),
  ],
)
def test_other_transfer_syntaxes(tmp_path, syntax, options):
  folder = synthetic.write_patient(tmp_path / 'in')
  before, _ = import_one(folder)
  implicit, little = options
  for path in folder.iterdir():
    dataset = pydicom.dcmread(path)
    if not little and 'PixelData' in dataset:
      stored = np.frombuffer(dataset.PixelData, '<u4')
      dataset.PixelData = stored.astype('>u4').tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=little)
  after, _ = import_one(folder)
  np.testing.assert_array_equal(after.masks, before.masks)
  np.testing.assert_array_equal(after.dose, before.dose)


@pytest.mark.parametrize(
  'syntax, match',
  [
    (pydicom.uid.DeflatedExplicitVRLittleEndian, 'is deflated'),
    (pydicom.uid.RLELossless, 'is compressed'),
  ],
)
def test_packed_files_are_refused(folder, syntax, match):
  for path in folder.glob('dose*'):
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax.is_encapsulated:
      dataset.PixelData = pydicom.encaps.encapsulate([b'0' * 100])
    dataset.save_as(path)
  assert re.search(match, reasons(folder))


def test_an_unknown_transfer_syntax_is_refused(folder):
  for path in folder.glob('dose*'):
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = '1.2.3'
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)
  assert re.search(r"TransferSyntaxUID '1\.2\.3' is unknown", reasons(folder))


def test_a_file_without_a_preamble_is_read(folder):
  path = folder / 'a'
  dataset = pydicom.dcmread(path)
  del dataset.file_meta, dataset.preamble
  pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True)
  assert path.read_bytes()[128:132] != b'DICM'
  patient, _ = import_one(folder)
  assert patient.present.all()


@pytest.mark.parametrize(
  'orientation, flips, normal',
  [
    ([-1, 0, 0, 0, -1, 0], (0, 1), 1),
    ([-1, 0, 0, 0, 1, 0], (0,), -1),
    ([1, 0, 0, 0, -1, 0], (1,), -1),
  ],
)
def test_prone_and_feet_first(tmp_path, orientation, flips, normal):
  values = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
  path = synthetic.save(
    synthetic.dose(
      values, origin=(0.0, 0.0, 0.0), ImageOrientationPatient=orientation
    ),
    tmp_path / 'dose',
  )
  dose = rtdose.read_dose(path)
  flips = (*flips, 2) if normal < 0 else flips
  np.testing.assert_allclose(dose.values, np.flip(values, flips), atol=1e-6)
  assert all((np.diff(axis) > 0).all() for axis in dose.axes)
  assert dose.axes[0][0] == (-9 if orientation[0] < 0 else 0)
  assert dose.axes[2][0] == (-15 if normal < 0 else 0)


@pytest.mark.parametrize(
  'attributes, match',
  [
    ({'DoseUnits': 'RELATIVE'}, 'RELATIVE.*absolute dose'),
    ({'DoseType': 'ERROR'}, 'difference of doses'),
    ({'DoseGridScaling': 0}, 'must be > 0'),
    ({'DoseGridScaling': None}, 'DoseGridScaling is missing'),
    ({'PixelSpacing': ['nan', '3']}, 'PixelSpacing'),
    ({'DoseGridScaling': 1e30}, 'cGy'),
    ({'PixelSpacing': [0, 3]}, 'must be positive'),
    ({'PixelSpacing': [3]}, 'PixelSpacing'),
    ({'Rows': 1000}, 'truncated'),
    ({'Rows': 60000, 'Columns': 60000}, 'not a valid dose grid'),
    ({'NumberOfFrames': 2**30}, 'not a valid dose grid'),
    ({'NumberOfFrames': None}, 'NumberOfFrames is missing'),
    ({'DoseSummationType': 'MULTI_PLAN'}, 'cohort.sum_plans'),
    ({'BitsAllocated': 8}, '16 or 32'),
    ({'PixelData': b'\0' * 100}, 'truncated'),
    ({'GridFrameOffsetVector': None}, 'GridFrameOffsetVector is missing'),
    ({'GridFrameOffsetVector': [5.0 + i for i in range(41)]}, 'neither 0'),
    ({'GridFrameOffsetVector': [0.0] * 41}, 'ascending'),
    ({'ImageOrientationPatient': [0.8, 0.6, 0, -0.6, 0.8, 0]}, 'not axial'),
    ({'ImageOrientationPatient': [1, 0, 0, 0, 0, 1]}, 'not axial'),
    ({'ImagePositionPatient': [0, 0, 1e9]}, 'metres away'),
    ({'ImagePositionPatient': [500, 500, 0]}, 'outside of the dose grid'),
    ({'PixelRepresentation': 1, 'PixelData': b'\xff' * 4 * 41**3}, 'negative'),
    ({'DoseSummationType': 'FRACTION'}, 'expected PLAN.*sum_fractions'),
    ({'DoseSummationType': 'RECORD'}, "'RECORD'; expected PLAN"),
    ({'DoseSummationType': 'BEAM'}, 'cohort.sum_beams'),
    ({'FrameOfReferenceUID': '9.9'}, 'frame of reference is not'),
    ({'PatientID': 'berta'}, 'PatientID is not'),
    ({'SOPClassUID': '1.2.840.10008.5.1.4.1.1.4'}, 'neither CT'),
    ({'SOPInstanceUID': None}, 'no SOPInstanceUID'),
  ],
)
def test_faulty_doses_are_refused(tmp_path, attributes, match):
  folder = synthetic.write_patient(tmp_path)
  change(folder / 'dose0', **attributes)
  text = reasons(folder)
  assert 'imported' not in text and re.search(match, text), text


def test_a_broken_plan_of_several_is_left_out(folder):
  change(folder / 'dose0', DoseUnits='RELATIVE')
  patient, entry = import_one(folder)
  assert len(patient.dose) == 1
  (plan,) = patient.provenance['plans']
  assert plan['label'] == 'dose1' and plan['uids'] == ['1.2.3.4.8.1']
  assert any('plan dose0 left out' in note for note in entry['notes'])


def test_doses_of_beams_are_added_when_asked_for(tmp_path):
  folder = synthetic.write_patient(tmp_path, plans=2)
  whole = import_one(folder)[0].dose
  for n in range(2):
    change(folder / f'dose{n}', DoseSummationType='BEAM')
  assert 'cohort.sum_beams' in reasons(folder)
  summed, _ = import_one(folder, sum_beams=True)
  np.testing.assert_allclose(summed.dose[0], whole.sum(0), rtol=1e-5)
  (folder / 'dose1').unlink()
  assert '1 doses of beams, but' in reasons(folder, sum_beams=True)


def test_a_dose_without_references_goes_by_its_frame(folder):
  for n in range(2):
    change(
      folder / f'dose{n}',
      ReferencedStructureSetSequence=None,
      ReferencedRTPlanSequence=None,
    )
  patient, entry = import_one(folder)
  assert any('frame of reference alone' in note for note in entry['notes'])
  # The RTPLAN that refers to the structure set tells the prescription.
  assert entry['plans'][0]['prescription_from'] == 'structure set'
  gy = patient.dose * patient.reference_gy[:, None, None, None]
  for path in folder.rglob('*'):
    plan = '1.2.840.10008.5.1.4.1.1.481.5'
    if path.is_file() and pydicom.dcmread(path).SOPClassUID == plan:
      path.unlink()
  patient, entry = import_one(folder)
  # Without one it is the mean of the target, that of the highest plan.
  assert entry['plans'][0]['prescription_from'] == 'target mean'
  inside = patient.masks[..., 3] > 0
  means = patient.dose[:, inside].mean(1)
  assert means.max() == pytest.approx(1, rel=1e-5)
  told = np.array([plan['reference_gy'] for plan in entry['plans']])
  assert (patient.reference_gy == told.max()).all()
  np.testing.assert_allclose(means * patient.reference_gy, told, rtol=1e-5)
  again = patient.dose * patient.reference_gy[:, None, None, None]
  np.testing.assert_allclose(again, gy, rtol=1e-5)


def test_the_ct_tells_how_thick_slices_are(tmp_path):
  structures = {
    'Body': [synthetic.circle(40, 0.0)],
    'PTV': [synthetic.circle(10, 0.0)],
  }
  synthetic.save(synthetic.structure_set(structures), tmp_path / '1')
  synthetic.save(synthetic.dose(synthetic.gradient() + 1), tmp_path / '2')
  assert 'thickness is unknown' in reasons(tmp_path)
  for i, one in enumerate(synthetic.ct_slices(5.0, 8)):
    synthetic.save(one, tmp_path / 'ct' / f'{i}')
  (found,), _ = dicom.find_patients(tmp_path)
  case = dicom.read_patient(found, NAMES)
  assert case.occupancies['PTV'].volume_cc == pytest.approx(
    np.pi * 0.5, rel=1e-3
  )


def test_two_patients_in_one_folder_and_copies(tmp_path):
  synthetic.write_patient(tmp_path / 'x')
  synthetic.write_patient(tmp_path / 'y', patient='berta', prefix='1.2.9')
  synthetic.write_patient(tmp_path / 'z')
  (tmp_path / 'notes.txt').write_text('no DICOM')
  found, skipped = dicom.find_patients(tmp_path)
  assert [one.id for one in found] == ['anna', 'berta']
  assert sum('same SOPInstanceUID' in one.why for one in skipped) == 3
  assert any(one.what == '1 files' for one in skipped)


def test_resampling_against_the_closed_form(tmp_path):
  """A sphere of 20 mm in 1 Gy/mm: D95 and V-points on the cohort grid."""
  structures = {
    'Body': synthetic.cylinder(50, 45, 3.0),
    'PTV': synthetic.sphere(20, 3.0),
  }
  synthetic.save(synthetic.structure_set(structures), tmp_path / '1')
  values = synthetic.gradient(top=120.0)
  synthetic.save(synthetic.dose(values), tmp_path / '2')
  for spacing in (2.0, 3.0, 4.0):
    shape = tuple(int(120 / spacing) for _ in range(3))
    wanted = importing.Settings(
      tuple(map(Structure.from_name, ('body', 'PTV'))),
      shape,
      (spacing, spacing, spacing),
      60.0,
    )
    patient, _ = import_one(tmp_path, wanted)
    inside = patient.masks[..., 1] > 0
    volume = inside.sum() * spacing**3
    # So few voxels across, the shell of those cut by half matters.
    assert volume == pytest.approx(4 / 3 * np.pi * 8000, rel=0.06)
    doses = patient.dose[0][inside] * 60
    assert doses.mean() == pytest.approx(60, abs=0.05)
    # The cap of 8 mm beyond 12 mm, h^2 (3 r - h)/(4 r^3); 12 mm lies between
    # voxels of all these sizes.
    share = dose_volume.volume_fraction_at_dose(doses, 72.0)
    assert share == pytest.approx(0.104, abs=0.02)
