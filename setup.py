"""Compiles the CPU kernels, where a compiler is; setup.cfg says the rest."""

import pathlib
import platform
import sys

import jaxlib
from setuptools import Extension, find_packages, setup

_FLAGS = {
  'avx512': ['-march=x86-64-v4', '-mprefer-vector-width=512'],
  'avx2': ['-march=x86-64-v3'],
  'generic': [],
}
_X86 = platform.machine().lower() in ('x86_64', 'amd64')
_KERNELS = ['avx512', 'avx2'] if _X86 else ['generic']
_HEADERS = pathlib.Path(jaxlib.__file__).parent / 'include'

setup(
  packages=[*find_packages(include=['dvhflax*']), 'dvhflax.configs'],
  ext_modules=[
    Extension(
      f'dvhflax.native._{name}',
      sources=[
        f'dvhflax/native/{source}.cc'
        for source in (
          'convolution',
          'deinterleave',
          'look_up',
          'weight_gradient',
        )
      ],
      depends=[
        f'dvhflax/native/{header}.h'
        for header in ('pages', 'parallel', 'shape', 'vectors')
      ],
      language='c++',
      extra_compile_args=[
        '-O3',
        '-g0',
        '-std=c++17',
        '-ffp-contract=fast',
        '-Wall',
        '-Wextra',
        f'-isystem{_HEADERS}',
        *_FLAGS[name],
      ],
      # A machine without a compiler gets the pure JAX form.
      optional=True,
    )
    for name in _KERNELS
    if sys.platform != 'win32'
  ],
)
