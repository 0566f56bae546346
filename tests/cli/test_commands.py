"""The command `dvhflax`: its list, its help texts, configurations by name."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import dvhflax
from dvhflax import config as config_lib
from dvhflax.cli.main import COMMANDS
from dvhflax.config import named

ROOT = pathlib.Path(__file__).parents[2]


def run(*arguments, cwd=ROOT):
  return subprocess.run(
    [sys.executable, *arguments],
    cwd=cwd,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
  )


# What the imports of a help text would be after.
TOLD = """
import sys
from dvhflax.cli import main
sys.argv = ['dvhflax', *sys.argv[1:]]
try:
  main.main()
finally:
  heavy = {'jax', 'numpy', 'scipy', 'matplotlib', 'dvhflax.models'}
  print('imported', sorted(heavy & set(sys.modules)))
"""


def test_the_list_of_commands():
  result = run('-c', TOLD, '--help')
  assert result.returncode == 0 and result.stdout.endswith('imported []\n')
  for command in COMMANDS:
    assert re.search(rf'^  {command} +[A-Z].*\.$', result.stdout, re.M)
  assert max(map(len, result.stdout.splitlines())) <= 80
  bare = run('-m', 'dvhflax')
  assert bare.returncode == 0 and bare.stdout in result.stdout


@pytest.mark.parametrize('command', COMMANDS)
def test_help_shows_an_example_and_own_flags_and_waits_for_no_jax(command):
  result = run('-c', TOLD, command, '--help')
  assert result.returncode == 0 and result.stdout.endswith('imported []\n')
  _, _, examples = result.stdout.partition('\nexample')
  assert f'\n  dvhflax {command} ' in examples
  # Every flag of an example is one of the list; absl's own are not there.
  text, _, listed = result.stdout.partition('\nflags:\n')
  known = set(re.findall(r'^  --(\w+)$', listed, re.M))
  assert set(re.findall(r'--([a-z]\w*)=', text.partition('\nexample')[2])) <= (
    known
  )
  assert not known & {'verbosity', 'pdb', 'helpfull'}
  assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize('script', ['run_train.py', 'run_eval.py'])
def test_help_of_a_script_names_the_script(script):
  result = run(script, '--help')
  assert result.returncode == 0
  assert result.stdout.startswith(f'usage: python {script}')
  assert f'\n  python {script} --' in result.stdout


def test_version():
  assert run('-m', 'dvhflax', '--version').stdout == (
    f'dvhflax {dvhflax.__version__}\n'
  )


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['trian'], 'did you mean train?'),
    (['--workdir=x'], "no command '--workdir=x'"),
    (['evaluate', '--wrkdir=x'], 'Did you mean: workdir'),
    (['evaluate', 'runs/small'], "unexpected 'runs/small': write flags as"),
    (['validate'], 'COHORT is missing: dvhflax validate COHORT'),
    (['report', 'nothing'], 'nothing'),
  ],
)
def test_what_is_no_command_is_one_line(arguments, words):
  result = run('-m', 'dvhflax', *arguments)
  assert result.returncode == 2 and not result.stdout
  (line,) = result.stderr.splitlines()
  assert line.startswith('error: ') and words in line


def test_ctrl_c_is_a_status_and_no_traceback():
  result = run(
    '-c',
    'import os, signal, time; from dvhflax.cli import program\n'
    # A job in the background of a script inherits that it is ignored.
    'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
    'def main():\n'
    '  os.kill(os.getpid(), signal.SIGINT)\n'
    '  time.sleep(60)\n'
    "program.run(lambda: None, main, ['x'])",
  )
  assert result.returncode == 130 and result.stderr == 'interrupted\n'


def test_faults_of_a_cohort_are_the_exit_status(cohort_path, tmp_path):
  sound = run('-m', 'dvhflax', 'validate', cohort_path)
  assert sound.returncode == 0
  assert sound.stdout == f'{cohort_path}: no faults\n'
  missing = run('-m', 'dvhflax', 'validate', str(tmp_path))
  assert missing.returncode == 1 and missing.stdout.endswith(': 1 fault\n')


def test_a_configuration_by_name_anywhere(tmp_path):
  """A file and a folder of that name are not meant."""
  (tmp_path / 'prostate').mkdir()
  (tmp_path / 'prostate.py').write_text('1 / 0')
  shown = """
from absl import flags
from dvhflax.cli import program
import sys
program.run(
  lambda: program.define_config('openkbp'),
  lambda: print(flags.FLAGS.config.to_json_best_effort()),
  ['x', *sys.argv[1:]],
)
"""
  result = run(
    '-c', shown, '--config=prostate:small', '--config.seed=7', cwd=tmp_path
  )
  assert result.returncode == 0, result.stderr
  wanted = config_lib.load('prostate:small')
  wanted.seed = 7
  assert json.loads(result.stdout) == json.loads(wanted.to_json_best_effort())
  # By its path it is.
  (tmp_path / 'flags').write_text('--config=./prostate.py')
  by_path = run('-c', shown, '--flagfile=flags', cwd=tmp_path)
  assert by_path.returncode == 2
  assert './prostate.py, line 1: ZeroDivisionError' in by_path.stderr
  default = run('-c', shown, '--config.cohort.raw=a', cwd=tmp_path)
  assert json.loads(default.stdout)['cohort']['path'] == 'cohorts/openkbp'


def test_every_configuration_has_a_name():
  here = sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))
  assert named.names() == here
  for name in here:
    config = config_lib.load(name)
    if config.cohort.source != 'simulated':
      config.cohort.raw = 'folder'
    config_lib.validate(config)
  listed = run('-m', 'dvhflax', 'train', '--help').stdout
  assert f'({", ".join(here)}' in listed


def documented():
  """Command lines of the README and the docs, without the environment."""
  for path in [ROOT / 'README.md', *sorted(ROOT.glob('docs/*.md'))]:
    text = path.read_text(encoding='utf-8')
    for block in re.findall(r'```sh\n(.*?)```', text, re.S):
      for line in re.split(r'\n|&&', block.replace('\\\n', ' ')):
        words = shlex.split(line, comments=True)
        if words[:1] == ['dvhflax']:
          yield words[1], words[2:]
        elif words[:2] in (
          ['python', 'run_train.py'],
          ['python', 'run_eval.py'],
        ):
          yield {'run_train.py': 'train'}.get(words[1], 'evaluate'), words[2:]


def test_commands_of_the_docs_have_flags_and_keys_that_exist():
  lines = list(documented())
  assert {command for command, _ in lines} == set(COMMANDS)
  keys = config_lib.flatten(config_lib.default())
  known = {
    command: run('-m', 'dvhflax', command, '--help').stdout
    for command in COMMANDS
  }
  for command, words in lines:
    for word in words:
      flag, _, value = word.removeprefix('--').partition('=')
      if flag.startswith('config.'):
        assert flag.removeprefix('config.') in keys, word
      elif word.startswith('--'):
        assert f'\n  --{flag}\n' in known[command], (command, word)
      if flag == 'config':
        path = pathlib.Path(named.locate(value).partition(':')[0])
        assert (ROOT / path).is_file()


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['--process_id=1'], '--process_id needs --distributed'),
    (['--config.foo=3'], "unknown configuration key 'foo'"),
  ],
)
def test_training_flags_that_cannot_be(arguments, words, tmp_path):
  command = ['-m', 'dvhflax', 'train', '--config=prostate:small']
  done = run(*command, *arguments, cwd=tmp_path)
  assert done.returncode == 2
  assert words in done.stderr and done.stderr.startswith('error: ')
  assert not os.listdir(tmp_path)
