"""The report of an import, for programs and for people."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
from typing import Any

from dvhflax import files, locks
from dvhflax.text_table import aligned


@dataclasses.dataclass(frozen=True)
class Skipped:
  """What was not imported: a file, a folder or a patient, and why."""

  what: str
  why: str


def write_report(
  path: str, entries: Sequence[dict[str, Any]], skipped: Sequence[Skipped]
) -> None:
  """Writes `PATH.import.json` and `PATH.import.txt`.

  Args:
    path: of the cohort.
    entries: of the imported patients, see `importing.assemble`.
    skipped: what was not imported.
  """
  content = {
    'patients': list(entries),
    'skipped': [dataclasses.asdict(one) for one in skipped],
  }
  folder, name = os.path.split(os.path.abspath(path))
  os.makedirs(folder, exist_ok=True)
  # One of several builders: what is aside then is of one that was killed.
  with locks.held(os.path.join(folder, f'.{name}.import.lock')):
    files.remove_leftovers(folder, f'{name}.import.')
    files.write_text(
      f'{path}.import.json', json.dumps(content, indent=1) + '\n'
    )
    files.write_text(f'{path}.import.txt', report_text(entries, skipped))


_HEADING = (
  '',
  'What the grid costs: volume and doses on the cohort grid minus those on',
  'the source grids, of the plan where it is most. Doses in % of the',
  'reference dose, V in % of the structure.',
)


def report_text(
  entries: Sequence[dict[str, Any]], skipped: Sequence[Skipped]
) -> str:
  """The report for people: what was skipped first, then every patient."""
  lines = [f'{len(entries)} patients imported; skipped: {len(skipped)}.']
  lines += [f'  skipped {one.what}: {one.why}' for one in skipped]
  if any(entry['structures'] for entry in entries):
    lines += _HEADING
  for entry in entries:
    lines += ['', f'{entry["id"]}']
    lines += [
      f'  plan {plan["label"]}: {plan["reference_gy"]:.2f} Gy, from the '
      f'{plan["prescription_from"]}'
      for plan in entry['plans']
    ]
    lines += [f'  note: {note}' for note in entry['notes']]
    if entry['structures']:
      lines += _cost_table(entry['structures'])
  return '\n'.join(lines) + '\n'


def _cost_table(structures: Mapping[str, Any]) -> list[str]:
  """A line a structure: what changed most over the patient's plans."""
  # The target always has voxels, and so costs of every plan there is.
  costs = {name: entry['plans'] for name, entry in structures.items()}
  some = next(filter(None, costs.values()), None)
  keys = list(some[0]['source']) if some else []
  rows = [['structure', 'cc', 'change', *keys]]
  for name, entry in structures.items():
    changes = []
    for key in keys:
      each = [p['cohort'][key] - p['source'][key] for p in costs[name]]
      changes.append(max(each, key=abs) if each else float('nan'))
    changes.insert(0, entry['mask_cc'] - entry['volume_cc'])
    volume = f'{entry["volume_cc"]:.2f}'
    rows.append([name, volume, *(f'{change:+.2f}' for change in changes)])
  return [f'  {line}' for line in aligned(rows)]
