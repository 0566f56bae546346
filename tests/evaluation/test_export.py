"""The file that a training run is exported to."""

import json

import onnx

from dvhflax.evaluation.export import export


def test_file_of_a_run(trained_run, tmp_path):
  path = str(tmp_path / 'network.onnx')
  export(trained_run, path)
  proto = onnx.load(path)
  metadata = {p.key: p.value for p in proto.metadata_props}
  structures = json.loads(metadata['data'])['structures']
  assert [s['name'] for s in structures] == ['body', 'rectum', 'PTV']
  assert [file.name for file in tmp_path.iterdir()] == ['network.onnx']
