"""Measures dvhflax against its peers and prints a table.

python benchmarks/run.py [--gpu] [--torch=VENV/bin/python] [--only=WORD]

Every measurement is a process of its own, one after another, with the same
environment; a row's ratio is its median over that of the row's peer. Its
share is of the rate of a matrix product in the same precision. Without
`--torch`, an interpreter that has torch, those rows are left out.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

import cases

HERE = pathlib.Path(__file__).parent


def run(case: cases.Case, python: str) -> dict[str, float] | None:
  """Measures a case in a process of its own; None if it fails."""
  command = [python, str(HERE / case.script), case.case]
  command += [str(n) for n in case.numbers]
  result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
  if result.returncode:
    return None
  return json.loads(result.stdout.splitlines()[-1])


def row(
  case: cases.Case, measured: dict[str, float], peer: float, product: float
) -> str:
  """One line of the table; `product` is a matrix product's rate, or nan."""
  rate = case.flop / measured['median'] / 1e9
  share = rate / product
  return (
    f'| {case.title} | {case.name} | {measured["median"] * 1e3:.4g} | '
    f'{measured["min"] * 1e3:.4g} to {measured["max"] * 1e3:.4g} | '
    f'{measured["median"] / peer:.3g} | '
    f'{f"{rate:.0f}" if rate else ""} | '
    f'{f"{share:.2f}" if share > 0 else ""} | {measured["peak_gb"]:.2f} |'
  )


def machine(gpu: bool) -> str:
  """What the figures depend on, in a line; exits if a GPU is not there."""
  import jax

  from dvhflax import native

  # Not in this process: it would take most of the GPU's memory.
  ask = 'import jax; d = jax.devices()[0]; print(d.platform, d.device_kind)'
  told = subprocess.run(
    [sys.executable, '-c', ask], stdout=subprocess.PIPE, text=True, check=True
  ).stdout.split(maxsplit=1)
  if gpu and told[0] != 'gpu':
    sys.exit(f'--gpu: JAX finds no GPU, only {told[0]}: pip install .[cuda]')
  tunables = os.environ.get('GLIBC_TUNABLES', 'none')
  return (
    f'{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, '
    f'{told[1].strip()}, compiled for {"/".join(native.available()) or "none"},'
    f' jax {jax.__version__}, GLIBC_TUNABLES: {tunables}'
  )


def main() -> None:
  """Runs the cases that the command line asks for."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--gpu', action='store_true', help='the cases of a GPU')
  parser.add_argument('--torch', help='an interpreter that has torch')
  parser.add_argument('--only', default='', help='cases whose title has it')
  parser.add_argument('--skip', default='-', help='leave these out by name')
  options = parser.parse_args()
  print(f'{machine(options.gpu)}\n')
  print('| | | median, ms | range | ratio | GFLOP/s | share | peak, GB |')
  print('| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |', flush=True)
  title, peer = '', 0.0
  products: dict[str, float] = {}
  for case in cases.gpu() if options.gpu else cases.cpu():
    is_product = case.title.startswith(cases.PRODUCT)
    # What the others are compared with is always measured.
    if not is_product and (
      options.only not in case.title or options.skip in case.name
    ):
      continue
    if case.torch and not options.torch:
      continue
    measured = run(case, options.torch if case.torch else sys.executable)
    if measured is None:
      print(f'| {case.title} | {case.name} | failed |||||||', flush=True)
      continue
    if case.title != title:
      title, peer = case.title, measured['median']
    if is_product:
      products[case.precision] = case.flop / measured['median'] / 1e9
    product = products.get(case.precision, float('nan'))
    print(row(case, measured, peer, product), flush=True)


if __name__ == '__main__':
  main()
