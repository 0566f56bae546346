"""From the names in a patient's files to the structures of a cohort.

An ordered table of regular expressions decides: the names of TG-263 (Mayo et
al. 2018, IJROBP 100:1057) come first, then usual aliases. A pattern must
match a whole name, in any case, with `_` for blanks and hyphens. What
no row matches is unmapped, and two names that match one row alike are
ambiguous; neither is guessed at.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
import re

from dvhflax import errors

_LEFT, _RIGHT = '(l|lt|left|li|links)', '(r|rt|right|re|rechts)'


def _paired(left: str, right: str, *organs: str) -> tuple[tuple[str, str], ...]:
  """Rows of an organ that there is on either side."""
  return tuple(
    (structure, pattern)
    for organ in organs
    for structure, side in ((left, _LEFT), (right, _RIGHT))
    for pattern in (f'{organ}_?{side}', f'{side}_?{organ}')
  )


# (structure of a cohort, pattern), best first.
TABLE: tuple[tuple[str, str], ...] = (
  ('body', 'body|external'),
  ('body', '(body|external|patient)_?(contour|outline)|outline|patient'),
  ('body', 'ext|aussenkontur|k(oe|ö)rper|contour_?externe'),
  ('bladder', 'bladder'),
  ('bladder', 'bladder_?(o|oar|whole)|urinary_?bladder|blad'),
  ('bladder', '(harn)?blase|vessie|vejiga|vescica'),
  ('rectum', 'rectum'),
  ('rectum', 'rectum_?(o|oar|whole)|rect'),
  ('rectum', 'rektum|enddarm|recto|retto'),
  ('PTV', 'ptv'),
  ('PTV', 'ptv_?high'),
  ('PTV', r'ptv_?\d\d(\.\d+)?(_?gy)?|ptv_?\d{4}(_?cgy)?'),
  ('PTV', 'ptv_?(1|all|total|prost(ate)?)|ptv_?p'),
  ('bowel', 'bowel_?bag|bowel'),
  ('bowel', '(small_?)?bowel(_?(small|space|loops))?|d(ue|ü)nndarm'),
  ('penile_bulb', 'penilebulb|penile_?bulb|bulbus_?penis|bulb'),
  ('prostate', 'prostate|prostata|ctv_?prostate'),
  ('seminal_vesicles', 'seminalves|seminal_?vesicles?|sv'),
  *_paired(
    'femoral_head_left',
    'femoral_head_right',
    'femur_?head',
    'femoral_?head',
    '(femur|fem_?head|hip|h(ue|ü)ftkopf)',
  ),
  ('Brainstem', 'brainstem'),
  ('Brainstem', 'brain_?stem|stammhirn|hirnstamm|tronc'),
  ('SpinalCord', 'spinalcord'),
  ('SpinalCord', 'spinal_?cord|cord|myelon|r(ue|ü)ckenmark|moelle'),
  *_paired(
    'LeftParotid', 'RightParotid', 'parotid', 'parotis|(parotid_?gland)'
  ),
  ('Esophagus', 'esophagus'),
  ('Esophagus', 'o?esophagus(_?[su])?|speiser(oe|ö)hre'),
  ('Larynx', 'larynx'),
  ('Larynx', 'larynx_?(sg|gl|oar)|kehlkopf|glottis'),
  ('Mandible', 'bone_?mandible'),
  ('Mandible', 'mandible|mandibula|unterkiefer'),
  ('OralCavity', 'cavity_?oral|oral_?cavity|mundh(oe|ö)hle'),
  ('OpticChiasm', 'optic_?chiasm|chiasma?'),
  ('Brain', 'brain|gehirn|hirn'),
  *_paired(
    'LeftSubmandibular',
    'RightSubmandibular',
    'glnd_?submand',
    'submand(ibular)?(_?gland)?',
  ),
  *_paired('LeftLens', 'RightLens', 'lens', 'linse'),
  *_paired('LeftEye', 'RightEye', 'eye', '(globe|auge)'),
  *_paired('LeftCochlea', 'RightCochlea', 'cochlea'),
  *_paired('LeftOpticNerve', 'RightOpticNerve', 'opticnrv', 'optic_?nerve'),
  *(
    (f'PTV{gy}', pattern)
    for gy in (50, 54, 56, 60, 63, 66, 70, 78)
    for pattern in (f'ptv_?{gy}', f'ptv_?({gy}_?gy|{gy}00(_?cgy)?)')
  ),
)


@dataclasses.dataclass(frozen=True)
class Match:
  """Which of a patient's names stand for the structures of a cohort.

  Attributes:
    chosen: structure -> index of the name.
    ambiguous: structure -> the names that match it alike.
    passed_over: structure -> names that a later row would have matched.
    unmapped: names that no row matches.
  """

  chosen: Mapping[str, int]
  ambiguous: Mapping[str, Sequence[str]]
  passed_over: Mapping[str, Sequence[str]]
  unmapped: Sequence[str]


def read_table(
  path: str | None, structures: Sequence[str]
) -> tuple[tuple[str, str], ...]:
  """The user's rows, which come before those of `TABLE`.

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
  except ValueError as error:
    raise errors.ConfigError(f'cohort.names={path}: {error}') from None
  if not isinstance(table, dict):
    raise errors.ConfigError(
      f'cohort.names={path} must hold {{"structure": ["pattern", ...], ...}}'
    )
  rows = []
  for name, patterns in table.items():
    if name not in structures:
      raise errors.ConfigError(
        f'cohort.names={path}: {name!r} is none of cohort.structures, '
        f'{", ".join(structures)}'
      )
    if not isinstance(patterns, list):
      raise errors.ConfigError(
        f'cohort.names={path}: {name!r} needs a list of patterns'
      )
    for pattern in patterns:
      try:
        re.compile(pattern)
      except (re.error, TypeError) as error:
        raise errors.ConfigError(
          f'cohort.names={path}: {pattern!r} is no regular expression: {error}'
        ) from None
      rows.append((name, pattern))
  return tuple(rows)


def match(
  names: Sequence[str],
  structures: Sequence[str],
  rows: Sequence[tuple[str, str]] = (),
) -> Match:
  """Finds the structures of a cohort among a patient's names.

  Args:
    names: as in the patient's files.
    structures: names of the cohort's structures; each matches itself before
      any row of the tables.
    rows: the user's, see `read_table`.
  """
  keys = [_key(name) for name in names]
  chosen, ambiguous, passed_over = {}, {}, {}
  mapped: set[int] = set()
  for wanted in structures:
    ranked = _ranked(keys, wanted, rows)
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
  )


def describe(match: Match) -> list[str]:
  """What a user must know of a match, a line each."""
  lines = [
    f'{wanted} left out: {", ".join(found)} match alike; name one in '
    'cohort.names'
    for wanted, found in match.ambiguous.items()
  ]
  lines += [
    f'{", ".join(found)} passed over for {wanted}: a better name is there'
    for wanted, found in match.passed_over.items()
  ]
  if match.unmapped:
    lines.append(f'unmapped: {", ".join(match.unmapped)}')
  return lines


def _ranked(
  keys: Sequence[str], wanted: str, rows: Sequence[tuple[str, str]]
) -> list[list[int]]:
  """Indices that match a structure, grouped by row, the first row first."""
  patterns = [pattern for name, pattern in rows if name == wanted]
  patterns.append(re.escape(_key(wanted)))
  patterns += [p for name, p in TABLE if _key(name) == _key(wanted)]
  groups: list[list[int]] = []
  seen: set[int] = set()
  for pattern in patterns:
    group = [
      i
      for i, key in enumerate(keys)
      if i not in seen and re.fullmatch(pattern, key, re.IGNORECASE)
    ]
    seen.update(group)
    groups += [group] if group else []
  return groups


def _key(name: str) -> str:
  return re.sub(r'[\s\-_]+', '_', name.strip()).lower()
