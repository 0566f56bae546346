"""Is the network worth it? Rounds and time until a patient's goals are met.

python benchmarks/efficiency.py --out=FOLDER [--patients=20] [--figure=FILE]

Each simulated patient, of a seed that no network was trained on, begins with
the balanced plan. Goals: the rectum's V40Gy is to fall, step by step, while
the bladder's V40Gy rises by a twentieth at most and the PTV's D2% is at most
110% of the prescription; every plan is scaled to the protocol's coverage.
Steps are shares of what the best of 300 plans gains; the last one is beyond
that, and cannot be met. Who reaches them:

- `planner`: turns weights, and optimises in full each time, from the fluence
  before. The weight of an organ that misses its goal is multiplied by 1.5; one
  that keeps its goal with a tenth to spare is divided by 1.2; if the target
  misses its own, both organs' are divided by 1.5. It gives up after 12 rounds,
  or when its weights come back.
- `set`: 300 plans first, then the best of them is looked up for each step.
- `network`: tunes with the network of `--workdir` until the prediction has the
  goals, or for 6 rounds, and then mimics it once: a plan that beams can
  deliver. By how much that missed the prediction is the next step's margin.

Goals are always read off a deliverable dose. Patients that are in FOLDER
already are not measured again.
"""

import argparse
import json
import pathlib
import statistics
import time

import jax.numpy as jnp
import numpy as np

import dvhflax
from dvhflax.dose_volume import Voxels
from dvhflax.planning import fluence as fluence_lib
from dvhflax.planning.mimic import mimic
from dvhflax.planning.planner import Model, cover
from dvhflax.planning.trade_offs import TradeOffs
from dvhflax.sites.prostate import PROTOCOL
from dvhflax.sources.simulated import simulate_patient
from dvhflax.training.runs import load_networks
from dvhflax.tuning.session import Session

SEED = 7
LEVEL_GY, HOT_GY = 40.0, 1.10 * PROTOCOL.prescription_gy
# Of the bladder's volume that receives the level, beside the balanced plan's.
ROOM = 1.05
# Shares of what 300 plans gain; the last cannot be had.
STEPS = (0.25, 0.5, 0.75, 0.95, 1.25)
SET = 300
ORGANS = ('rectum', 'bladder')
PLANNER_ROUNDS, NETWORK_ROUNDS = 12, 6
# No hot spot is wished for below this.
LEAST_GY = 1.02 * PROTOCOL.prescription_gy
WAYS = ('planner', 'set', 'network')
# What is still nearly met: percentage points of a volume, Gy of D2%.
NEARLY = {'rectum': 1.0, 'bladder': 1.0, 'PTV': PROTOCOL.prescription_gy / 100}


class Patient:
  """One patient, and what doses have of it."""

  def __init__(self, index, grid, spacing_mm):
    patient = simulate_patient(
      SEED, index, grid=grid, spacing_mm=spacing_mm, plans=1
    )
    self.patient, self.spacing_mm = patient, spacing_mm
    names = ('body', 'bladder', 'rectum', 'PTV')
    self.masks = {n: patient.masks[..., i] for i, n in enumerate(names)}

  def model(self):
    return Model.of(self.masks, self.spacing_mm, PROTOCOL)

  def read(self, dose_gy):
    """V40Gy of rectum and bladder in %, D2% of the PTV in Gy."""
    inside = {n: Voxels(dose_gy[mask > 0]) for n, mask in self.masks.items()}
    return {
      'rectum': inside['rectum'].volume_percent_at_dose(LEVEL_GY),
      'bladder': inside['bladder'].volume_percent_at_dose(LEVEL_GY),
      'PTV': inside['PTV'].dose_at_volume_percent(2),
    }


def met(read, goals):
  return all(read[name] <= goals[name] for name in goals)


def nearly_met(row, goals):
  """Whether a way's row of a step has its goals, or nearly."""
  wider = {name: goals[name] + NEARLY[name] for name in goals}
  return row['met'] or (ORGANS[0] in row and met(row, wider))


class Planner:
  """Turns weights, see above."""

  def __init__(self, patient):
    self.patient = patient
    self.model = patient.model()
    self.trade_offs = TradeOffs.of(PROTOCOL, list(patient.masks))
    self.fluence = self.model.flat(1)
    # Factors on the weights of the middle of the front.
    self.factor = {'rectum': 1.0, 'bladder': 1.0}

  def solve(self):
    middle = self.trade_offs.weights(
      np.full((1, len(self.trade_offs.axes)), 0.5)
    )
    names = (*self.model.sampled.names, 'roughness')
    for name, factor in self.factor.items():
      for column, objective in enumerate(names):
        if objective.startswith(f'{name} '):
          middle[:, column] *= factor
    solution = fluence_lib.solve(
      self.model.problem,
      jnp.asarray(middle, jnp.float32),
      self.fluence,
      gap=PROTOCOL.gap,
      most_iterations=PROTOCOL.most_iterations,
    )
    self.fluence = solution.fluence
    return self.patient.read(self.model.scaled_gy(self.fluence)[0])

  def reach(self, goals, read):
    """Rounds, and the last reading, from the reading before."""
    tried = {tuple(self.factor.values())}
    for rounds in range(PLANNER_ROUNDS + 1):
      if met(read, goals):
        return True, rounds, read
      for name in self.factor:
        if read['PTV'] > goals['PTV']:
          self.factor[name] /= 1.5
        elif read[name] > goals[name]:
          self.factor[name] *= 1.5
        elif read[name] < 0.9 * goals[name]:
          self.factor[name] /= 1.2
      if rounds == PLANNER_ROUNDS or tuple(self.factor.values()) in tried:
        return False, rounds, read
      tried.add(tuple(self.factor.values()))
      read = self.solve()
    raise AssertionError


def network_reaches(session, patient, goals, margin):
  """As `Planner.reach`; and what was predicted.

  `margin` by structure, in the units of `Patient.read`, is by how much the
  plans of earlier steps missed what was predicted; this step's is added.
  """
  asked = {name: goals[name] - margin[name] for name in goals}
  wish = dict(asked)
  rounds = 0
  while True:
    rounds += 1
    points = [
      f'{name} D2 <= {max(value, LEAST_GY):.2f} Gy'
      if name == 'PTV'
      else f'{name} V{LEVEL_GY:g}Gy <= {max(value, 0):.3f}%'
      for name, value in wish.items()
    ]
    step = session.tune(points)
    session.undo()
    predicted = patient.read(step.dose_gy)
    if met(predicted, asked) or rounds == NETWORK_ROUNDS:
      break
    for name in wish:
      wish[name] -= max(predicted[name] - asked[name], 0)
  found = mimic(step.dose_gy, patient.masks, patient.spacing_mm, PROTOCOL)
  fluence = jnp.asarray(found.fluence)[None]
  read = patient.read(found.model.scaled_gy(fluence)[0])
  for name in margin:
    margin[name] = max(read[name] - predicted[name], 0)
  return met(read, goals), rounds, read, predicted


def measured(call):
  """Seconds, and what it returns."""
  start = time.perf_counter()
  result = call()
  return time.perf_counter() - start, result


def measure(index, networks):
  """All of one patient, JSON-serialisable."""
  network, cohort, anatomy = networks
  patient = Patient(index, cohort.grid, cohort.patients[0].spacing_mm)
  preparing, planner = measured(lambda: Planner(patient))
  solving, balanced = measured(planner.solve)

  def many():
    model = patient.model()
    weights, start = cover(model, list(patient.masks), SET)
    solution = fluence_lib.solve(
      model.problem,
      jnp.asarray(weights, jnp.float32),
      start,
      gap=PROTOCOL.gap,
      most_iterations=PROTOCOL.most_iterations,
    )
    return [
      patient.read(dose)
      for part in np.array_split(np.asarray(solution.fluence), 30)
      for dose in model.scaled_gy(jnp.asarray(part))
    ]

  planning_set, plans = measured(many)
  room = {'bladder': ROOM * balanced['bladder'], 'PTV': HOT_GY}
  reached = [p['rectum'] for p in plans if met(p, room)]
  gain = balanced['rectum'] - min([*reached, balanced['rectum']])
  opening, session = measured(
    lambda: Session(network, cohort, patient.patient, anatomy)
  )
  first, _ = measured(session.first_dose)
  found = {
    'index': index,
    'balanced': balanced,
    'gain': gain,
    'seconds': {
      'planner': preparing + solving,
      'set': planning_set,
      'network': opening + first,
    },
    'steps': [],
  }
  before, read, margin = (
    balanced,
    balanced,
    dict.fromkeys(('rectum', *room), 0.0),
  )
  for share in STEPS:
    goals = {'rectum': balanced['rectum'] - share * gain, **room}
    row = {'share': share, 'goals': goals}
    seconds, (ok, rounds, before) = measured(
      lambda goals=goals, before=before: planner.reach(goals, before)
    )
    row['planner'] = {'met': ok, 'rounds': rounds, 'seconds': seconds, **before}
    seconds, best = measured(
      lambda goals=goals: [p for p in plans if met(p, goals)]
    )
    row['set'] = {'met': bool(best), 'rounds': 0, 'seconds': seconds}
    seconds, (ok, rounds, read, predicted) = measured(
      lambda goals=goals: network_reaches(session, patient, goals, margin)
    )
    row['network'] = {
      'met': ok,
      'rounds': rounds,
      'seconds': seconds,
      'predicted': predicted,
      **read,
    }
    found['steps'].append(row)
  return found


def name_of(index):
  """Of a patient's file."""
  return f'{index:03d}.json'


def report(patients):
  """Prints the table of all patients."""
  print(f'{len(patients)} patients, {dvhflax.__version__}')
  gains = [p['gain'] for p in patients]
  print(
    f"the rectum's V{LEVEL_GY:g}Gy can fall by {statistics.mean(gains):.1f} "
    f'({min(gains):.1f} to {max(gains):.1f}) percentage points'
  )
  for way in WAYS:
    seconds = statistics.median(p['seconds'][way] for p in patients)
    print(f'{way}: {seconds:.1f} s before the first step')
  columns = [f'{way}: met (nearly), rounds, seconds' for way in WAYS]
  print('| share | ' + ' | '.join(columns) + ' |')
  print('| ---: ' * (1 + len(WAYS)) + '|')
  for i, share in enumerate(STEPS):
    cells = []
    for way in WAYS:
      rows = [p['steps'][i][way] for p in patients]
      nearly = sum(
        nearly_met(r, p['steps'][i]['goals']) for r, p in zip(rows, patients)
      )
      cells.append(
        f'{sum(r["met"] for r in rows)} ({nearly}), '
        f'{statistics.median(r["rounds"] for r in rows):g}, '
        f'{statistics.median(r["seconds"] for r in rows):.1f}'
      )
    print(f'| {share:.0%} | ' + ' | '.join(cells) + ' |')
  print('mean excess of rectum and bladder over the goal, percentage points:')
  for i, share in enumerate(STEPS):
    over = [
      np.mean(
        [
          [max(r[n] - p['steps'][i]['goals'][n], 0) for n in ORGANS]
          for p in patients
          for r in [where(p['steps'][i])]
        ],
        0,
      ).round(2)
      for where in (
        lambda s: s['planner'],
        lambda s: s['network'],
        lambda s: s['network']['predicted'],
      )
    ]
    print(
      f'{share:.0%}: planner {over[0]}, network {over[1]}, predicted {over[2]}'
    )


def draw(path, patients):
  """Seconds of work against the share of what can be had."""
  import matplotlib.pyplot as plt

  figure, axis = plt.subplots(figsize=(6.4, 3.6))
  for way in WAYS:
    total = np.array(
      [
        np.cumsum([p['seconds'][way], *(s[way]['seconds'] for s in p['steps'])])
        for p in patients
      ]
    )
    places = [0, *(100 * s for s in STEPS)]
    axis.plot(places, np.median(total, 0), 'o-', label=way)
    axis.fill_between(places, *np.quantile(total, (0.25, 0.75), 0), alpha=0.2)
  axis.set(
    xlabel='share of the possible gain asked for, %',
    ylabel='seconds so far',
    yscale='log',
  )
  axis.grid(alpha=0.3)
  axis.legend()
  figure.tight_layout()
  figure.savefig(path, dpi=110)


def main() -> None:
  """Measures what is missing, and prints the table."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--out', required=True, type=pathlib.Path)
  parser.add_argument('--workdir', default=dvhflax.pretrained('prostate'))
  parser.add_argument('--patients', type=int, default=20)
  parser.add_argument('--figure')
  options = parser.parse_args()
  options.out.mkdir(parents=True, exist_ok=True)
  networks = load_networks(options.workdir, 'best', None, None)
  if not all(
    (options.out / name_of(i)).exists() for i in range(options.patients)
  ):
    # Compiles, and does not count.
    measure(options.patients, networks)
  patients = []
  for index in range(options.patients):
    path = options.out / name_of(index)
    if not path.exists():
      path.write_text(json.dumps(measure(index, networks)))
    patients.append(json.loads(path.read_text()))
    print(f'{index + 1} of {options.patients}', flush=True)
  report(patients)
  if options.figure:
    draw(options.figure, patients)


if __name__ == '__main__':
  main()
