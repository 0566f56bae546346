"""From the names in a patient's files to the structures of a cohort.

Regular expressions decide, in order; each site in `dvhflax/sites` has those of
its organs. A pattern must match a whole name, in any case, with `_` for blanks
and hyphens; signs such as those of `Lt. Parotid`, `Eye (left)` or `Lens, L` may
be left out. A name that no pattern matches is unmapped, and two names that
match the same one are ambiguous; neither is guessed at. In a user's row the
pattern `=NAME` is that very name, which then stands for no other structure, and
`=` ends the search: no name stands for the structure.
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import json
import pathlib
import re
import unicodedata

from dvhflax import errors
from dvhflax.sites import SITES


@dataclasses.dataclass(frozen=True)
class Match:
  """Which of a patient's names stand for the structures of a cohort.

  Attributes:
    chosen: structure -> index of the name.
    ambiguous: structure -> the names that match it alike.
    passed_over: structure -> names that a later row would have matched.
    unmapped: names that no row matches.
    names: all of them; with what tells them apart where two look alike, as they
      are written in the fields above, too.
    alike: such names, by what they look like.
  """

  chosen: Mapping[str, int]
  ambiguous: Mapping[str, Sequence[str]]
  passed_over: Mapping[str, Sequence[str]]
  unmapped: Sequence[str]
  names: Sequence[str]
  alike: Mapping[str, Sequence[str]]


def read_table(
  path: str | None, structures: Sequence[str]
) -> tuple[tuple[str, str], ...]:
  """The user's rows, which come before those of the sites.

  Args:
    path: of a JSON file, `{"rectum": ["rectum_v2", "rect.*"], ...}`, a list
      of patterns a structure, best first; None for no rows.
    structures: names of the cohort's structures.

  Raises:
    ConfigError: for a file, key or pattern that does not work.
  """
  if not path:
    return ()
  try:
    table = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except OSError as error:
    raise errors.ConfigError(
      f'cohort.names={path}: {error.strerror}; give a JSON file'
    ) from None
  except (ValueError, RecursionError) as error:
    raise errors.ConfigError(
      f'cohort.names={path}: {errors.plain(str(error), 200)}'
    ) from None
  if not isinstance(table, dict):
    raise errors.ConfigError(
      f'cohort.names={path} must hold {{"structure": ["pattern", ...], ...}}'
    )
  rows: list[tuple[str, str]] = []
  owners: dict[str, str] = {}
  for name, patterns in table.items():
    if name not in structures:
      raise errors.ConfigError(
        f'cohort.names={path}: {errors.shown(name)} is none of '
        'cohort.structures, '
        f'{", ".join(structures)}'
      )
    if not isinstance(patterns, list):
      raise errors.ConfigError(
        f'cohort.names={path}: {name!r} needs a list of patterns'
      )
    for pattern in patterns:
      try:
        _pattern(pattern)
      except (
        re.error, TypeError, OverflowError, RecursionError,
      ) as error:  # fmt: skip
        raise errors.ConfigError(
          f'cohort.names={path}: {errors.shown(pattern)} is no regular '
          f'expression: {errors.plain(str(error))}'
        ) from None
      owner = owners.setdefault(pattern, name)
      if owner != name and _is_name(pattern):
        raise errors.ConfigError(
          f'cohort.names={path}: {errors.shown(pattern[1:])} is chosen for '
          f'{owner} and for {name}: choose it for one'
        )
      rows.append((name, pattern))
  return tuple(rows)


def match(
  names: Sequence[str],
  structures: Sequence[str],
  rows: Sequence[tuple[str, str]] = (),
  marks: Sequence[str] | None = None,
) -> Match:
  """Finds the structures of a cohort among a patient's names.

  Args:
    names: as in the patient's files.
    structures: names of the cohort's structures; each matches itself before
      any pattern.
    rows: the user's, see `read_table`.
    marks: what tells names apart that look alike, such as numbers; of two names
      `PTV` that one is `PTV (ROI 3)` for the user's very names, too.
  """
  keys = [_spellings(name) for name in names]
  alike: dict[str, list[str]] = {}
  if marks is not None:
    names, alike = _told_apart(names, marks)
  # Of each structure the first of its very names that is there.
  first: dict[str, str] = {}
  for name, pattern in rows:
    if _is_name(pattern) and pattern[1:] in names:
      first.setdefault(name, pattern[1:])
  owners = {name: structure for structure, name in first.items()}
  chosen, ambiguous, passed_over = {}, {}, {}
  mapped: set[int] = set()
  for wanted in structures:
    ranked = _ranked(names, owners, keys, wanted, rows)
    mapped.update(*ranked)
    if not ranked:
      continue
    best, *later = ranked
    if len(best) > 1:
      ambiguous[wanted] = [names[i] for i in best]
      continue
    chosen[wanted] = best[0]
    if later:
      passed_over[wanted] = [names[i] for group in later for i in group]
  return Match(
    chosen,
    ambiguous,
    passed_over,
    [name for i, name in enumerate(names) if i not in mapped],
    names,
    alike,
  )


def describe(match: Match) -> list[str]:
  """What a user must know of a match, a line each."""
  lines = [
    f'{len(found)} structures are named {errors.plain(name)}: {_listed(found)}'
    for name, found in match.alike.items()
  ]
  lines += [
    f'{wanted} left out: {_listed(found)} match alike; name one in cohort.names'
    for wanted, found in match.ambiguous.items()
  ]
  lines += [
    f'{_listed(found)} passed over for {wanted}: a better name is there'
    for wanted, found in match.passed_over.items()
  ]
  if match.unmapped:
    lines.append(f'unmapped: {_listed(match.unmapped)}')
  return lines


def _told_apart(
  names: Sequence[str], marks: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
  """Names, with their marks where others look alike; and those by what they
  look like."""
  looks = [' '.join(name.split()) for name in names]
  twice = {look for look in looks if looks.count(look) > 1}
  # Another's very name may be one with its mark.
  marked = {f'{look} ({mark})' for look, mark in zip(looks, marks)}
  told, alike = [], dict[str, list[str]]()
  for name, look, mark in zip(names, looks, marks):
    if look in twice or look in marked:
      name = f'{look} ({mark})'
    if look in twice:
      alike.setdefault(look, []).append(name)
    told.append(name)
  return told, alike


def _listed(names: Sequence[str]) -> str:
  return ', '.join(map(errors.plain, names))


def _is_name(pattern: str) -> bool:
  return len(pattern) > 1 and pattern.startswith('=')


def _pattern(text: str) -> re.Pattern[str]:
  if isinstance(text, str) and _is_name(text):
    return re.compile(re.escape(text[1:]))
  return re.compile(unicodedata.normalize('NFC', text), re.IGNORECASE)


def _ranked(
  names: Sequence[str],
  owners: Mapping[str, str],
  keys: Sequence[frozenset[str]],
  wanted: str,
  rows: Sequence[tuple[str, str]],
) -> list[list[int]]:
  """Indices that match a structure, grouped by row, the first row first."""
  patterns = [pattern for name, pattern in rows if name == wanted]
  patterns.append(re.escape(_plain(wanted)))
  patterns += _known(_plain(wanted))
  groups: list[list[int]] = []
  seen = {
    i for i, name in enumerate(names) if owners.get(name, wanted) != wanted
  }
  for pattern in patterns:
    if pattern == '=':
      break
    composed = _pattern(pattern)
    group = [
      i
      for i, (name, spellings) in enumerate(zip(names, keys))
      if i not in seen
      and any(
        map(composed.fullmatch, [name] if _is_name(pattern) else spellings)
      )
    ]
    seen.update(group)
    groups += [group] if group else []
  return groups


def _known(name: str) -> list[str]:
  """The sites' patterns of a structure, best first."""
  return [
    pattern
    for site in SITES
    for organ in site.organs
    if name in (_plain(organ.name), organ.tg263)
    for pattern in organ.patterns
  ]


def _spellings(name: str) -> frozenset[str]:
  """What patterns are compared with: the name, and the name without signs.

  A leading underscore is kept: TG-263 has it for what is not to be evaluated.
  """
  # Bytes of UTF-8 in a file that does not tell its character set.
  with contextlib.suppress(UnicodeError):
    name = name.encode('latin-1').decode('utf-8')
  bare = re.sub(r'[,;:()\[\]]|\.(?!\d)', ' ', name)
  return frozenset({_plain(name), _plain(bare).rstrip('_')})


def _plain(name: str) -> str:
  """In small letters, composed, with `_` for blanks, hyphens and dashes."""
  composed = unicodedata.normalize('NFKC', name.strip(' \0')).strip()
  return re.sub(r'[\s\-\u2010-\u2015\u2212_]+', '_', composed).lower()
