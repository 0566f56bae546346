"""Lists all faults of a cohort store at once.

The exit status is 1 if there are any.

example:
  dvhflax validate cohorts/prostate_small
"""


def define() -> None:
  """Without flags of its own."""


def main(cohort: str) -> int:
  from dvhflax.cohort.validate import validate_cohort

  faults = validate_cohort(cohort)
  for fault in faults:
    print(fault)
  print(f'{cohort}: {len(faults) or "no"} fault{"s" * (len(faults) != 1)}')
  return 1 if faults else 0
