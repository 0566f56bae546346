"""The compiled kernels under sanitizers, and without a warning."""

import pathlib
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).parent
COMPILER = shutil.which('c++')


@pytest.mark.skipif(COMPILER is None, reason='no C++ compiler')
def test_the_sanitizers_program_compiles():
  # Kernels are one program there: their names must differ.
  subprocess.run(
    [
      COMPILER, '-std=c++17', '-Wall', '-Wextra', '-Werror', '-fsyntax-only',
      f'-I{HERE}', str(HERE / 'sanitize.cc'),
    ],
    check=True,
  )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason='no C++ compiler')
@pytest.mark.parametrize('sanitizer', ['address,undefined', 'thread'])
@pytest.mark.parametrize('flags', ['-march=x86-64-v3', '-march=x86-64'])
def test_sanitizers_are_silent(sanitizer, flags, tmp_path):
  program = str(tmp_path / 'sanitize')
  subprocess.run(
    [
      COMPILER, '-std=c++17', '-O1', '-g', '-Wall', '-Wextra', '-Werror',
      flags, f'-fsanitize={sanitizer}', '-fno-sanitize-recover=all',
      '-pthread', f'-I{HERE}', str(HERE / 'sanitize.cc'), '-o', program,
    ],
    check=True,
  )  # fmt: skip
  result = subprocess.run([program], capture_output=True, text=True)
  assert result.returncode == 0, result.stdout + result.stderr
  assert result.stdout == '0 failures\n' and not result.stderr
