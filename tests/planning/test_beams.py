"""The lattice of beamlets."""

import dataclasses

import numpy as np

from dvhflax.planning.beams import Beamlets


def test_neighbours_are_next_to_each_other():
  opened = np.zeros((2, 8, 8), bool)
  opened[0, 0, 0:3] = opened[0, 1, 1] = opened[1, 0, 0] = True
  beamlets = Beamlets(np.zeros(3), np.zeros(2), 1000.0, 5.0, opened)
  neighbours = beamlets.neighbours
  assert neighbours.shape == (len(beamlets.active), 4)
  pairs = {
    (i, int(j)) for i, row in enumerate(neighbours) for j in row if i != j
  }
  one_way = {(0, 1), (1, 2), (1, 3)}
  assert pairs == one_way | {(j, i) for i, j in one_way}


def test_a_finer_beamlet_lies_in_the_coarser_one_round_it():
  fine = Beamlets(
    np.zeros(3), np.zeros(1), 1000.0, 5.0, np.ones((1, 8, 8), bool)
  )
  coarse = dataclasses.replace(fine, width_mm=10.0)
  place = coarse.around(fine)
  i, j = np.divmod(np.arange(64), 8)
  # Eight beamlets of 5 mm cover the middle four of 10 mm.
  expected = (i // 2 + 2) * 8 + j // 2 + 2
  np.testing.assert_array_equal(place[:64], expected)
  assert (place[64:] == -1).all()
