"""The file that a training run is exported to."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from dvhflax.evaluation.export import export
from dvhflax.training.runs import load_network
from dvhflax.training.train import train


def test_file_of_a_run(trained_run, tmp_path):
  path = str(tmp_path / 'network.onnx')
  export(trained_run, path)
  proto = onnx.load(path)
  metadata = {p.key: p.value for p in proto.metadata_props}
  structures = json.loads(metadata['data'])['structures']
  assert [s['name'] for s in structures] == ['body', 'rectum', 'PTV']
  assert [file.name for file in tmp_path.iterdir()] == ['network.onnx']


@pytest.mark.slow
def test_dose_of_a_matched_run(config, cohort, tmp_path):
  config.epochs = 1
  config.first_dose.max_steps = 2
  config.model.conditioning = 'film+matched'
  config.model.prior = 'first_dose'
  config.model.patch = 2
  workdir, path = str(tmp_path / 'run'), str(tmp_path / 'network.onnx')
  train(config, cohort, workdir)
  export(workdir, path)
  network, _ = load_network(workdir)
  masks, wish = cohort.masks(0), cohort.dvh[0, 0].copy()
  wish[1] = 0
  features = network.features(masks, (3.0, 3.0, 5.0))
  expected = network.decode(features, wish)
  (dose,) = onnxruntime.InferenceSession(path).run(
    None, {'masks': masks[None].astype(np.float32), 'desired_dvh': wish[None]}
  )
  # The prior of a voxel may be at the border of two ranks.
  assert np.isclose(dose[0], expected, atol=1e-4).mean() > 0.99
