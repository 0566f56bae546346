"""What is measured, on a CPU and on a GPU; see run.py."""

from collections.abc import Iterator, Sequence
import dataclasses

FULL, HALF = (128, 128, 64), (64, 64, 32)
LAYERS = ((*HALF, 16, 16), (*HALF, 32, 32), (32, 32, 16, 64, 64),
          (16, 16, 8, 128, 128), (*HALF, 48, 16))  # fmt: skip
FORMS = ('native', 'im2col', 'lax')
# What a GPU computes products in; `tf32` rounds float32 to 10 bits, as both
# frameworks do unless they are told otherwise.
PRECISIONS = ('float32', 'tf32', 'bfloat16')
PRODUCT = 'matrix product'


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
    precision: of its products; the matrix product of that precision is what
      the hardware can do.
  """

  title: str
  name: str
  script: str
  case: str
  numbers: tuple[int, ...]
  torch: bool = False
  flop: float = 0.0
  precision: str = 'float32'


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


def size(grid: Sequence[int]) -> str:
  """As titles have it."""
  return 'x'.join(map(str, grid))


def _hardware(precisions: Sequence[str], n: int) -> Iterator[Case]:
  """Products of two n x n matrices, and the memory."""
  for p in precisions:
    yield Case(
      f'{PRODUCT} {n}x{n}', p, 'roofline.py', f'product-{p}', (n,),
      flop=2.0 * n**3, precision=p
    )  # fmt: skip
  # Read and written: the rate is in GB/s.
  yield Case('copy of 1 GB', 'GB/s', 'roofline.py', 'copy', (1,), flop=2e9,
             precision='')  # fmt: skip


def _network(
  verb: str,
  grid: tuple[int, ...],
  batch: int,
  torch: Sequence[str],
  ours: Sequence[str],
  precision: str = 'float32',
) -> Iterator[Case]:
  title = f'{verb} {size(grid)}, batch {batch}'
  factor = 3 if verb == 'train' else 1
  numbers, flop = (batch, *grid), factor * network_flop(batch, grid)
  for how in torch:
    name, case = f'torch {how.replace("-", ", ")}', f'{verb}-{how}'
    yield Case(
      title, name, 'network_torch.py', case, numbers, True, flop, precision
    )
  for how in ours:
    yield Case(
      title, how, 'network.py', f'{verb}-{how}', numbers, False, flop, precision
    )


def _matched(grid: tuple[int, ...]) -> Iterator[Case]:
  """A patient's first prediction, what of it is before the network, another
  wish."""
  for verb in ('predict', 'prepare', 'repredict'):
    yield Case(
      f'{verb} with the matched dose {size(grid)}, batch 1', 'native',
      'network.py', f'{verb}-matched', (1, *grid)
    )  # fmt: skip


def _layers() -> Iterator[Case]:
  for layer in LAYERS:
    for verb, factor in (('convolution', 1), ('gradient', 2)):
      title = f'{verb} {size(layer[:3])}, {layer[3]}-{layer[4]}'
      numbers = (1, *layer)
      flop = factor * convolution_flop(*numbers)
      yield Case(
        title, 'torch eager', 'network_torch.py', f'{verb}-eager', numbers,
        True, flop
      )  # fmt: skip
      for form in FORMS:
        yield Case(
          title, form, 'network.py', f'{verb}-{form}', numbers, flop=flop
        )


def _runtimes(grid: tuple[int, ...]) -> Iterator[Case]:
  title, flop = f'predict {size(grid)}, batch 1', network_flop(1, grid)
  for name in ('onnxruntime', 'openvino'):
    yield Case(
      title, name, 'network_onnx.py', f'predict-{name}', (1, *grid), flop=flop
    )


def _samples(grid: tuple[int, ...], batch: int) -> Iterator[Case]:
  for place in ('store', 'memory', 'device'):
    yield Case(
      f'samples of {size(grid)}, batch {batch}', place, 'feeding.py',
      f'samples-{place}', (batch, *grid)
    )  # fmt: skip


def _projection(wishes: int, plans: int, names: Sequence[str]):
  for name in names:
    yield Case(
      f'projection of {wishes} wishes on {plans} plans', name, 'projection.py',
      name, (wishes, plans), name == 'torch'
    )  # fmt: skip


def _patient(grid: tuple[int, ...], plans: int) -> Case:
  title = f'patient {size(grid)}, {plans} plans'
  return Case(title, 'dvhflax', 'planning.py', 'patient', (plans, *grid))


def cpu() -> Iterator[Case]:
  """For a workstation, peers beside each other."""
  both = ('eager', 'compiled')
  yield from _hardware(['float32'], 2048)
  yield from _layers()
  yield from _network('predict', FULL, 1, both, FORMS)
  yield from _runtimes(FULL)
  yield from _network('repredict', FULL, 1, (), ('native', 'im2col'))
  yield from _matched(FULL)
  yield from _network('train', FULL, 1, both, FORMS)
  yield from _network('train', FULL, 3, both, ('native', 'remat', 'parts'))
  yield from _network('predict', HALF, 1, both, FORMS)
  yield from _runtimes(HALF)
  yield from _network('repredict', HALF, 1, (), ('native', 'im2col'))
  yield from _network('train', HALF, 3, both, FORMS)
  for grid in (FULL, HALF):
    yield from _samples(grid, 3)
  for wishes, plans in ((3, 10), (770, 770), (770, 100_000)):
    yield from _projection(wishes, plans, ('scipy', 'torch', 'dvhflax'))
  for grid, plans in ((FULL, 10), (FULL, 100), (HALF, 10), (HALF, 1000)):
    yield _patient(grid, plans)


def gpu() -> Iterator[Case]:
  """For one GPU, both frameworks with the same precision."""
  yield from _hardware(PRECISIONS, 8192)
  for verb, batches in (('train', (1, 4)), ('predict', (1, 4))):
    for batch in batches:
      for p in PRECISIONS:
        torch = (f'eager-{p}', f'compiled-{p}')
        yield from _network(verb, FULL, batch, torch, (p,), p)
  for batch in (2, 8, 16):
    yield from _network('train', FULL, batch, (), ('bfloat16',), 'bfloat16')
  yield from _network('train', FULL, 4, (), ('remat-bfloat16',), 'bfloat16')
  yield from _network('repredict', FULL, 1, (), ('bfloat16',), 'bfloat16')
  yield from _samples(FULL, 4)
  for place in ('store', 'memory', 'device'):
    yield Case(
      f'16 updates of {size(FULL)}, batch 4, bfloat16, fed', place,
      'feeding.py', f'updates-{place}', (4, *FULL),
      flop=16 * 3 * network_flop(4, FULL), precision='bfloat16'
    )  # fmt: skip
  yield from _projection(770, 100_000, ('torch', 'dvhflax'))
  for plans in (10, 100):
    yield _patient(FULL, plans)
