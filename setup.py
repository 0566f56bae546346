"""Compiles the CPU kernels, where a compiler is; setup.cfg says the rest."""

import gzip
import os
import pathlib
import platform
import sys
import tarfile

import jaxlib
from setuptools import Extension, find_packages, setup
from setuptools.command.sdist import sdist

_FLAGS = {
  'avx512': ['-march=x86-64-v4', '-mprefer-vector-width=512'],
  'avx2': ['-march=x86-64-v3'],
  'generic': [],
}
_X86 = platform.machine().lower() in ('x86_64', 'amd64')
_KERNELS = ['avx512', 'avx2'] if _X86 else ['generic']
_HEADERS = pathlib.Path(jaxlib.__file__).parent / 'include'

_EPOCH = os.environ.get('SOURCE_DATE_EPOCH')


class _Sdist(sdist):
  """With SOURCE_DATE_EPOCH the same bytes, whoever packs them and when.

  setuptools heeds it for wheels alone.
  """

  def make_archive(self, base_name, format, *roots, base_dir=None, **owner):
    if format != 'gztar' or not _EPOCH:
      roots = (base_name, format, *roots)
      return super().make_archive(*roots, base_dir=base_dir, **owner)
    path = f'{base_name}.tar.gz'
    with (
      open(path, 'wb') as file,
      gzip.GzipFile('', 'wb', fileobj=file, mtime=int(_EPOCH)) as zipped,
      tarfile.open(mode='w', fileobj=zipped) as tar,
    ):
      tar.add(base_dir, filter=_nobodys)  # in the order of names
    return path


def _nobodys(member):
  """An archive's entry without its owner, umask and time."""
  member.uid = member.gid = 0
  member.uname = member.gname = ''
  member.mode = 0o755 if member.mode & 0o100 else 0o644
  member.mtime = int(_EPOCH)
  return member


setup(
  cmdclass={'sdist': _Sdist},
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
          'nearest',
          'objectives',
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
