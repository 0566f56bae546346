"""The paper's network in dvhflax; see run.py.

python benchmarks/network.py train-HOW|predict-HOW|repredict-HOW B X Y Z
python benchmarks/network.py prepare-matched 1 X Y Z
python benchmarks/network.py convolution-FORM|gradient-FORM B X Y Z C F

FORM is a form of the convolution, as in the configuration; HOW is one, a
precision, or another key of `OPTIONS`. `matched` is not the paper's network but
that of `configs/prostate.py:full`.
"""

import functools

from cases import FORMS, PRECISIONS
import jax
import jax.numpy as jnp
from measuring import answer
import numpy as np
import optax
from precision import set_precision

from dvhflax.models import build
from dvhflax.models.build import initial_variables
from dvhflax.models.convolution import convolve
from dvhflax.models.unet import UNet
from dvhflax.training import parallel
from dvhflax.training.step import create_state, make_train_step

STRUCTURES, POINTS = 4, 32
STATISTICS = {
  'mean': np.zeros((STRUCTURES, POINTS), np.float32),
  'spread': np.ones((STRUCTURES, POINTS), np.float32),
}
# Form of the convolution, precision, options of the training step.
OPTIONS = {
  **{form: (form, 'float32', {}) for form in FORMS},
  'remat': ('auto', 'float32', {'remat': True}),
  'parts': ('auto', 'float32', {'parts': 3}),
  **{precision: ('auto', precision, {}) for precision in PRECISIONS},
  'remat-bfloat16': ('auto', 'bfloat16', {'remat': True}),
  'matched': ('auto', 'float32', {}),
}
# Of the network with the matched dose.
MATCHED = {
  'conditioning': 'film+matched',
  'patch': 2,
  'norm': 'mixed',
  'standardise_dvh': True,
  'beams': 7,
  'targets': (3,),
  'body': 0,
  'spacing_mm': (3.75, 2.5, 3.0),
}


def _inputs(batch, grid):
  rng = np.random.default_rng(0)
  masks = (rng.random((batch, *grid, STRUCTURES)) < 0.3).astype(np.uint8)
  wish = rng.random((batch, STRUCTURES, POINTS)).astype(np.float32)
  dose = rng.random((batch, *grid)).astype(np.float32)
  return masks, wish, dose


def _model(grid, how, **fields):
  convolution, precision, _ = OPTIONS[how]
  if how == 'matched':
    fields |= MATCHED
  return UNet(
    grid=grid,
    dvh_shape=(STRUCTURES, POINTS),
    convolution=convolution,
    dtype=set_precision(precision),
    **fields,
  )


def train(how, batch, *grid):
  """A whole update, as in training: loss, gradient, Adam."""
  model = _model(grid, how, axis_name=parallel.AXIS)
  tx = optax.adam(1e-3)
  state = parallel.replicate(
    lambda key: create_state(model, tx, STATISTICS, key), jax.random.key(0)
  )
  step = make_train_step(model, tx, 1000, **OPTIONS[how][2])
  masks, wish, dose = _inputs(batch, grid)
  inputs = parallel.shard({'masks': masks, 'desired_dvh': wish, 'dose': dose})

  def call():
    nonlocal state
    state, loss = step(state, None, inputs, jax.random.key(1))
    jax.block_until_ready((state, loss))

  return call


def predict(how, batch, *grid):
  """Masks and a wish to a dose."""
  model = _model(grid, how)
  variables = initial_variables(model, jax.random.key(0))
  masks, wish, _ = _inputs(batch, grid)
  apply = jax.jit(functools.partial(model.apply, train=False))
  return lambda: apply(variables, masks, wish).block_until_ready()


def repredict(how, batch, *grid):
  """Another wish for the same masks: the encoder's result is kept."""
  model = _model(grid, how)
  variables = initial_variables(model, jax.random.key(0))
  masks, wish, _ = _inputs(batch, grid)
  encode = jax.jit(
    functools.partial(model.apply, train=False, method=UNet.encode)
  )
  decode = jax.jit(
    functools.partial(model.apply, train=False, method=UNet.decode)
  )
  features = jax.block_until_ready(encode(variables, masks))
  return lambda: decode(variables, features, wish).block_until_ready()


def prepare(how, batch, *grid):
  """Open fields and ranks of one patient, part of a prediction."""
  if batch != 1:
    raise ValueError('one patient after another is prepared')
  model = _model(grid, how)
  variables = initial_variables(model, jax.random.key(0))
  (masks,) = _inputs(1, grid)[0]
  apply, spacing_mm = build.prepare(model), np.float32(model.spacing_mm)
  return lambda: jax.block_until_ready(apply(variables, masks, spacing_mm))


def _layer(batch, x, y, z, channels, features):
  rng = np.random.default_rng(0)
  draw = [
    rng.standard_normal(shape).astype(np.float32)
    for shape in (
      (batch, x, y, z, channels),
      (3, 3, 3, channels, features),
      (batch, x, y, z, features),
    )
  ]
  return map(jnp.asarray, draw)


def convolution(form, *shape):
  """One 3x3x3 layer."""
  x, kernel, _ = _layer(*shape)
  apply = jax.jit(lambda x, kernel: convolve(x, kernel, form))
  return lambda: apply(x, kernel).block_until_ready()


def gradient(form, *shape):
  """One 3x3x3 layer's gradients to its input and its kernel."""
  x, kernel, weight = _layer(*shape)

  @jax.jit
  def apply(x, kernel, weight):
    return jax.vjp(lambda x, k: convolve(x, k, form), x, kernel)[1](weight)

  return lambda: jax.block_until_ready(apply(x, kernel, weight))


if __name__ == '__main__':
  of_network = {
    f'{case.__name__}-{how}': functools.partial(case, how)
    for case in (train, predict, repredict, prepare)
    for how in OPTIONS
  }
  of_layer = {
    f'{case.__name__}-{form}': functools.partial(case, form)
    for case in (convolution, gradient)
    for form in FORMS
  }
  answer({**of_network, **of_layer})
