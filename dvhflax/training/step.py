"""The training state, the update, and the loss of a batch, over all devices."""

from collections.abc import Callable
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from dvhflax.losses import Loss, dose_loss
from dvhflax.models.build import initial_variables
from dvhflax.models.layer import CONVOLVED
from dvhflax.models.unet import UNet
from dvhflax.schedules import average_decay
from dvhflax.training import feed, parallel

# The variables that updates change, and that may be averaged over them.
AVERAGED = ('params', 'batch_stats')
# `loss(predicted, dose, masks)` of a batch, see `losses`.
LossFn = Callable[[jax.Array, jax.Array, jax.Array], Loss]


@flax.struct.dataclass
class TrainState:
  """All that an update changes.

  Attributes:
    step: updates made.
    model: variables of the network.
    opt_state: of optax.
    loss_sum: sum of the samples' losses in this epoch so far.
    term_sums: of each term of the loss, over `term_samples` samples of this
      epoch; a run that older versions began has none of its first epoch.
    term_samples: how many these are.
    averaged: moving average of `AVERAGED`, or nothing.
  """

  step: jax.Array
  model: Any
  opt_state: Any
  loss_sum: jax.Array
  term_sums: dict[str, jax.Array]
  term_samples: jax.Array
  averaged: Any

  @property
  def predicting(self) -> Any:
    """The variables to predict with."""
    return {**self.model, **self.averaged}


def create_state(
  model: UNet,
  tx: optax.GradientTransformation,
  statistics: dict[str, Any],
  rng: jax.Array,
  loss: LossFn = dose_loss,
  first_dose: Any = None,
  averages: bool = False,
) -> TrainState:
  """The state before the first update.

  Args:
    model: the network.
    tx: optimiser.
    statistics: of the training set's DVHs.
    rng: of the initialisation.
    loss: of a batch, for the names of its terms.
    first_dose: variables of the anatomy-only network that serves it, if any.
    averages: whether a moving average is kept.
  """
  variables = initial_variables(model, rng)
  if first_dose is not None:
    variables['first_dose'] = {'network': first_dose}
  if variables['dvh_statistics']:
    variables['dvh_statistics'] = statistics
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    model=variables,
    opt_state=tx.init(variables['params']),
    loss_sum=jnp.zeros(()),
    term_sums={name: jnp.zeros(()) for name in term_names(loss)},
    term_samples=jnp.zeros((), jnp.int32),
    averaged=jax.tree.map(jnp.copy, {k: variables[k] for k in AVERAGED})
    if averages
    else {},
  )


def term_names(loss: LossFn) -> tuple[str, ...]:
  """The terms of a loss."""
  dose = jnp.zeros((1, 1, 1, 1))
  return tuple(jax.eval_shape(loss, dose, dose, dose[..., None]).terms)


def make_train_step(
  model: UNet,
  tx: optax.GradientTransformation,
  steps_per_epoch: int,
  loss: LossFn = dose_loss,
  *,
  parts: int = 1,
  remat: bool = False,
  votes: bool = False,
  average: float = 0.0,
) -> Callable[..., Any]:
  """The update, mapped over devices.

  Args:
    model: network with `axis_name=parallel.AXIS`.
    tx: optimiser.
    steps_per_epoch: after so many the sums of losses start anew.
    loss: of a batch.
    parts: a device's samples are taken in so many parts, one after another,
      their gradients averaged; batch statistics are of a part.
    remat: keep only what convolutions give, and compute the rest of a layer
      once more for the gradient.
    votes: the step takes a vote of every process along, see `Stopping`.
    average: decay of the moving average of the state, if it has one.

  Returns:
    `step(state, cohort, batch, rng) -> state, loss`; the state and the cohort
    replicated, see `feed.unpack`, the batch `[devices, B/devices, ...]`, the
    loss the mean over the global batch. With `votes` it has one argument more,
    `[devices]`, and one result more, the greatest of all devices' votes.
  """
  apply: Callable[..., Any] = functools.partial(
    model.apply, train=True, mutable=['batch_stats']
  )
  if remat:
    kept = jax.checkpoint_policies.save_only_these_names(CONVOLVED)
    apply = jax.checkpoint(apply, policy=kept)

  def gradient_of(variables, cohort, batch, rng):
    """Gradient, sums of the loss and new variables of one part."""
    batch = feed.unpack(cohort, batch)

    def loss_fn(params):
      predicted, updates = apply(
        {**variables, 'params': params},
        batch['masks'],
        batch['desired_dvh'],
        batch.get('spacing_mm'),
        batch.get('prepared'),
        rngs={'dropout': rng},
      )
      losses = loss(predicted, batch['dose'], batch['masks'])
      return losses.total.mean(), (jax.tree.map(jnp.sum, losses), updates)

    gradient, (sums, updates) = jax.grad(loss_fn, has_aux=True)(
      variables['params']
    )
    return gradient, sums, {**variables, **updates}

  def whole_gradient(variables, cohort, batch, rng, no_sums):
    if parts == 1:
      return gradient_of(variables, cohort, batch, rng)

    def add(carry, part):
      gradient, sums, variables = carry
      batch, rng = part
      more, more_sums, variables = gradient_of(variables, cohort, batch, rng)
      gradient = jax.tree.map(lambda a, b: a + b / parts, gradient, more)
      sums = jax.tree.map(jnp.add, sums, more_sums)
      return (gradient, sums, variables), None

    none = jax.tree.map(jnp.zeros_like, variables['params'])
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    total, _ = jax.lax.scan(
      add,
      (none, no_sums, variables),
      (split, jax.random.split(rng, parts)),
    )
    return total

  def train_step(state, cohort, batch, rng, *vote):
    rng = jax.random.fold_in(rng, state.step)
    rng = jax.random.fold_in(rng, jax.lax.axis_index(parallel.AXIS))
    sums = Loss(state.loss_sum, state.term_sums)
    gradient, new_sums, variables = whole_gradient(
      state.model, cohort, batch, rng, jax.tree.map(jnp.zeros_like, sums)
    )
    gradient = parallel.pmean(gradient)
    new_sums = parallel.psum(new_sums)
    change, opt_state = tx.update(
      gradient, state.opt_state, state.model['params']
    )
    params = optax.apply_updates(state.model['params'], change)
    size = len(jax.tree.leaves(batch)[0]) * parallel.psum(1)
    begun = state.step % steps_per_epoch != 0
    sums = jax.tree.map(lambda a, b: jnp.where(begun, a, 0) + b, sums, new_sums)
    variables = {**variables, 'params': params}
    decay = average_decay(average, state.step)
    averaged = jax.tree.map(
      lambda mean, x: decay * mean + (1 - decay) * x,
      state.averaged,
      {name: variables[name] for name in state.averaged},
    )
    state = TrainState(
      step=state.step + 1,
      model=variables,
      opt_state=opt_state,
      loss_sum=sums.total,
      term_sums=sums.terms,
      term_samples=jnp.where(begun, state.term_samples, 0) + size,
      averaged=averaged,
    )
    return state, new_sums.total / size, *map(parallel.pmax, vote)

  return parallel.pmap(
    train_step,
    in_axes=(None, None, 0, None) + (0,) * votes,
    out_axes=(None, None) + (None,) * votes,
    donate_argnums=0,
  )


def make_eval_step(
  model: UNet, loss: LossFn = dose_loss
) -> Callable[..., Loss]:
  """Weighted sums of the samples' losses and terms, over all devices.

  Returns:
    `step(variables, cohort, batch, weight) -> sums`; the weight is
    `[devices, B/devices]`, 0 for padding.
  """

  def eval_step(variables, cohort, batch, weight):
    batch = feed.unpack(cohort, batch)
    predicted: Any = model.apply(
      variables,
      batch['masks'],
      batch['desired_dvh'],
      batch.get('spacing_mm'),
      batch.get('prepared'),
      train=False,
    )
    losses = loss(predicted, batch['dose'], batch['masks'])
    sums = jax.tree.map(lambda x: jnp.sum(x * weight), losses)
    return parallel.psum(sums)

  return parallel.pmap(eval_step, in_axes=(None, None, 0, 0), out_axes=None)
