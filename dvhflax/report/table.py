"""Table 1: dose errors of the network, of its baselines and of the paper."""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from dvhflax.report.sample_errors import SampleErrors, network_of, statistics
from dvhflax.text_table import aligned

# Mean and standard deviation of true minus predicted, in % of the
# prescription, of (mean dose, maximum dose): Ma et al. 2021, table 1.
PAPER_TABLE1: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
  'body': ((0.33, 0.73), (1.21, 1.90)),
  'bladder': ((1.63, 4.48), (0.02, 1.17)),
  'rectum': ((0.54, 4.83), (0.64, 1.46)),
  'ptv': ((0.52, 0.23), (1.83, 1.09)),
}

_GY = {'mean_dose': 'mean_error_gy', 'max_dose': 'max_error_gy'}

Paper = Mapping[str, tuple[tuple[float, float], tuple[float, float]]]


def table1(
  results: Mapping[str, SampleErrors],
  structures: Sequence[str],
  paper: Paper | None = None,
  reference: str = 'the prescription',
  about: str = '',
  notes: Sequence[str] = (),
) -> str:
  """Table 1 as aligned plain text.

  Args:
    results: the network first, then its baselines, each under the name to
      show.
    structures: `[S]` names.
    paper: `PAPER_TABLE1`, or None to leave the paper out; shown for the
      structures it names, whatever their case.
    reference: what the errors are percentages of.
    about: of whom, and which doses are true; a line of the caption.
    notes: lines to put below.

  Returns:
    Lines of some 95 to 105 columns. The network's block ends in the paper's
    values, a baseline's in the ratio of its mean absolute error to the
    network's: above 1 the network is better.

  Raises:
    ValueError: no result, or one of another number of structures.
  """
  blocks = _blocks(results, structures, paper)
  every_row = [row for block in blocks for row in (block.header, *block.rows)]
  texts = iter(aligned(every_row))
  widths = [max(map(len, column)) for column in zip(*every_row)]
  # Two blanks stand between columns.
  indent = sum(widths[:2]) + 4
  mean_dose = 'mean dose'.center(sum(widths[2:5]) + 4)
  max_dose = 'maximum dose'.center(sum(widths[5:]) + 4)
  head = ' ' * indent + mean_dose + '  ' + max_dose
  rule = '-' * (sum(widths) + 2 * (len(widths) - 1))
  lines = [*_caption(reference, about), '', head.rstrip()]
  for block in blocks:
    lines += [rule, block.title, *itertools.islice(texts, 1 + len(block.rows))]
  lines += [rule, *_notes(results, paper), *notes]
  lines += _in_gy(results, structures)
  return '\n'.join(lines) + '\n'


def table1_markdown(
  results: Mapping[str, SampleErrors],
  structures: Sequence[str],
  paper: Paper | None = None,
  reference: str = 'the prescription',
  about: str = '',
  notes: Sequence[str] = (),
) -> str:
  """`table1` as Markdown, one table a block; the same arguments."""
  lines = [*_caption(reference, about), '']
  for block in _blocks(results, structures, paper):
    header = list(block.header)
    for first, dose in ((2, 'mean dose'), (5, 'maximum dose')):
      for column in range(first, first + 3):
        header[column] = f'{dose}, {header[column]}' if header[column] else ''
    # An empty column means that the paper was left out.
    kept = [c for c, title in enumerate(header) if title]
    lines += [f'**{block.title}**', '']
    lines.append('| ' + ' | '.join(header[c] for c in kept) + ' |')
    lines.append('| --- |' + ' ---: |' * (len(kept) - 1))
    for row in block.rows:
      lines.append('| ' + ' | '.join(row[c] for c in kept) + ' |')
    lines.append('')
  below = [*_notes(results, paper), *notes]
  # Two blanks keep Markdown from running the lines together.
  return '\n'.join([*lines, '  \n'.join(below)]) + '\n'


def summary(
  results: Mapping[str, SampleErrors], structures: Sequence[str]
) -> dict[str, Any]:
  """The numbers of table 1 for machines.

  Args:
    results: the network first, then its baselines.
    structures: `[S]` names.

  Returns:
    A JSON-serialisable dict, None for what has no value: name ->
    `{'samples', 'dvh_fidelity', 'structures': {name: {'samples',
    'mean_dose': ..., 'max_dose': ...}}}`, each dose with `mean`, `std`,
    `absolute_mean`, `absolute_std` in %, `mean_gy` and `std_gy` in Gy where
    they were measured and, for a baseline, `ratio` to the network.

  Raises:
    ValueError: no result, or one of another number of structures.
  """
  network = network_of(results, structures)
  numbers: dict[str, Any] = {}
  for name, errors in results.items():
    numbers[name] = {
      'samples': len(errors.mean_error),
      'dvh_fidelity': _mean_fidelity(errors),
      'structures': {},
    }
    for s, structure in enumerate(structures):
      row: dict[str, Any] = {}
      for dose, of_network, own in (
        ('mean_dose', network.mean_error, errors.mean_error),
        ('max_dose', network.max_error, errors.max_error),
      ):
        values = dataclasses.asdict(statistics(own[:, s]))
        row['samples'] = values.pop('samples')
        if errors is not network:
          values['ratio'] = _ratio(own[:, s], of_network[:, s])
        of_gy = getattr(errors, _GY[dose])
        if of_gy is not None:
          in_gy = statistics(of_gy[:, s])
          values['mean_gy'], values['std_gy'] = in_gy.mean, in_gy.std
        row[dose] = {
          key: value if np.isfinite(value) else None
          for key, value in values.items()
        }
      numbers[name]['structures'][structure] = row
  return numbers


def _caption(reference: str, about: str) -> list[str]:
  lines = [
    f'Dose errors, true minus predicted, in % of {reference}: '
    'mean ± standard deviation'
  ]
  return [*lines, about] if about else lines


def _in_gy(
  results: Mapping[str, SampleErrors], structures: Sequence[str]
) -> list[str]:
  """The network's errors in Gy, if they were measured."""
  name, network = next(iter(results.items()))
  if network.mean_error_gy is None or network.max_error_gy is None:
    return []
  lines = ['', f'{name}, in Gy:']
  for s, structure in enumerate(structures):
    mean, top = (
      statistics(found[:, s])
      for found in (network.mean_error_gy, network.max_error_gy)
    )
    if mean.samples:
      lines.append(
        f'{structure}: mean dose {_signed(mean.mean, mean.std)}, maximum dose '
        f'{_signed(top.mean, top.std)}'
      )
  return lines


@dataclasses.dataclass(frozen=True)
class _Block:
  title: str
  header: list[str]
  rows: list[list[str]]


def _blocks(
  results: Mapping[str, SampleErrors],
  structures: Sequence[str],
  paper: Paper | None,
) -> list[_Block]:
  network = network_of(results, structures)
  blocks = []
  for name, errors in results.items():
    is_network = errors is network
    last = ('paper' if paper else '') if is_network else 'ratio'
    columns = ['signed', 'absolute', last]
    rows = []
    for s, structure in enumerate(structures):
      row = [structure, str(statistics(errors.mean_error[:, s]).samples)]
      for dose, of_network, own in (
        (0, network.mean_error, errors.mean_error),
        (1, network.max_error, errors.max_error),
      ):
        values = statistics(own[:, s])
        row.append(_signed(values.mean, values.std))
        row.append(_absolute(values.absolute_mean, values.absolute_std))
        if is_network:
          published = (paper or {}).get(structure.casefold())
          row.append(_signed(*published[dose]) if published else '')
        else:
          row.append(_fixed(_ratio(own[:, s], of_network[:, s])))
      rows.append(row)
    header = ['structure', 'n', *columns, *columns]
    blocks.append(_Block(_title(name, errors), header, rows))
  return blocks


def _title(name: str, errors: SampleErrors) -> str:
  fidelity = _mean_fidelity(errors)
  if fidelity is None:
    return name
  return f'{name} (mean |desired - predicted| DVH: {fidelity:.4f})'


def _mean_fidelity(errors: SampleErrors) -> float | None:
  if errors.dvh_fidelity is None or np.all(np.isnan(errors.dvh_fidelity)):
    return None
  return float(np.nanmean(errors.dvh_fidelity))


def _notes(
  results: Mapping[str, SampleErrors], paper: Paper | None
) -> list[str]:
  notes = []
  if paper:
    notes.append('paper: signed errors of Ma et al. 2021, table 1')
  if len(results) > 1:
    network = next(iter(results))
    notes.append(
      f'ratio: mean absolute error over that of "{network}"; above 1, '
      f'"{network}" is better'
    )
  return notes


def _ratio(baseline: np.ndarray, network: np.ndarray) -> float:
  """Baseline's over network's mean absolute error; NaN where undefined."""
  of_network = statistics(network).absolute_mean
  if not of_network > 0:
    return float('nan')
  return statistics(baseline).absolute_mean / of_network


def _signed(mean: float, std: float) -> str:
  return '-' if np.isnan(mean) else f'{mean:+.2f} ± {std:.2f}'


def _absolute(mean: float, std: float) -> str:
  return '-' if np.isnan(mean) else f'{mean:.2f} ± {std:.2f}'


def _fixed(value: float) -> str:
  return '-' if np.isnan(value) else f'{value:.2f}'
