"""Writes a trained network as ONNX, to be run without JAX.

Inputs are `masks [N, X, Y, Z, S]` float32 and, but for an anatomy-only network,
`desired_dvh [N, S, K]`; the output is `dose [N, X, Y, Z]`. Metadata of the file
describe them.

example:
  dvhflax export --workdir=runs/small --output=small.onnx
"""

from absl import flags

from dvhflax import errors


def define() -> None:
  flags.DEFINE_string('workdir', None, 'A training run, or its URL.')
  flags.DEFINE_string('output', None, 'ONNX file to write.')
  flags.DEFINE_string(
    'checkpoint', 'best', '`best`, `latest`, or the number of a saved step.'
  )
  flags.DEFINE_list(
    'spacing_mm',
    None,
    'x,y,z: the voxel size, for a network that was trained on several.',
  )


def main() -> None:
  values = flags.FLAGS
  if not values.workdir or not values.output:
    raise errors.UserError('say which run and which file: --workdir, --output')
  from dvhflax.evaluation.export import export

  export(
    values.workdir,
    values.output,
    values.checkpoint,
    _lengths(values.spacing_mm),
  )
  print(f'written to {values.output}')


def _lengths(texts: list[str] | None) -> list[float] | None:
  if not texts:
    return None
  try:
    return [float(text) for text in texts]
  except ValueError:
    raise errors.UserError(
      '--spacing_mm must be three positive lengths in mm'
    ) from None
