"""The model card of a bundle: what a network is, how good, and not for what."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import ml_collections

import dvhflax
from dvhflax.cohort.store import Cohort
from dvhflax.report import obedience

_CARD = """# {name}

A network of dvhflax that predicts a dose from masks and a desired DVH. **For
research only, not for clinical use.** It was trained and tested with simulated
patients, and has seen no real one.

## What it is

{network}

## What it was trained on

{cohort}

## How good it is

{table}

Weights are stored in half precision. That changes the predicted doses by at
most {change:.2g} of {reference}
(the largest difference of a voxel in {compared}).

{obedience}

## What it is not for

- Any decision about a patient: nothing here was checked for that.
- Patients unlike the simulated ones above: another site, other structures or
  margins, another prescription, beam arrangement or grid. It will predict a
  dose all the same, and nothing tells how wrong.
- Claims about what a clinic can deliver: the plans are those of dvhflax's own
  planner and dose engine, not of a treatment planning system.

## What comes along

Masks of {patients}{doses};
all patients' DVH vectors and prescriptions; the network's configuration.
`sha256sum -c SHA256SUMS` compares the files.
"""


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a card tells.

  Attributes:
    name: of the bundle.
    run: name of the run's workdir, and `step` its checkpoint.
    config: of the run.
    parameters: numbers in the network's weights.
    cohort: that it was trained on.
    summary: `summary.json` of its evaluation.
    change: largest difference of a predicted dose that half precision makes, of
      `compared` doses.
    patients: ids of the patients that come along, `doses` of each with dose.
  """

  name: str
  run: str
  step: int
  config: ml_collections.ConfigDict
  parameters: int
  cohort: Cohort
  summary: Mapping[str, Any]
  change: float
  compared: int
  patients: tuple[str, ...]
  doses: int


def card(facts: Facts) -> str:
  """The card as Markdown."""
  reference = facts.cohort.normalisation.words
  obeyed = facts.summary.get('obedience')
  return _CARD.format(
    name=facts.name,
    network=_table(_network(facts)),
    cohort=_table(_cohort(facts.cohort)),
    table=_errors(facts.summary, reference),
    change=facts.change,
    reference=reference,
    compared=f'{facts.compared} doses for {len(facts.patients)} patients',
    obedience=obedience.markdown(obeyed, reference).rstrip()
    if obeyed
    else 'Its obedience was not measured.',
    patients=', '.join(facts.patients),
    doses=f' with {facts.doses} doses of each' if facts.doses else '',
  )


def _network(facts: Facts) -> dict[str, str]:
  model, cohort = facts.config.model, facts.cohort
  mm = cohort.patients[0].spacing_mm
  return {
    'made by': f'dvhflax {dvhflax.__version__}',
    'run': f'{facts.run}, step {facts.step}',
    'parameters': f'{facts.parameters:,}',
    'wish': f'`{model.conditioning}`',
    'norm': f'`{model.norm}`',
    'channels': f'{model.base_channels} to {model.max_channels}',
    'structures': ', '.join(s.name for s in cohort.structures),
    'grid': f'{" x ".join(map(str, cohort.grid))} voxels'
    + (
      f' of {" x ".join(f"{x:g}" for x in mm)} mm'
      if cohort.own_spacings is None
      else ', of several sizes'
    ),
    'DVH vector': f'{cohort.dvh_spec.points} elements a structure, '
    f'`{cohort.dvh_spec.kind}`',
    'dose': f'in fractions of {cohort.normalisation.words}',
  }


def _cohort(cohort: Cohort) -> dict[str, str]:
  told = {}
  for split in ('train', 'validation', 'test'):
    plans = [p.plans for p in cohort.patients if p.split == split]
    if plans:
      least, most = min(plans), max(plans)
      each = f'{least}' if least == most else f'{least} to {most}'
      told[f'{split} patients'] = f'{len(plans)}, {each} plans each'
  prescribed = sorted({p.prescription_gy for p in cohort.patients})
  told['prescription'] = ', '.join(f'{gy:g} Gy' for gy in prescribed)
  protocol = cohort.metadata.provenance.get('protocol')
  if protocol:
    told['protocol of the plans'] = protocol['name']
  return told


def _errors(summary: Mapping[str, Any], reference: str) -> str:
  """Table 1: of the network, and of it with shuffled wishes."""
  lines = [
    f'Dose errors, true minus predicted, in % of {reference}, mean ± standard '
    f'deviation of {summary["samples"]} samples of {summary["split"]} '
    'patients:',
    '',
    '| structure | of | mean dose | maximum dose |',
    '| --- | --- | ---: | ---: |',
  ]
  for name, found in summary['table1'].items():
    lines += [
      f'| {structure} | {name} | {_pair(row["mean_dose"])} | '
      f'{_pair(row["max_dose"])} |'
      for structure, row in found['structures'].items()
    ]
  return '\n'.join(lines)


def _pair(values: Mapping[str, float | None]) -> str:
  mean, std = values['mean'], values['std']
  return '-' if mean is None or std is None else f'{mean:+.2f} ± {std:.2f}'


def _table(rows: Mapping[str, str]) -> str:
  return '\n'.join(
    ['| | |', '| --- | --- |', *(f'| {k} | {v} |' for k, v in rows.items())]
  )
