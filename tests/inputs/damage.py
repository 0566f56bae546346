"""Random damage to bytes, to numbers in text, and to JSON."""

import copy
import json
import math
import random
import re

# What lengths, counts and offsets are set to.
_BOUNDS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE,
           0xFFFFFFFF)  # fmt: skip
_DIGITS = re.compile(rb'-?\d+(\.\d+)?([eE][+-]?\d+)?')
NUMBERS = (b'nan', b'inf', b'-1', b'0', b'1e308', b'1e-308', b'-0', b'1e400',
           b'99999999999999999999', b'0x10', b'1,5', b'', b'1_0', b'--1',
           b'\xd9\xa1')  # fmt: skip
VALUES = (
  None, True, False, 0, -1, 1, 0.5, 1e308, -1e308, math.nan, math.inf,
  10**30, -(10**30), 2**31, 2**63, '', 'x', 'nan', '\x1b[31m', '\ud800', '../x',
  '/etc/passwd', 'x' * 5000, [], {}, [[]], [None], {'x': 1}, [1, 2], '1', '0',
  1e-300, [math.nan] * 3,
)  # fmt: skip


def bytes_of(content: bytes, rng: random.Random, other: bytes = b'') -> bytes:
  """Bytes with one to three faults.

  Args:
    content: sound ones.
    rng: draws the faults.
    other: from which a part may be taken.
  """
  content = bytearray(content)
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    content = rng.choice(_BYTES)(content, rng, other)
  return bytes(content)


def file(path, rng: random.Random) -> None:
  """Damages the bytes of a file."""
  path.write_bytes(bytes_of(path.read_bytes(), rng))


def _place(content, rng, size=1):
  """A place, more often near the beginning, where headers are."""
  end = rng.choice((128, 600, 4000, len(content), len(content)))
  return rng.randrange(max(1, min(end, len(content) - size + 1)))


def _flip(content, rng, other):
  for _ in range(rng.choice((1, 1, 2, 8)) if content else 0):
    content[_place(content, rng)] ^= 1 << rng.randrange(8)
  return content


def _overwrite(content, rng, other):
  for _ in range(rng.choice((1, 4, 20)) if content else 0):
    content[_place(content, rng)] = rng.choice((0, 255, rng.randrange(256)))
  return content


def _truncate(content, rng, other):
  return content[: rng.randrange(len(content) + 1)]


def _delete(content, rng, other):
  start = _place(content, rng)
  del content[start : start + rng.choice((1, 2, 4, 30, 500))]
  return content


def _duplicate(content, rng, other):
  start, size = _place(content, rng), rng.choice((1, 2, 8, 60, 1000))
  content[start:start] = content[start : start + size]
  return content


def _insert(content, rng, other):
  start = _place(content, rng)
  content[start:start] = rng.randbytes(rng.choice((1, 2, 4, 40)))
  return content


def _swap(content, rng, other):
  size = rng.choice((1, 2, 4, 8, 64))
  if len(content) < 2 * size:
    return content
  a, b = (_place(content, rng, size) for _ in range(2))
  content[a : a + size], content[b : b + size] = (
    content[b : b + size], content[a : a + size],
  )  # fmt: skip
  return content


def _splice(content, rng, other):
  if not other:
    return _insert(content, rng, other)
  start = _place(content, rng)
  size = rng.choice((4, 64, 1000, len(other)))
  taken = rng.randrange(len(other))
  content[start : start + size] = other[taken : taken + size]
  return content


def _length(content, rng, other):
  """A number of two or four bytes, as lengths and counts are."""
  size = rng.choice((2, 4, 4, 8))
  if len(content) < size:
    return content
  start = _place(content, rng, size) // 2 * 2
  order = rng.choice(('little', 'little', 'big'))
  before = int.from_bytes(content[start : start + size], order)
  after = rng.choice((*_BOUNDS, before + 1, before - 1, before * 2))
  content[start : start + size] = (after % 256**size).to_bytes(size, order)
  return content


def _number(content, rng, other):
  """A number in text."""
  found = list(_DIGITS.finditer(bytes(content[:20_000])))
  if not found:
    return _overwrite(content, rng, other)
  one = rng.choice(found)
  text = bytearray(one[0])
  if rng.random() < 0.5:
    text[rng.randrange(len(text))] = rng.choice(b'0123456789.-eE ,')
  else:
    text = bytearray(rng.choice(NUMBERS))
  content[one.start() : one.end()] = text
  return content


def _empty(content, rng, other):
  return bytearray(rng.choice((b'', b'\0' * len(content), b'\n', b'\xff\xfe')))


_BYTES = (
  *(_flip, _overwrite, _truncate, _delete, _duplicate, _insert) * 3,
  *(_swap, _splice, _length, _number) * 3,
  _empty,
)


def text_of(text: str, rng: random.Random) -> str:
  """A text with one to four faults in its characters."""
  for _ in range(rng.randint(1, 4)):
    start = rng.randrange(len(text) + 1)
    size = rng.choice((1, 1, 2, 5, 20))
    kind = rng.randrange(5)
    if kind == 0:
      text = text[:start] + text[start + size :]
    elif kind == 1:
      text = text[:start] + _piece(rng) + text[start:]
    elif kind == 2:
      text = text[:start] + _piece(rng) + text[start + size :]
    elif kind == 3:
      text = text[: start + size] + text[start:]
    else:
      other = rng.randrange(len(text) + 1)
      text = text[:start] + text[other : other + size] + text[start + size :]
  return text


def _piece(rng):
  return rng.choice(
    (
      chr(rng.randrange(32, 127)), chr(rng.randrange(0x3000)),
      chr(rng.randrange(0x110000)), '\0', '\n', ';', '\u0661', '\u00b2', '-',
      '%', 'cc', 'Gy', '<=', '9' * 20, '9' * 400, 'e5', '.', ' ', '\u2264',
      '1e308', 'nan', 'inf', '\u2028', 'V', 'D', 'mean',
    )
  )  # fmt: skip


def json_of(values, rng: random.Random, others=VALUES):
  """JSON-like values with one to three faults, and what they are.

  Args:
    values: sound ones, which are left as they are.
    rng: draws the faults.
    others: what values are replaced by.
  """
  values, told = copy.deepcopy(values), []
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    places = list(_places(values))
    if not places:
      return rng.choice(others), [*told, 'all']
    # Level by level, or lists of numbers would take all faults.
    depth = rng.choice(sorted({len(path) for path in places}))
    path = rng.choice([path for path in places if len(path) == depth])
    whole = values
    for key in path[:-1]:
      whole = whole[key]
    how = _one(whole, path[-1], rng, others)
    told.append(f'{".".join(map(str, path))}: {how}')
  return values, told


def _places(values, path=()):
  if isinstance(values, dict):
    for key in values:
      yield (*path, key)
      yield from _places(values[key], (*path, key))
  elif isinstance(values, list):
    for i in range(min(len(values), 50)):
      yield (*path, i)
      yield from _places(values[i], (*path, i))


def _one(whole, key, rng, others):
  kind = rng.randrange(8)
  before = whole[key]
  if kind == 0:
    del whole[key]
    return 'removed'
  if kind == 1 and isinstance(whole, list):
    whole.insert(key, copy.deepcopy(before))
    return 'twice'
  if kind == 1:
    whole[rng.choice(('x', '', '\u00e9', str(key).upper()))] = before
    return 'added under another key'
  if kind == 2 and isinstance(before, (int, float)):
    by = rng.choice((-1, 0.01, 100, 1e30, 10, 0.5, 1.001))
    whole[key] = before * by
    return f'times {by}'
  if kind == 2 and isinstance(before, list):
    many = rng.choice((2, 100))
    whole[key] = before * many if len(before) < 99 else before[1:]
    return 'another length'
  if kind == 2 and isinstance(before, str):
    whole[key] = text_of(before, rng)
    return repr(whole[key])[:80]
  if kind == 3:
    keys = list(whole) if isinstance(whole, dict) else range(len(whole))
    other = rng.choice(list(keys))
    whole[key], whole[other] = whole[other], before
    return f'swapped with {other}'
  if kind == 4:
    whole[key] = [before]
    return 'in a list'
  if kind == 5 and not isinstance(before, (dict, list)):
    whole[key] = str(before)
    return 'as a text'
  whole[key] = copy.deepcopy(rng.choice(others))
  return f'is {whole[key]!r}'[:80]


def dumped(values, rng: random.Random) -> bytes:
  """JSON as bytes; at times deeply nested, or damaged once more."""
  text = json.dumps(values, indent=rng.choice((None, 1)))
  kind = rng.randrange(40)
  if kind == 0:
    text = '[' * 100_000 + text
  elif kind == 1:
    text = text.replace(':', ':' + '[' * 2000, 1)
  elif kind == 2:
    text = '\ufeff' + text
  content = text.encode('utf-8', 'surrogatepass')
  return bytes_of(content, rng) if kind == 3 else content
