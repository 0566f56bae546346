"""A process that reads damaged inputs, a line of JSON for each.

    python -m inputs.worker KIND SEED_FOLDER SCRATCH_FOLDER SEED

reads numbers of cases from its standard input, a line each.
"""

import json
import os
import pathlib
import random
import re
import shutil
import sys
import time
import traceback
import warnings

# In a message, a sign that the library did not know what it met.
_RAW = re.compile(
  r'Traceback|MemoryError|RecursionError|bad_alloc|AttributeError|NameError|'
  r'RESOURCE_EXHAUSTED|Unable to allocate|UnboundLocal|AssertionError'
)
MOST_CHARACTERS = 4000


def main():
  name, seeds, scratch, seed = sys.argv[1:]
  # What libraries print must not come between.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  warnings.simplefilter('ignore')
  warnings.simplefilter('error', RuntimeWarning)
  from inputs import guard
  from inputs.kinds import kind

  seeds, scratch = pathlib.Path(seeds), pathlib.Path(scratch)
  reader = kind(name)
  reader.open(seeds)
  empty = scratch / 'empty'
  empty.mkdir(parents=True)
  os.chdir(empty)
  guard.limit_memory()
  watch = guard.Guard()
  print(json.dumps({'ready': True}), file=answers, flush=True)
  for line in sys.stdin:
    number = int(line)
    folder = scratch / 'case'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seeds, folder / 'in')
    (folder / 'out').mkdir()
    reader.differs = []
    rng = random.Random(f'{name} {seed} {number}')
    how = reader.damage(folder / 'in', rng)
    before = guard.listing(folder / 'in')
    watch.seen, watch.allowed = [], str(folder / 'out')
    start = time.process_time()
    verdict, text = _verdict(reader, folder, rng)
    seconds = time.process_time() - start
    watch.allowed = None
    if guard.listing(folder / 'in') != before:
      watch.seen.append('the input was changed')
    if any(empty.iterdir()):
      watch.seen.append(f'written to the current folder: {os.listdir(empty)}')
    if watch.seen:
      verdict, text = 'fault', f'{text}\nit wrote: {watch.seen}'
    answer = {
      'number': number, 'verdict': verdict, 'text': text, 'how': how,
      'seconds': seconds, 'peak': guard.peak(),
      'differs': getattr(reader, 'differs', []),
    }  # fmt: skip
    print(json.dumps(answer), file=answers, flush=True)


def _verdict(reader, folder, rng):
  from dvhflax import errors

  try:
    messages = reader.read(folder / 'in', rng)
    verdict = 'left out' if messages else 'accepted'
  except errors.UserError as error:
    messages, verdict = [str(error)], 'refused'
  except BaseException:
    return 'fault', traceback.format_exc()
  names = {p.name for p in folder.rglob('*')} | {'in', str(folder)}
  for message in messages:
    fault = _message_fault(
      message, [*names, *reader.words], getattr(reader, 'quotes', False)
    )
    if fault:
      return 'fault', f'a message {fault}: {message[:1000]!r}'
  return verdict, ' | '.join(messages)[:1000]


def _message_fault(message, names, quotes):
  """What is wrong with a message, empty if nothing is."""
  if not message.strip():
    return 'is empty'
  if '\n' in message or '\r' in message:
    return 'has several lines'
  if len(message) > MOST_CHARACTERS:
    return f'has {len(message)} characters'
  if not quotes and _RAW.search(message):
    return 'is of what the library did not expect'
  if not any(name in message for name in names):
    return 'names neither file nor key'
  return ''


if __name__ == '__main__':
  main()
