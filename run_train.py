"""Trains a dose prediction network: `dvhflax train`, from a checkout.

python run_train.py --config=configs/prostate.py:small
"""

import sys

from dvhflax.cli import main

if __name__ == '__main__':
  main.run('train', sys.argv[1:], 'python run_train.py')
