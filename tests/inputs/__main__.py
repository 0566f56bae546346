"""Runs damaged inputs of all kinds and prints what became of them."""

import argparse
import json
import sys

from inputs import pool
from inputs.kinds import KINDS, shares


def main():
  parser = argparse.ArgumentParser(prog='python -m inputs')
  parser.add_argument('--number', type=int, default=10_000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--kind', choices=KINDS, action='append')
  parser.add_argument('--only', type=int, nargs='*', help='cases of one kind')
  parser.add_argument('--log', help='file of all answers, a line of JSON each')
  given = parser.parse_args()
  total = faults = 0
  seconds = 0.0
  print(
    f'{"kind":12}{"read":>7}{"refused":>9}{"left out":>10}{"accepted":>10}'
    f'{"faults":>8}{"s":>7}{"slowest":>9}{"MB":>6}'
  )
  for name in given.kind or KINDS:
    share = shares(given.number)[name]
    if given.kind:
      share = given.number
    outcome = pool.run(
      name, given.only or range(share), given.seed, keep=bool(given.log)
    )
    counts = outcome.counts
    number = sum(counts.values())
    print(
      f'{name:12}{number:7}{counts["refused"]:9}{counts["left out"]:10}'
      f'{counts["accepted"]:10}{counts["fault"]:8}{outcome.seconds:7.0f}'
      f'{outcome.slowest:8.1f}s{outcome.peak / 2**20:6.0f}',
      flush=True,
    )
    for fault in outcome.faults:
      print(f'  {name} {json.dumps(fault)}', file=sys.stderr)
    if given.log:
      with open(given.log, 'a') as file:
        for case in outcome.cases:
          file.write(json.dumps({'kind': name, **case}) + '\n')
    total, faults = total + number, faults + counts['fault']
    seconds += outcome.seconds
  print(f'{total} damaged inputs in {seconds:.0f} s, {faults} faults')
  sys.exit(bool(faults))


if __name__ == '__main__':
  main()
