"""Simulating and planning a patient of the paper's size; see run.py.

python benchmarks/planning.py patient N X Y Z
"""

import itertools

from measuring import answer

from dvhflax.sources.simulated import simulate_patient

FIELD_MM = (480.0, 320.0, 192.0)


def patient(plans, *grid):
  """Another patient at each call, as when a cohort is built."""
  spacing = tuple(f / n for f, n in zip(FIELD_MM, grid))
  indices = itertools.count()

  def call():
    simulate_patient(
      0, next(indices), grid=grid, spacing_mm=spacing, plans=plans
    )

  return call


if __name__ == '__main__':
  answer({'patient': patient})
