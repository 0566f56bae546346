"""What every measurement shares: timing, peak memory, the answer as JSON."""

from collections.abc import Callable
import json
import os
import pathlib
import resource
import statistics
import sys
import time

# A measurement takes about so long, and has at least so many repetitions.
SECONDS, LEAST, MOST = float(os.environ.get('BENCHMARK_SECONDS', 20)), 3, 200


def measure(call: Callable[[], object]) -> dict[str, float]:
  """Runs `call` once to warm up, then repeatedly.

  Args:
    call: does the work and waits until it is done.

  Returns:
    First, median, least and greatest seconds, their number, and `peak_gb`.
  """
  start = time.perf_counter()
  call()
  first = time.perf_counter() - start
  times: list[float] = []
  while len(times) < MOST and (len(times) < LEAST or sum(times) < SECONDS):
    start = time.perf_counter()
    call()
    times.append(time.perf_counter() - start)
  return {
    'first': first,
    'median': statistics.median(times),
    'min': min(times),
    'max': max(times),
    'repetitions': len(times),
    'peak_gb': peak_gb(),
  }


def peak_gb() -> float:
  """Most memory so far in GB: on the GPU, or resident of this process."""
  torch, jax = sys.modules.get('torch'), sys.modules.get('jax')
  if torch and torch.cuda.is_available():
    return torch.cuda.max_memory_allocated() / 1e9
  if jax and jax.default_backend() != 'cpu':
    return jax.local_devices()[0].memory_stats()['peak_bytes_in_use'] / 1e9
  status = pathlib.Path('/proc/self/status')
  if status.exists():
    # ru_maxrss would have the parent's peak in it: it outlives an exec.
    return int(status.read_text().split('VmHWM:')[1].split()[0]) / 1e6
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def answer(cases: dict[str, Callable[..., Callable[[], object]]]) -> None:
  """Measures the case that the command line names, `CASE [NUMBER ...]`."""
  name, *numbers = sys.argv[1:]
  print(json.dumps(measure(cases[name](*map(int, numbers)))))
