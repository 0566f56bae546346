"""Evaluates a trained network: `dvhflax evaluate`, from a checkout.

python run_eval.py --workdir=runs/small --anatomy_workdir=runs/anatomy
"""

import sys

from dvhflax.cli import main

if __name__ == '__main__':
  main.run('evaluate', sys.argv[1:], 'python run_eval.py')
