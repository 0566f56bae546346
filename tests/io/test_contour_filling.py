"""Contours of one slice that lie on each other, against closed forms."""

import numpy as np
import pytest
import synthetic_dicom as synthetic

from dvhflax.io.contours import stack as contours


def box(x0, x1, y0, y1):
  points = [[x0, y0, 0], [x1, y0, 0], [x1, y1, 0], [x0, y1, 0]]
  return np.array(points, float)


def area_of(*polygons):
  """Area in mm^2 of four slices of the same contours, and the notes."""
  stack = [
    polygon + np.array([0.0, 0.0, z])
    for z in (0, 3, 6, 9)
    for polygon in polygons
  ]
  occupancy, notes = contours.occupancy(stack, 3.0, 'half_slice')
  return occupancy.volume_cc * 1000 / 12, notes


OVERLAP = ['contours overlap in 4 slices: united']
WITHIN = ['contours lie within others in 4 slices: holes']


def test_overlapping_contours_are_united():
  """A public report: medical-physics-usz/z-rad pull 181."""
  area, notes = area_of(box(-20, 0, 20, 40), box(-10, 10, 20, 40))
  assert area == pytest.approx(600, rel=0.002)
  assert notes == OVERLAP


def test_three_in_a_row():
  row = [synthetic.circle(10, 0.0, centre=(x, 0)) for x in (-12, 0, 12)]
  lens = 200 * np.arccos(0.6) - 6 * 2 * 8
  area, notes = area_of(*row)
  assert area == pytest.approx(3 * np.pi * 100 - 2 * lens, rel=0.002)
  assert notes == OVERLAP


def test_a_hole_of_united_contours_and_an_island_in_it():
  area, notes = area_of(
    box(0, 40, 0, 40),
    box(30, 60, 0, 40),
    box(5, 25, 5, 25),
    box(10, 15, 10, 15),
  )
  assert area == pytest.approx(60 * 40 - 400 + 25, rel=0.002)
  assert notes == [*OVERLAP, *WITHIN]


@pytest.mark.parametrize('order', [1, -1])
def test_a_hole_that_touches_the_outline(order):
  area, notes = area_of(*(box(0, 40, 0, 40), box(0, 20, 10, 30))[::order])
  assert area == pytest.approx(1200, rel=0.002)
  assert notes == WITHIN


def test_neighbours_that_share_a_side_are_neither():
  area, notes = area_of(box(0, 20, 0, 20), box(20, 30.3, 0, 20))
  assert area == pytest.approx(30.3 * 20, rel=0.002)
  assert not notes


def test_a_contour_drawn_twice_counts_once():
  area, notes = area_of(
    synthetic.circle(20, 0.0), synthetic.circle(19.8, 0.0, points=190)
  )
  assert area == pytest.approx(np.pi * 400, rel=0.002)
  assert notes == ['4 contours drawn twice left out']


def test_a_thin_wall_is_one():
  area, notes = area_of(synthetic.circle(20, 0.0), synthetic.circle(18.5, 0.0))
  assert area == pytest.approx(np.pi * (400 - 18.5**2), rel=0.002)
  assert notes == WITHIN


@pytest.mark.parametrize('step, told', [(5, 'within others'), (2, 'too many')])
def test_many_holes_in_one_slice(step, told):
  radius = 0.4 * step
  holes = [
    synthetic.circle(radius, 0.0, centre=(x, y), points=24)
    for x in range(-25, 26, step)
    for y in range(-25, 26, step)
  ]
  area, notes = area_of(synthetic.circle(45, 0.0), *holes)
  hole = 12 * radius**2 * np.sin(np.pi / 12)
  assert area == pytest.approx(np.pi * 2025 - len(holes) * hole, rel=0.002)
  assert len(notes) == 1 and told in notes[0]
