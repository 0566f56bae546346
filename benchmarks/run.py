"""Measures dvhflax against its peers and prints a table.

python benchmarks/run.py [--torch=VENV/bin/python] [--only=WORD]

Every measurement is a process of its own, one after another, with the same
environment; a row's ratio is its median over that of the row's peer. Without
`--torch`, an interpreter that has torch, those rows are left out.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
FULL, HALF = (128, 128, 64), (64, 64, 32)
LAYERS = ((*HALF, 16, 16), (*HALF, 32, 32), (32, 32, 16, 64, 64),
          (16, 16, 8, 128, 128), (*HALF, 48, 16))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
  """A measurement.

  Attributes:
    title: what is done, the same for all that can be compared.
    name: who does it.
    script, case: the file and its argument.
    numbers: sizes.
    torch: needs the interpreter with torch.
    flop: of one call, 0 if not known.
  """

  title: str
  name: str
  script: str
  case: str
  numbers: tuple[int, ...]
  torch: bool = False
  flop: float = 0.0


def convolution_flop(batch, x, y, z, channels, features) -> float:
  """Of one 3x3x3 layer, forward."""
  return 2.0 * 27 * batch * x * y * z * channels * features


def network_flop(batch: int, grid: tuple[int, ...]) -> float:
  """Of the paper's network's 3x3x3 layers, forward, as figure 3 has them."""
  channels, total, before = (16, 32, 64, 128, 128, 128), 0.0, 4
  for level, c in enumerate(channels):
    size = [max(n >> level, 1) for n in grid]
    if max(size) <= 2:
      break
    above = channels[min(level + 1, 5)]
    for inputs in (before, c, above + c, c):
      total += convolution_flop(batch, *size, inputs, c)
    before = c
  return total


def size(grid: tuple[int, ...]) -> str:
  """As titles have it."""
  return 'x'.join(map(str, grid))


def cases() -> list[Case]:
  """All measurements, peers beside each other."""
  found = []

  def network(verb, grid, batch, forms, hows, factor):
    title = f'{verb} {size(grid)}, batch {batch}'
    numbers, flop = (batch, *grid), factor * network_flop(batch, grid)
    for how in hows:
      found.append(
        Case(title, f'torch {how}', 'network_torch.py', f'{verb}-{how}',
             numbers, True, flop)
      )  # fmt: skip
    for form in forms:
      found.append(
        Case(title, form, 'network.py', f'{verb}-{form}', numbers, flop=flop)
      )

  both = ('eager', 'compiled')
  for layer in LAYERS:
    for verb, factor in (('convolution', 1), ('gradient', 2)):
      title = f'{verb} {size(layer[:3])}, {layer[3]}-{layer[4]}'
      flop = factor * convolution_flop(1, *layer)
      found.append(
        Case(title, 'torch eager', 'network_torch.py', f'{verb}-eager',
             (1, *layer), True, flop)
      )  # fmt: skip
      for form in ('native', 'im2col', 'lax'):
        found.append(
          Case(title, form, 'network.py', f'{verb}-{form}', (1, *layer),
               flop=flop)
        )  # fmt: skip

  def runtimes(grid):
    title, flop = f'predict {size(grid)}, batch 1', network_flop(1, grid)
    for name in ('onnxruntime', 'openvino'):
      found.append(
        Case(title, name, 'network_onnx.py', f'predict-{name}', (1, *grid),
             flop=flop)
      )  # fmt: skip

  every = ('native', 'im2col', 'lax')
  network('predict', FULL, 1, every, both, 1)
  runtimes(FULL)
  network('repredict', FULL, 1, ('native', 'im2col'), (), 1)
  network('train', FULL, 1, every, both, 3)
  network('train', FULL, 3, ('native', 'remat', 'parts'), both, 3)
  network('predict', HALF, 1, every, both, 1)
  runtimes(HALF)
  network('repredict', HALF, 1, ('native', 'im2col'), (), 1)
  network('train', HALF, 3, every, both, 3)
  for grid in (FULL, HALF):
    title = f'samples of {size(grid)}, batch 3'
    for place in ('store', 'memory', 'device'):
      found.append(Case(title, place, 'feeding.py', place, (3, *grid)))
  for wishes, plans in ((3, 10), (770, 770), (770, 100_000)):
    for name in ('scipy', 'torch', 'dvhflax'):
      title = f'projection of {wishes} wishes on {plans} plans'
      found.append(
        Case(title, name, 'projection.py', name, (wishes, plans),
             name == 'torch')
      )  # fmt: skip
  for grid, plans in ((FULL, 10), (FULL, 100), (HALF, 10), (HALF, 1000)):
    found.append(
      Case(f'patient {size(grid)}, {plans} plans', 'dvhflax', 'planning.py',
           'patient', (plans, *grid))
    )  # fmt: skip
  return found


def run(case: Case, python: str) -> dict[str, float] | None:
  """Measures a case in a process of its own; None if it fails."""
  command = [python, str(HERE / case.script), case.case]
  command += [str(n) for n in case.numbers]
  result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
  if result.returncode:
    return None
  return json.loads(result.stdout.splitlines()[-1])


def row(case: Case, measured: dict[str, float], peer: float) -> str:
  """One line of the table."""
  rate = case.flop / measured['median'] / 1e9
  return (
    f'| {case.title} | {case.name} | {measured["median"] * 1e3:.4g} | '
    f'{measured["min"] * 1e3:.4g} to {measured["max"] * 1e3:.4g} | '
    f'{measured["median"] / peer:.3g} | '
    f'{f"{rate:.0f}" if rate else ""} | {measured["peak_gb"]:.2f} |'
  )


def machine() -> str:
  """What the figures depend on, in a line."""
  import jax

  from dvhflax import native

  tunables = os.environ.get('GLIBC_TUNABLES', 'none')
  return (
    f'{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, '
    f'compiled for {"/".join(native.available()) or "none"}, jax '
    f'{jax.__version__}, GLIBC_TUNABLES: {tunables}'
  )


def main() -> None:
  """Runs the cases that the command line asks for."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--torch', help='an interpreter that has torch')
  parser.add_argument('--only', default='', help='cases whose title has it')
  parser.add_argument('--skip', default='-', help='leave these out by name')
  options = parser.parse_args()
  print(f'{machine()}\n')
  print('| | | median, ms | range | ratio | GFLOP/s | peak, GB |')
  print('| --- | --- | ---: | ---: | ---: | ---: | ---: |', flush=True)
  title, peer = '', 0.0
  for case in cases():
    if options.only not in case.title or options.skip in case.name:
      continue
    if case.torch and not options.torch:
      continue
    measured = run(case, options.torch if case.torch else sys.executable)
    if measured is None:
      print(f'| {case.title} | {case.name} | failed | | | | |', flush=True)
      continue
    if case.title != title:
      title, peer = case.title, measured['median']
    print(row(case, measured, peer), flush=True)


if __name__ == '__main__':
  main()
