"""The training state, the update, and the loss of a batch, over all devices."""

from collections.abc import Callable
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from dvhflax.losses import dose_loss
from dvhflax.models.build import initial_variables
from dvhflax.models.layer import CONVOLVED
from dvhflax.models.unet import UNet
from dvhflax.training import feed, parallel


@flax.struct.dataclass
class TrainState:
  """All that an update changes.

  Attributes:
    step: updates made.
    model: variables of the network.
    opt_state: of optax.
    loss_sum: sum of the samples' losses in this epoch so far.
  """

  step: jax.Array
  model: Any
  opt_state: Any
  loss_sum: jax.Array


def create_state(
  model: UNet,
  tx: optax.GradientTransformation,
  statistics: dict[str, Any],
  rng: jax.Array,
) -> TrainState:
  """The state before the first update."""
  variables = initial_variables(model, rng)
  if variables['dvh_statistics']:
    variables['dvh_statistics'] = statistics
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    model=variables,
    opt_state=tx.init(variables['params']),
    loss_sum=jnp.zeros(()),
  )


def make_train_step(
  model: UNet,
  tx: optax.GradientTransformation,
  steps_per_epoch: int,
  loss: Callable[..., jax.Array] = dose_loss,
  *,
  parts: int = 1,
  remat: bool = False,
  votes: bool = False,
) -> Callable[..., Any]:
  """The update, mapped over devices.

  Args:
    model: network with `axis_name=parallel.AXIS`.
    tx: optimiser.
    steps_per_epoch: after so many the sum of losses starts anew.
    loss: `loss(predicted, dose, masks) -> [B]`.
    parts: a device's samples are taken in so many parts, one after another,
      their gradients averaged; batch statistics are of a part.
    remat: keep only what convolutions give, and compute the rest of a layer
      once more for the gradient.
    votes: the step takes a vote of every process along, see `Stopping`.

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
    """Gradient, sum of losses and new variables of one part."""
    batch = feed.unpack(cohort, batch)

    def loss_fn(params):
      predicted, updates = apply(
        {**variables, 'params': params},
        batch['masks'],
        batch['desired_dvh'],
        batch.get('spacing_mm'),
        rngs={'dropout': rng},
      )
      losses = loss(predicted, batch['dose'], batch['masks'])
      return losses.mean(), (losses.sum(), updates)

    gradient, (loss_sum, updates) = jax.grad(loss_fn, has_aux=True)(
      variables['params']
    )
    return gradient, loss_sum, {**variables, **updates}

  def whole_gradient(variables, cohort, batch, rng):
    if parts == 1:
      return gradient_of(variables, cohort, batch, rng)

    def add(carry, part):
      gradient, loss_sum, variables = carry
      batch, rng = part
      more, more_loss, variables = gradient_of(variables, cohort, batch, rng)
      gradient = jax.tree.map(lambda a, b: a + b / parts, gradient, more)
      return (gradient, loss_sum + more_loss, variables), None

    none = jax.tree.map(jnp.zeros_like, variables['params'])
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    total, _ = jax.lax.scan(
      add,
      (none, jnp.zeros(()), variables),
      (split, jax.random.split(rng, parts)),
    )
    return total

  def train_step(state, cohort, batch, rng, *vote):
    rng = jax.random.fold_in(rng, state.step)
    rng = jax.random.fold_in(rng, jax.lax.axis_index(parallel.AXIS))
    gradient, loss_sum, variables = whole_gradient(
      state.model, cohort, batch, rng
    )
    gradient = parallel.pmean(gradient)
    loss_sum = parallel.psum(loss_sum)
    change, opt_state = tx.update(
      gradient, state.opt_state, state.model['params']
    )
    params = optax.apply_updates(state.model['params'], change)
    begun = state.step % steps_per_epoch != 0
    state = TrainState(
      step=state.step + 1,
      model={**variables, 'params': params},
      opt_state=opt_state,
      loss_sum=jnp.where(begun, state.loss_sum, 0) + loss_sum,
    )
    size = len(jax.tree.leaves(batch)[0]) * parallel.psum(1)
    return state, loss_sum / size, *map(parallel.pmax, vote)

  return parallel.pmap(
    train_step,
    in_axes=(None, None, 0, None) + (0,) * votes,
    out_axes=(None, None) + (None,) * votes,
    donate_argnums=0,
  )


def make_eval_step(
  model: UNet, loss: Callable[..., jax.Array] = dose_loss
) -> Callable[..., jax.Array]:
  """Weighted sum of the samples' losses, over all devices.

  Returns:
    `step(variables, cohort, batch, weight) -> sum`; the weight is
    `[devices, B/devices]`, 0 for padding.
  """

  def eval_step(variables, cohort, batch, weight):
    batch = feed.unpack(cohort, batch)
    predicted = model.apply(
      variables,
      batch['masks'],
      batch['desired_dvh'],
      batch.get('spacing_mm'),
      train=False,
    )
    losses = loss(predicted, batch['dose'], batch['masks'])
    return parallel.psum(jnp.sum(losses * weight))

  return parallel.pmap(eval_step, in_axes=(None, None, 0, 0), out_axes=None)
