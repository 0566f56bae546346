"""The planner beside pyRadPlan, on one simulated patient, in one process.

python benchmarks/planning_pyradplan.py agreement [X Y Z]
python benchmarks/planning_pyradplan.py time PLANS [X Y Z]

Needs an environment of its own (README.md). Prints JSON lines.

`agreement`: dose of the same beamlets' fluences by both. Our engine gets the
kernels of pyRadPlan's machine, fitted by Gaussians, and its cut-off; what is
left are ray tracing, the fit and the interpolation. In % of the maximum.

`time`: pyRadPlan's influence of the whole body and its optimisation, plan
after plan, then ours, which first plans another patient to compile. `cpu` are
processor seconds, which other processes disturb less. Both have
the target's squared deviation, each OAR's squared overdose and mean, and the
body's squared overdose as objectives; each has its own weights, stopping
rule, sampling of voxels and choice of beamlets.
"""

import sys

from pyradplan_agreement import agreement
from pyradplan_time import times

if __name__ == '__main__':
  case, *numbers = sys.argv[1:]
  {'agreement': agreement, 'time': times}[case](*map(int, numbers))
