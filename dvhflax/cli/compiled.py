"""Keeps what XLA compiles, so that the next run starts at once."""

import hashlib
import importlib.metadata
import os
import platform
import re
import sys

# What compiles in less time is not kept.
_LEAST_S = 0.5


def keep() -> None:
  """Sets JAX's compilation cache to a folder of the user's, unless it is set.

  `JAX_COMPILATION_CACHE_DIR` chooses another folder, or none if empty. The
  default one is of this processor and this jaxlib: what was compiled for
  another may not run. JAX is not imported for this; it reads the environment
  when it is.
  """
  jaxlib = importlib.metadata.version('jaxlib')
  if 'JAX_COMPILATION_CACHE_DIR' in os.environ or _refused(jaxlib):
    return
  caches = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  machine = f'{platform.machine()} {jaxlib} {_processor("flags")}'
  name = hashlib.sha256(machine.encode()).hexdigest()[:16]
  folder = os.path.join(caches, 'dvhflax', 'compiled', name)
  settings = {
    'jax_compilation_cache_dir': folder,
    'jax_persistent_cache_min_compile_time_secs': _LEAST_S,
  }
  for key, value in settings.items():
    if 'jax' in sys.modules:
      sys.modules['jax'].config.update(key, value)
    else:
      os.environ[key.upper()] = str(value)


def _refused(jaxlib: str) -> bool:
  """Whether jaxlib would refuse its own programs, with an error for each.

  Until 0.10.1 it does on Intel's processors (openxla/xla#44565); on a GPU's
  programs it does not.
  """
  gpu = any(map(os.path.exists, ('/dev/nvidiactl', '/dev/kfd')))
  version = tuple(int(part) for part in re.findall(r'\d+', jaxlib)[:3])
  old = version < (0, 10, 2)
  return old and _processor('vendor_id') == 'GenuineIntel' and not gpu


def _processor(key: str) -> str:
  """A field of the first processor, empty where the system does not tell."""
  try:
    with open('/proc/cpuinfo') as file:
      for line in file:
        name, _, value = line.partition(':')
        if name.strip() == key:
          return value.strip()
  except OSError:
    pass
  return ''
