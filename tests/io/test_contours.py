"""Contours against closed forms: volumes, holes, gaps, faults."""

import numpy as np
import pytest
import synthetic_dicom as synthetic

from dvhflax import errors
from dvhflax.io import resample, source_dvh
from dvhflax.io.contours import stack as contours

SPACINGS = (0.5, 1.0, 2.0, 3.0)
# Dose in Gy that grows by 1 Gy a mm along an axis, 0 at -60 mm.
RAMP = np.arange(-60.0, 61.0, 3.0)


def ramp(axis):
  values = synthetic.gradient(top=120.0, axis=axis)
  return resample.Dose(values, (RAMP, RAMP, RAMP))


def sphere_share(radius, depth):
  """Share of a sphere's volume beyond a plane at `depth` from its centre."""
  height = radius - depth
  return height**2 * (3 * radius - height) / (4 * radius**3)


@pytest.mark.parametrize('spacing', SPACINGS)
@pytest.mark.parametrize(
  'shape, volume, tolerance',
  [
    (lambda s: synthetic.sphere(20, s), 4 / 3 * np.pi * 20**3, 0.006),
    (lambda s: synthetic.cylinder(20, 15, s), np.pi * 20**2 * 30, 0.001),
    (lambda s: synthetic.cone(20, 24, s), np.pi * 20**2 * 48 / 3, 0.002),
  ],
  ids=['sphere', 'cylinder', 'cone'],
)
def test_volumes(shape, volume, tolerance, spacing):
  occupancy, notes = contours.occupancy(shape(spacing), spacing)
  assert not notes
  assert occupancy.volume_cc * 1000 == pytest.approx(volume, rel=tolerance)
  low = [lower[0] for lower in occupancy.lower]
  assert np.all(np.array(low) <= -14)


@pytest.mark.parametrize('spacing', SPACINGS)
@pytest.mark.parametrize('axis', [0, 1, 2])
def test_dvh_of_a_sphere_in_a_linear_dose(axis, spacing):
  radius = 20
  occupancy, _ = contours.occupancy(synthetic.sphere(radius, spacing), spacing)
  curve = source_dvh.dvh(ramp(axis), occupancy)
  depths = np.linspace(-0.9, 0.9, 13) * radius
  measured = [
    curve.volume_percent_at_dose(60 + depth) / 100 for depth in depths
  ]
  np.testing.assert_allclose(measured, sphere_share(radius, depths), atol=0.004)
  assert curve.mean_dose == pytest.approx(60, abs=0.05)
  assert curve.dose_at_volume_percent(50) == pytest.approx(60, abs=0.05)


def stacked(*polygons):
  """The same contours in three slices 3 mm apart."""
  return [lifted(p, z) for z in (0.0, 3.0, 6.0) for p in polygons]


def lifted(contour, z):
  return contour + np.array([0, 0, z])


OUTER, INNER = synthetic.circle(20, 0.0), synthetic.circle(8, 0.0)
KEYHOLE = np.concatenate([OUTER, OUTER[:1], INNER[::-1], INNER[-1:], OUTER[:1]])
RING_CC = np.pi * (400 - 64) * 9 / 1000


HOLES = ['contours lie within others in 3 slices: holes']


@pytest.mark.parametrize(
  'polygons, expected',
  [
    ((OUTER, INNER), HOLES),
    ((INNER, OUTER[::-1]), HOLES),
    ((KEYHOLE,), []),
    ((np.concatenate([OUTER, OUTER[:1], INNER, INNER[:1], OUTER[:1]]),), []),
  ],
  ids=['hole', 'reversed', 'keyhole', 'keyhole of one direction'],
)
def test_holes_and_keyholes(polygons, expected):
  occupancy, notes = contours.occupancy(stacked(*polygons))
  assert notes == expected
  assert occupancy.volume_cc == pytest.approx(RING_CC, rel=1e-3)


def test_several_parts_of_a_slice_and_an_island_in_a_hole():
  island = synthetic.circle(4, 0.0)
  apart = synthetic.circle(5, 0.0, centre=(40, 0))
  occupancy, _ = contours.occupancy(stacked(OUTER, INNER, island, apart))
  area = np.pi * (400 - 64 + 16 + 25)
  assert occupancy.volume_cc == pytest.approx(area * 9 / 1000, rel=1e-3)


@pytest.mark.parametrize('ends', contours.ENDS)
def test_a_missing_slice_is_interpolated(ends):
  whole = synthetic.cone(20, 24, 3.0)
  expected, _ = contours.occupancy(whole, 3.0, ends)
  occupancy, notes = contours.occupancy(whole[:5] + whole[6:], 3.0, ends)
  assert notes == ['1 missing slices interpolated']
  assert occupancy.volume_cc == pytest.approx(expected.volume_cc, rel=0.002)


def test_several_slices_without_contours_stay_empty():
  """Two parts of one structure, 12 mm apart."""
  part = synthetic.cylinder(12, 6, 3.0)
  parts = [lifted(c, z) for z in (-12.0, 12.0) for c in part]
  occupancy, notes = contours.occupancy(parts, 3.0)
  assert notes == ['no contours between z=-7.5 and 7.5 mm: separate parts']
  assert occupancy.volume_cc == pytest.approx(2 * np.pi * 1.728, rel=1e-3)
  assert not ((occupancy.lower[2] > -5.9) & (occupancy.upper[2] < 5.9)).any()


def test_a_structure_drawn_on_some_slices_is_joined():
  whole = synthetic.cylinder(12, 24, 3.0)
  some = [whole[i] for i in (0, 2, 5, 9, 12, 15)]
  occupancy, notes = contours.occupancy(some, 3.0)
  assert notes == ['10 missing slices interpolated']
  assert occupancy.volume_cc == pytest.approx(np.pi * 0.144 * 48, rel=1e-3)


@pytest.mark.parametrize('image_mm', [1.0, 5.0, None])
def test_slabs_are_as_high_as_contours_are_apart(image_mm):
  occupancy, notes = contours.occupancy(
    synthetic.cylinder(10, 15, 2.0), image_mm
  )
  assert occupancy.volume_cc == pytest.approx(np.pi * 3.0, rel=1e-3)
  assert bool(notes) == bool(image_mm)


@pytest.mark.parametrize(
  'heights, spacing',
  [
    ([0, 3, 6, 9], 3.0),
    ([9, 0, 3, 6, 3.04, 6], 3.0),  # two of a slice, one rounded
    ([0, 1.2, 2.5, 3.8, 5.0], 1.25),  # rounded to a tenth
    ([0, 2, 5, 7, 10], 2.5),  # to whole numbers
    ([0, 3, 6, 12, 15], 3.0),  # one is missing
    ([0, 3, 6, 60, 63, 66], 3.0),
    ([0, 3], None),
    ([0, 3, 6, 12, 18, 24, 27], None),
  ],
)
def test_regular_spacing(heights, spacing):
  found = contours.regular_spacing(np.array(heights, float))
  assert found == (spacing and pytest.approx(spacing, rel=0.02))


def test_the_parts_of_a_slice_may_be_rounded_apart():
  left = synthetic.cylinder(8, 15, 3.0, centre=(-20, 0))
  right = [lifted(c, 0.04) for c in synthetic.cylinder(8, 15, 3.0)]
  occupancy, notes = contours.occupancy(left + right[::-1], 3.0)
  assert not notes
  assert occupancy.volume_cc == pytest.approx(2 * np.pi * 1.92, rel=2e-3)


def test_a_wide_gap_stays_open():
  parts = [
    *synthetic.cylinder(10, 6, 3.0),
    *(lifted(c, 60) for c in synthetic.cylinder(10, 6, 3.0)),
  ]
  occupancy, notes = contours.occupancy(parts, 3.0)
  assert 'separate parts' in notes[0]
  assert occupancy.volume_cc == pytest.approx(2 * np.pi * 1.2, rel=1e-3)


def test_ends_are_capped_by_half_a_slice():
  occupancy, _ = contours.occupancy(synthetic.cylinder(10, 15, 3.0), 3.0)
  assert occupancy.lower[2][0] == pytest.approx(-15)
  assert occupancy.upper[2][-1] == pytest.approx(15)


def test_duplicates_and_degenerate_contours_are_left_out_and_told():
  good = synthetic.cylinder(10, 15, 3.0)
  line = np.array([[0.0, 0, 0], [1, 1, 0], [2, 2, 0]])
  rolled = np.roll(good[2], 7, 0)
  occupancy, notes = contours.occupancy(
    [*good, rolled, good[3][::-1], line, line[:1]], 3.0
  )
  assert occupancy.volume_cc == pytest.approx(np.pi * 3, rel=1e-3)
  assert notes == [
    '2 contours that enclose no area left out',
    '2 repeated contours left out',
  ]


def test_a_contour_traced_twice_is_not_empty():
  good = synthetic.cylinder(10, 15, 3.0)
  twice = [np.tile(good[0], (2, 1)), *good[1:]]
  occupancy, notes = contours.occupancy(twice, 3.0)
  assert occupancy.volume_cc == pytest.approx(np.pi * 3, rel=1e-3)
  assert notes == ['1 contours traced several times taken once']


@pytest.mark.parametrize(
  'polygons, match',
  [
    ([OUTER[:, [0, 2, 1]]], 'not axial'),
    ([OUTER * np.nan], 'not finite'),
    ([OUTER[:2]], 'no contour that encloses'),
    ([OUTER], 'one slice only'),
    ([OUTER * [100, 1, 1], lifted(INNER, 3)], 'extends over'),
    ([OUTER, OUTER * [1e300, 1, 1]], 'mm from the origin'),
  ],
)
def test_impossible_contours_are_refused(polygons, match):
  with pytest.raises(errors.CohortError, match=match):
    contours.occupancy(polygons)


def test_scribbles_are_refused_before_they_fill_the_memory():
  zigzag = np.zeros((20_000, 3))
  zigzag[::2, 1] = 100
  zigzag[:, 0] = np.arange(20_000) / 100
  with pytest.raises(errors.CohortError, match='too many crossings'):
    contours.occupancy([zigzag], 3.0)
