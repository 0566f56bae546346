"""From the names in a patient's files to the structures of a cohort.

An ordered table of regular expressions decides: the names of TG-263 (Mayo et
al. 2018, IJROBP 100:1057) come first, then usual aliases. A pattern must
match a whole name, in any case, with `_` for blanks and hyphens; signs such as
those of `Lt. Parotid`, `Eye (left)` or `Lens, L` may be left out. What no row
matches is unmapped, and two names that match one row alike are ambiguous;
neither is guessed at.
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import json
import pathlib
import re
import unicodedata

from dvhflax import errors

_LEFT = '(l|lt|left|li|lks|links|gauche|sx|sin|sinistra|izq|izda|izquierd[oa])'
_RIGHT = '(r|rt|right|re|rechts|droite?|dx|dex|destra|dcha|der|derech[oa])'


def _paired(
  left: str, right: str, *organs: str, french: str = ''
) -> tuple[tuple[str, str], ...]:
  """Rows of an organ that there is on either side.

  Args:
    left, right: structures of a cohort.
    *organs: patterns, best first.
    french: pattern of names that `G` or `D` may follow.
  """
  rows = [
    (structure, pattern)
    for organ in organs
    for structure, side in ((left, _LEFT), (right, _RIGHT))
    for pattern in (f'({organ})_?{side}', f'{side}_?({organ})')
  ]
  if french:
    rows += [(left, f'({french})_?g'), (right, f'({french})_?d')]
  return tuple(rows)


# (structure of a cohort, pattern), best first.
TABLE: tuple[tuple[str, str], ...] = (
  ('body', 'body|external'),
  ('body', '(body|external|patient)_?(contour|outline)|outline|patient'),
  (
    'body',
    'ext|au(ss|ß)enkontur|k(oe|ö)rper(kontur)?|contour_?externe|'
    'contorno_?(externo|esterno)',
  ),
  ('bladder', 'bladder'),
  ('bladder', 'bladder_?(o|oar|whole)|urinary_?bladder|blad'),
  ('bladder', '(harn)?blase|vessie|vejiga|vescica|blaas|bexiga'),
  ('rectum', 'rectum'),
  ('rectum', 'rectum_?(o|oar|whole)|rect'),
  ('rectum', 'rektum|enddarm|mastdarm|recto|retto'),
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
    'femur_?head|head_?femur',
    'femoral_?head|head_?femoral',
    'femur|fem(ur)?_?hd|fem_?head|fem_?kopf|hip|h(ue|ü)ftkopf|'
    'oberschenkelkopf|femurkopf|caput_?femoris|t(e|ê)te_?f(e|é)morale|'
    'testa_?femore',
    french='t(e|ê)te_?f(e|é)morale',
  ),
  ('Brainstem', 'brainstem'),
  ('Brainstem', 'brain_?stem'),
  (
    'Brainstem',
    'b(rain|rn?|rai)?_?ste?m|brain_?st|stammhirn|hirnstamm|'
    'tronc(_?c(e|é)r(e|é)bral)?|tronco(_?(encef(a|á)lico|encefalico|'
    'cerebral))?|hersenstam',
  ),
  ('SpinalCord', 'spinalcord'),
  ('SpinalCord', 'spinal_?cord'),
  (
    'SpinalCord',
    'cord|sp(in(al?)?)?_?(cord|crd)|myelon|r(ue|ü)ckenmark|'
    'moelle(_?(e|é)pini(e|è)re)?|medulla_?spinalis|'
    'm(e|é)dula(_?espinal)?|midollo(_?spinale)?|ruggenmerg',
  ),
  *_paired(
    'LeftParotid',
    'RightParotid',
    'parotid',
    'parotis|parot|parotid_?(gland|gl|gld)|gla?nd_?parot(id|is)?|'
    'ohrspeicheldr(ue|ü)se|parotide|par(o|ó)tida',
    french='parotide',
  ),
  ('Esophagus', 'esophagus'),
  ('Esophagus', 'o?esophagus(_?[su])?|speiser(oe|ö)hre'),
  (
    'Esophagus',
    'o?esoph(ag)?|(ö|oe)sophagus|(o|œ)?esophage|œsophage|'
    '(o|œ)?(e|é)sophage|es(o|ó)fago|slokdarm',
  ),
  ('Larynx', 'larynx'),
  ('Larynx', 'larynx_?(sg|gl|oar)|kehlkopf|glottis|laringe'),
  ('Mandible', 'bone_?mandible'),
  ('Mandible', 'mandible|mandibula|unterkiefer|mandib|mandibule|mandibola'),
  ('OralCavity', 'cavity_?oral|oral_?cavity|mundh(oe|ö)hle|oral_?cav'),
  (
    'OpticChiasm',
    'optic_?chiasma?|opt_?chiasma?|chiasma?|chiasma_?opticum',
  ),
  ('Brain', 'brain|gehirn|hirn|whole_?brain|brain_?whole|cerveau'),
  *_paired(
    'LeftSubmandibular',
    'RightSubmandibular',
    'gla?nd_?submand(ib(ular)?)?',
    'submand(ib(ular(is)?)?)?(_?(gland|gl|gld))?|subm|smg',
  ),
  *_paired(
    'LeftLens',
    'RightLens',
    'lens',
    'linse|lense|(eye|orbit)_?lens|cristallin',
    french='cristallin',
  ),
  *_paired(
    'LeftEye',
    'RightEye',
    'eye',
    'globe|auge|eye_?(ball|globe)|augapfel|bulbus(_?oculi)?',
    'orbita?',
    french='oeil|œil|orbite',
  ),
  *_paired('LeftCochlea', 'RightCochlea', 'cochlea', 'cochl?e?|cochl(e|é)e'),
  *_paired(
    'LeftOpticNerve',
    'RightOpticNerve',
    'opticnrv',
    'optic_?nerve|opt(ic)?_?n(erve?|rv)?|n(ervus)?_?opticus|sehnerv|'
    'nerf_?optique',
    french='nerf_?optique',
  ),
  ('LeftOpticNerve', 'on_(l|lt|left)|(l|lt|left)_on'),
  ('RightOpticNerve', 'on_(r|rt|right)|(r|rt|right)_on'),
  *(
    (f'PTV{gy}', pattern)
    for gy in (50, 54, 56, 60, 63, 66, 70, 78)
    for pattern in (f'ptv_?{gy}', f'ptv_?({gy}_?gy|{gy}00(_?cgy)?)')
  ),
)


# Names of TG-263 that a cohort may have in place of those of `TABLE`.
_SAME = {
  'bone_mandible': 'Mandible',
  'cavity_oral': 'OralCavity',
  **{
    f'{organ}_{side}': name
    for organ, names in {
      'femur_head': ('femoral_head_left', 'femoral_head_right'),
      'parotid': ('LeftParotid', 'RightParotid'),
      'glnd_submand': ('LeftSubmandibular', 'RightSubmandibular'),
      'lens': ('LeftLens', 'RightLens'),
      'eye': ('LeftEye', 'RightEye'),
      'cochlea': ('LeftCochlea', 'RightCochlea'),
      'opticnrv': ('LeftOpticNerve', 'RightOpticNerve'),
    }.items()
    for side, name in zip('lr', names)
  },
}


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
  keys = [_spellings(name) for name in names]
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
  keys: Sequence[frozenset[str]],
  wanted: str,
  rows: Sequence[tuple[str, str]],
) -> list[list[int]]:
  """Indices that match a structure, grouped by row, the first row first."""
  in_table = _plain(_SAME.get(_plain(wanted), wanted))
  patterns = [pattern for name, pattern in rows if name == wanted]
  patterns.append(re.escape(_plain(wanted)))
  patterns += [p for name, p in TABLE if _plain(name) == in_table]
  groups: list[list[int]] = []
  seen: set[int] = set()
  for pattern in patterns:
    composed = re.compile(unicodedata.normalize('NFC', pattern), re.IGNORECASE)
    group = [
      i
      for i, spellings in enumerate(keys)
      if i not in seen and any(map(composed.fullmatch, spellings))
    ]
    seen.update(group)
    groups += [group] if group else []
  return groups


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
