"""The same updates give the same parameters as when `updates.json` was made.

`PYTHONPATH=.:tests python tests/training/test_golden.py` makes it anew, after
a change that is meant to change them.
"""

import json
import os
import pathlib
import tempfile

from conftest import make_config, make_tiny_cohort
import jax
import numpy as np
import optax
import pytest

from dvhflax.cohort.store import Cohort
from dvhflax.training.train import train

RECORDED = pathlib.Path(__file__).parents[1] / 'golden' / 'updates.json'
FORMS = {
  'paper': {
    'model.conditioning': 'bottleneck',
    'model.norm': 'batch',
    'model.standardise_dvh': False,
    'model.dropout': 0.2,
  },
  'film': {
    'model.norm': 'mixed',
    'model.beams': 7,
    'model.dropout': 0.2,
    'loss.structure_weight': 1.0,
    'loss.mean_dose_weight': 3.0,
    'data.mirrored_share': 0.5,
  },
  'none': {'model.conditioning': 'none', 'batch_parts': 2},
}


def measure(form: str, cohort_path: str, workdir: str) -> dict[str, list]:
  """Sum and norm of every variable and of Adam's mean of its gradient.

  The gradients' tell another loss, dropout or order of samples by far more
  than the parameters do.
  """
  config = make_config(cohort_path)
  config.max_steps = 6
  # Long steps would blow the rounding errors up.
  config.optimizer.learning_rate = 1e-3
  config.update_from_flattened_dict(FORMS[form])
  state = train(config, Cohort.open(cohort_path), workdir)
  gradient = optax.tree.get(state.opt_state, 'mu')
  leaves = jax.tree.leaves_with_path({**state.model, 'gradient': gradient})
  found = {}
  for path, leaf in leaves:
    values = np.asarray(leaf, np.float64).ravel()
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    found[name] = [float(values.sum()), float(np.linalg.norm(values))]
  return found


@pytest.mark.parametrize('form', FORMS)
def test_updates_give_the_recorded_parameters(form, cohort_path, tmp_path):
  expected = json.loads(RECORDED.read_text())[form]
  found = measure(form, cohort_path, str(tmp_path))
  assert found.keys() == expected.keys()
  for name, (total, norm) in expected.items():
    # Other instructions and forms of the convolution move these by up to 4e-4
    # of the norm.
    np.testing.assert_allclose(
      found[name], [total, norm], rtol=0, atol=2e-3 * norm + 1e-12, err_msg=name
    )


if __name__ == '__main__':
  with tempfile.TemporaryDirectory() as folder:
    cohort = make_tiny_cohort(os.path.join(folder, 'tiny'))
    made = {f: measure(f, cohort, os.path.join(folder, f)) for f in FORMS}
  RECORDED.write_text(json.dumps(made, indent=1) + '\n')
