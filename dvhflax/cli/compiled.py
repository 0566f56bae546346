"""Keeps what XLA compiles, so that the next run starts at once.

Where the folder takes nothing, the run goes on, and a note says so once.
"""

import contextlib
import glob
import hashlib
import importlib.metadata
import os
import platform
import re
import sys
from typing import Any
import warnings

from dvhflax import errors

# What compiles in less time is not kept.
_LEAST_S = 0.5
# JAX warns so of each program.
_TROUBLE = re.compile(
  r"Error (reading|writing) persistent compilation cache entry for '([^']*)': "
  r'(.*)',
  re.DOTALL,
)


def keep() -> None:
  """Sets JAX's compilation cache to a folder of the user's, unless it is set.

  `JAX_COMPILATION_CACHE_DIR` chooses another folder, or none if empty. The
  default one is of this processor and this jaxlib: what was compiled for
  another may not run. JAX is not imported for this; it reads the environment
  when it is.
  """
  jaxlib = importlib.metadata.version('jaxlib')
  if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
    _note_trouble(os.environ['JAX_COMPILATION_CACHE_DIR'])
    return
  caches = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  # Relative where there is no home: nothing is put where the user stands.
  if _refused(jaxlib) or not os.path.isabs(caches):
    return
  machine = f'{platform.machine()} {jaxlib} {_processor("flags")}'
  name = hashlib.sha256(machine.encode()).hexdigest()[:16]
  folder = os.path.join(caches, 'dvhflax', 'compiled', name)
  _note_trouble(folder)
  settings = {
    'jax_compilation_cache_dir': folder,
    'jax_persistent_cache_min_compile_time_secs': _LEAST_S,
  }
  for key, value in settings.items():
    if 'jax' in sys.modules:
      sys.modules['jax'].config.update(key, value)
    else:
      os.environ[key.upper()] = str(value)


def _note_trouble(folder: str) -> None:
  """Says once, in a line, what JAX would say of every program.

  A program that a full disk or a killed run has left in part is removed: JAX
  would neither read nor replace it.
  """
  before, told = warnings.showwarning, False

  def show(message: Warning | str, *rest: Any, **named: Any) -> None:
    nonlocal told
    match = _TROUBLE.match(str(message))
    if match is None:
      before(message, *rest, **named)
      return
    if match[1] == 'reading':
      for path in glob.glob(
        os.path.join(glob.escape(folder), f'{glob.escape(match[2])}-*')
      ):
        with contextlib.suppress(OSError):
          os.unlink(path)
    if not told:
      told = True
      print(
        f'note: compiled programs are kept in {folder}, not all of which can '
        f'be {"read" if match[1] == "reading" else "written"} '
        f'({errors.plain(match[3], 160)}); what is missing is compiled again',
        file=sys.stderr,
      )

  warnings.showwarning = show


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
