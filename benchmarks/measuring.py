"""What every measurement shares: timing, peak memory, the answer as JSON."""

from collections.abc import Callable
import json
import resource
import statistics
import sys
import time

# A measurement takes about so long, and has at least so many repetitions.
SECONDS, LEAST, MOST = 20.0, 3, 200


def measure(call: Callable[[], object]) -> dict[str, float]:
  """Runs `call` once to warm up, then repeatedly.

  Args:
    call: does the work and waits until it is done.

  Returns:
    First, median, least and greatest seconds, their number, and the peak
    resident memory of the process in GB.
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
  """Largest resident memory of this process so far, in GB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def answer(cases: dict[str, Callable[..., Callable[[], object]]]) -> None:
  """Measures the case that the command line names, `CASE [NUMBER ...]`."""
  name, *numbers = sys.argv[1:]
  print(json.dumps(measure(cases[name](*map(int, numbers)))))
