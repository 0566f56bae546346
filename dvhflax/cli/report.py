"""Shows a cohort's plans: metrics, clinical limits, a picture.

Prints a table and writes `plans.png` beside the store's data.

example:
  dvhflax report cohorts/prostate_small
"""


def define() -> None:
  """Without flags of its own."""


def main(cohort: str) -> None:
  from dvhflax.cohort.store import Cohort
  from dvhflax.report.cohort import describe, save_plans

  store = Cohort.open(cohort)
  print(describe(store))
  print(f'written to {save_plans(store)}')
