"""Structure sets as planning systems and scripts really write them."""

import json

import numpy as np
import pytest
import synthetic_dicom as synthetic

from dvhflax import config as config_lib
from dvhflax import errors
from dvhflax.io import importing
from dvhflax.io.dicom import files, rtstruct
from dvhflax.io.dicom import reader as dicom
from dvhflax.io.formats import open_folder
from dvhflax.patient import Structure
from dvhflax.sources import imported
from dvhflax.tuning import external

NAMES = ('body', 'bladder', 'rectum', 'PTV')
STRUCTURES = {
  'BODY': synthetic.cylinder(40, 30, 3.0, points=60),
  'Rectum': synthetic.cylinder(9, 24, 3.0, centre=(0, 28), points=60),
  'PTV': synthetic.cylinder(15, 15, 3.0, points=60),
  'Bladder': synthetic.cylinder(12, 12, 3.0, centre=(0, -26), points=60),
}
CC = {
  'body': 30 * 1600 * 60 * np.sin(np.pi / 30) / 1000,
  'rectum': 30 * 81 * 48 * np.sin(np.pi / 30) / 1000,
  'PTV': 30 * 225 * 30 * np.sin(np.pi / 30) / 1000,
  'bladder': 30 * 144 * 24 * np.sin(np.pi / 30) / 1000,
}


def roi(dataset, name):
  """The item of a StructureSetROISequence, and that of its contours."""
  for region, one in zip(
    dataset.StructureSetROISequence, dataset.ROIContourSequence
  ):
    if region.ROIName == name:
      return region, one
  raise KeyError(name)


def read(folder, dataset, *, others=(), ends='rounded'):
  """A patient's structures."""
  synthetic.save(dataset, folder / 'set')
  for i, other in enumerate(others):
    synthetic.save(other, folder / f'other{i}')
  (found,), _ = dicom.find_patients(folder, dose_optional=True)
  return dicom.read_patient(found, NAMES, contour_ends=ends)


def volumes(case):
  return {name: o.volume_cc for name, o in case.occupancies.items()}


def expected(*names):
  return {name: pytest.approx(CC[name], rel=2e-3) for name in names or CC}


def test_regions_of_one_number_are_told_apart_by_their_order(tmp_path):
  """Numbers by counting, after one was deleted: rt-utils issue 66."""
  dataset = synthetic.structure_set(STRUCTURES)
  region, contours = roi(dataset, 'Bladder')
  region.ROINumber = contours.ReferencedROINumber = 3
  case = read(tmp_path, dataset)
  assert volumes(case) == expected()
  (note,) = (n for n in case.notes if 'ROINumber' in n)
  assert 'PTV and Bladder have ROINumber 3 alike' in note
  assert case.occupancies['PTV'].centres[1].mean() == pytest.approx(0, abs=1)


def test_regions_of_one_name_are_told_apart_by_their_numbers(tmp_path):
  dataset = synthetic.structure_set(STRUCTURES)
  region, _ = roi(dataset, 'Bladder')
  region.ROIName = 'PTV'
  case = read(tmp_path, dataset)
  assert case.names == ['BODY', 'Rectum', 'PTV (ROI 3)', 'PTV (ROI 4)']
  assert volumes(case) == expected('body', 'rectum')
  told = '2 structures are named PTV: PTV (ROI 3), PTV (ROI 4)'
  assert told in case.notes
  (found,), _ = dicom.find_patients(tmp_path, dose_optional=True)
  case = dicom.read_patient(found, NAMES, [('PTV', '=PTV (ROI 4)')])
  assert volumes(case)['PTV'] == pytest.approx(CC['bladder'], rel=2e-3)
  assert case.provenance['names']['PTV'] == 'PTV (ROI 4)'
  assert case.provenance['roi_numbers']['PTV'] == 4
  # Numbers that are alike tell nothing.
  regions = [rtstruct.Roi(n, 'PTV', ()) for n in (3, 3, -1)]
  assert rtstruct.marks(regions) == ['place 1', 'place 2', 'place 3']


@pytest.mark.parametrize('change', ['other order', 'one list', 'two lists'])
def test_regions_that_nothing_tells_apart_are_left_out(tmp_path, change):
  dataset = synthetic.structure_set(STRUCTURES)
  region, contours = roi(dataset, 'Bladder')
  if change == 'two lists':
    contours.ReferencedROINumber = 3
    left = ('PTV',)
  else:
    region.ROINumber = contours.ReferencedROINumber = 3
    left = ('PTV', 'bladder')
  if change == 'other order':
    dataset.ROIContourSequence = dataset.ROIContourSequence[::-1]
  elif change == 'one list':
    dataset.ROIContourSequence = dataset.ROIContourSequence[:-1]
  case = read(tmp_path, dataset)
  assert not set(left) & set(case.occupancies)
  kept = set(CC) - set(left) - ({'bladder'} if change == 'two lists' else set())
  assert volumes(case) == expected(*kept)
  assert any('left out' in n and 'ROINumber 3' in n for n in case.notes)


def test_numbers_that_are_missing_cost_nothing_else(tmp_path):
  dataset = synthetic.structure_set(STRUCTURES)
  del roi(dataset, 'Bladder')[1].ReferencedROINumber
  roi(dataset, 'Rectum')[1].ReferencedROINumber = 77
  case = read(tmp_path, dataset)
  assert volumes(case) == expected('body', 'PTV')
  assert any('2 lists of contours left out' in n for n in case.notes)


@pytest.mark.parametrize('empty', ['sequence', 'item', 'point', 'line'])
def test_an_empty_region_does_not_compete(tmp_path, empty):
  """Those of a template beside the ones drawn: rt-utils issues 56 and 67."""
  ptv = STRUCTURES['PTV']
  others = {n: c for n, c in STRUCTURES.items() if n != 'PTV'}
  contours = {'point': [ptv[0][:1]], 'line': [ptv[0][:2]]}.get(empty, [])
  dataset = synthetic.structure_set(
    {'PTV': contours, 'rectum': contours, **others, 'PTV_4000': ptv}
  )
  if empty == 'item':
    del dataset.ROIContourSequence[:2]
  for one in dataset.ROIContourSequence[:2] if empty == 'point' else ():
    one.ContourSequence[0].ContourGeometricType = 'POINT'
  case = read(tmp_path, dataset)
  assert volumes(case) == expected()
  assert case.provenance['names']['PTV'] == 'PTV_4000'
  assert 'without contours that enclose an area: PTV, rectum' in case.notes


def test_a_set_without_any_contours(tmp_path):
  dataset = synthetic.structure_set({name: [] for name in STRUCTURES})
  with pytest.raises(errors.CohortError, match='no structure with contours'):
    read(tmp_path, dataset)


@pytest.mark.parametrize(
  'kind',
  [
    'CLOSED_PLANAR', 'INTERPOLATED_PLANAR', 'CLOSEDPLANAR', 'closed_planar',
    'CLOSED PLANAR', 'CLOSEDPLANAR_XOR', 'CLOSED_PLANAR_XOR', '',
  ],
)  # fmt: skip
def test_kinds_of_contours_that_enclose_an_area(tmp_path, kind):
  dataset = synthetic.structure_set(STRUCTURES)
  with files.quiet():
    for contour in roi(dataset, 'PTV')[1].ContourSequence[::2]:
      contour.ContourGeometricType = kind
    case = read(tmp_path, dataset)
  assert volumes(case) == expected()
  assert any('without ContourGeometricType' in n for n in case.notes) == (
    not kind
  )


def test_open_contours_and_points(tmp_path):
  dataset = synthetic.structure_set(STRUCTURES)
  contours = roi(dataset, 'PTV')[1].ContourSequence
  for contour in contours[:2]:
    contour.ContourGeometricType = 'OPEN_PLANAR'
    contour.ContourData = [*contour.ContourData, *contour.ContourData[:3]]
  for kind, count in (('POINT', 3), ('OPEN_PLANAR', 60), ('POINT', 3)):
    contours.append(synthetic.structure_set({'x': [STRUCTURES['PTV'][0]]})
      .ROIContourSequence[0].ContourSequence[0])  # fmt: skip
    contours[-1].ContourGeometricType = kind
    contours[-1].ContourData = contours[-1].ContourData[:count]
    contours[-1].NumberOfContourPoints = count // 3
  case = read(tmp_path, dataset)
  assert volumes(case) == expected()
  notes = [n for n in case.notes if n.startswith('PTV')]
  assert notes == [
    'PTV: 2 POINT contours left out: they enclose no area',
    'PTV: 1 OPEN_PLANAR contours left out: they enclose no area',
    'PTV: 2 OPEN_PLANAR contours, whose ends meet, taken as closed',
  ]


def test_contours_that_exclude_each_other(tmp_path):
  """XOR of two circles that overlap and a small one in both, turned round."""
  ptv = [
    contour
    for z in synthetic.heights(3.0, 15)
    for contour in (
      synthetic.circle(3, z, centre=(-20, 0), points=60),
      synthetic.circle(15, z, centre=(-20, 0), points=60),
      synthetic.circle(15, z, centre=(-10, 0), points=60),
    )
  ][::-1]
  dataset = synthetic.structure_set({**STRUCTURES, 'PTV': ptv})
  for contour in roi(dataset, 'PTV')[1].ContourSequence:
    contour.ContourGeometricType = 'CLOSEDPLANAR_XOR'
  case = read(tmp_path, dataset)
  lens = 450 * np.arccos(1 / 3) - 5 * np.sqrt(900 - 100)
  area = 2 * np.pi * 225 - 2 * lens + np.pi * 9
  assert case.occupancies['PTV'].volume_cc == pytest.approx(
    area * 30 / 1000, rel=0.01
  )


def test_faulty_contours_cost_their_structure_only(tmp_path):
  dataset = synthetic.structure_set(STRUCTURES)
  for name in ('Bladder', 'Rectum'):
    contour = roi(dataset, name)[1].ContourSequence[0]
    contour.ContourData = contour.ContourData[:-1]
  case = read(tmp_path, dataset)
  assert volumes(case) == expected('body', 'PTV')
  for name in ('bladder', 'rectum'):
    (note,) = (n for n in case.notes if n.startswith(f'{name} left out'))
    assert 'ContourData is not a list of points' in note


def test_contours_that_are_cut_off_are_told(tmp_path):
  dataset = synthetic.structure_set(STRUCTURES)
  contour = roi(dataset, 'PTV')[1].ContourSequence[0]
  contour.ContourData = contour.ContourData[:90]
  case = read(tmp_path, dataset)
  (note,) = (n for n in case.notes if 'NumberOfContourPoints' in n)
  assert note.startswith('PTV: 1 contours have fewer points')


def test_regions_of_another_frame_are_told(tmp_path):
  dataset = synthetic.structure_set(STRUCTURES)
  roi(dataset, 'Bladder')[0].ReferencedFrameOfReferenceUID = '9.9'
  case = read(tmp_path, dataset)
  assert volumes(case) == expected('body', 'rectum', 'PTV')
  assert 'in another frame of reference: Bladder' in case.notes


@pytest.mark.parametrize('ct_mm', [1.0, 5.0])
def test_the_ct_may_be_another_than_that_of_the_contours(tmp_path, ct_mm):
  """A public report: rt-utils issue 63."""
  structures = {
    'BODY': synthetic.cylinder(40, 30, 2.0, points=60),
    'Rectum': synthetic.cylinder(9, 24, 2.0, centre=(0, 28), points=60),
    'PTV': synthetic.cylinder(15, 15, 2.0, points=60),
    'Bladder': synthetic.cylinder(12, 12, 2.0, centre=(0, -26), points=60),
  }
  slices = synthetic.ct_slices(ct_mm, round(80 / ct_mm))
  case = read(tmp_path, synthetic.structure_set(structures), others=slices)
  assert volumes(case) == expected()
  assert (
    f'contours are 2.0 mm apart, slices of the CT {ct_mm:.1f} mm: the contours '
    'count'
  ) in case.notes


def test_structures_end_as_the_cohort_says(tmp_path):
  dataset = synthetic.structure_set(STRUCTURES)
  case = read(tmp_path, dataset, ends='outermost')
  assert volumes(case)['PTV'] == pytest.approx(CC['PTV'] * 0.9, rel=2e-3)
  found, read_case, _ = open_folder(
    'dicom', str(tmp_path), NAMES, (), {'contour_ends': 'outermost'},
    dose_optional=True,
  )  # fmt: skip
  case = read_case(found['anna'])
  assert volumes(case)['PTV'] == pytest.approx(CC['PTV'] * 0.9, rel=2e-3)
  settings = importing.Settings(
    tuple(map(Structure.from_name, NAMES)), (32, 32, 16), (4.0, 4.0, 6.0), 78.0
  )
  patient, _ = importing.assemble(case, settings, dose_optional=True)
  assert patient.present.all()


def test_a_cohort_keeps_how_structures_end(tmp_path):
  synthetic.write_patient(tmp_path / 'in')
  config = config_lib.default()
  config.cohort.update(
    source='dicom', raw=str(tmp_path / 'in'), path=str(tmp_path / 'cohort'),
    grid=(32, 32, 16), spacing_mm=(4.0, 4.0, 6.0), contour_ends='outermost',
  )  # fmt: skip
  config_lib.validate(config)
  source = imported.Imported(config.cohort)
  assert source.provenance['contour_ends'] == 'outermost'
  (entry,) = json.loads((tmp_path / 'cohort.import.json').read_text())[
    'patients'
  ]
  # 60 mm less half a slice at either end.
  rectum = 24 * 81 * 57 * np.sin(np.pi / 24) / 1000
  found = entry['structures']['rectum']['volume_cc']
  assert found == pytest.approx(rectum, rel=2e-3)
  config.cohort.contour_ends = 'round'
  with pytest.raises(errors.ConfigError, match='contour_ends'):
    config_lib.validate(config)


@pytest.mark.parametrize(
  'provenance, ends',
  [
    ({'source': 'dicom', 'contour_ends': 'outermost'}, 'outermost'),
    ({'source': 'dicom'}, 'half_slice'),  # an older cohort
    ({'source': 'simulated'}, 'rounded'),
    ({'source': 'store', 'from': {'contour_ends': 'outermost'}}, 'outermost'),
    ({'source': 'store', 'from': {'source': 'dicom'}}, 'half_slice'),
  ],
)
def test_external_patients_are_read_as_the_cohort_was(provenance, ends):
  assert external.contour_ends(provenance) == ends
