"""Writes a trained network as ONNX, for runtimes of its own on any machine.

  dvhflax export --workdir=runs/small --output=small.onnx

Inputs `masks [N, X, Y, Z, S]` float32 and, but for an anatomy-only network,
`desired_dvh [N, S, K]`; output `dose [N, X, Y, Z]`, all as `models/unet.py`
has them. Structures, DVH elements and the like are in the file's metadata.
"""

from collections.abc import Sequence

from absl import flags

from dvhflax import errors
from dvhflax.cli import program as cli
from dvhflax.evaluation.export import export


def _lengths(texts: Sequence[str] | None) -> list[float] | None:
  """Numbers of `--spacing_mm`; one that is none comes out as NaN."""
  if not texts:
    return None
  try:
    return [float(text) for text in texts]
  except ValueError:
    return [float('nan')] * 3


def main(_):
  workdir, output = flags.FLAGS.workdir, flags.FLAGS.output
  if not workdir or not output:
    raise errors.UserError('say which run and which file: --workdir, --output')
  export(
    workdir,
    output,
    flags.FLAGS.checkpoint,
    _lengths(flags.FLAGS.spacing_mm),
  )
  print(f'written to {output}')


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A training run.')
  flags.DEFINE_string('output', None, 'ONNX file to write.')
  flags.DEFINE_string('checkpoint', 'best', '`best`, `latest` or a saved step.')
  flags.DEFINE_list(
    'spacing_mm', None, 'Voxel size, where open fields are on several.'
  )
  cli.run(main)
