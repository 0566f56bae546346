"""Learning rate over the updates, dropout over the levels: eqs. (6), (7)."""

import jax
import jax.numpy as jnp
import optax


def inverse_time_decay(initial: float, decay: float) -> optax.Schedule:
  """Learning rate of equation (6): `initial / (1 + decay * iterations)`.

  Args:
    initial: learning rate of the first update.
    decay: decay factor per update.

  Returns:
    A schedule from the number of updates made so far to the learning rate.
  """

  def schedule(iterations: jax.typing.ArrayLike) -> jax.Array:
    return initial / (1 + decay * jnp.asarray(iterations, jnp.float32))

  return schedule


SCHEDULES = ('inverse_time', 'cosine')
# Of the first learning rate, the cosine's last.
_LAST = 0.01


def learning_rate(
  schedule: str, initial: float, *, decay: float, warmup: int, total: int
) -> optax.Schedule:
  """The learning rate of a training.

  Args:
    schedule: of `SCHEDULES`.
    initial: learning rate after the warm-up.
    decay: of equation (6).
    warmup: updates in which it rises to that, along a line from 0; the schedule
      begins after them.
    total: updates of the whole training, for the cosine.

  Returns:
    A schedule from the number of updates made so far to the learning rate.
  """
  if schedule == 'cosine':
    main = optax.cosine_decay_schedule(initial, max(total - warmup, 1), _LAST)
  else:
    main = inverse_time_decay(initial, decay)
  if not warmup:
    return main
  rise = optax.linear_schedule(0.0, initial, warmup)
  return optax.join_schedules([rise, main], [warmup])


def average_decay(average: float, updates: jax.typing.ArrayLike) -> jax.Array:
  """Decay of the moving average of parameters after so many updates.

  Less at the beginning, `(1 + n) / (10 + n)`, so that it soon forgets the
  parameters that the training began with (as TensorFlow's
  `ExponentialMovingAverage` does with `num_updates`).
  """
  n = jnp.asarray(updates, jnp.float32)
  return jnp.minimum(average, (1 + n) / (10 + n))


def dropout_rate(level: int, levels: int, initial: float) -> float:
  """Dropout rate of equation (7): `initial * level / levels`.

  Args:
    level: 1 at full size, one more after each pooling; the bottleneck counts
      as the last level.
    levels: number of poolings, 7 for the paper's grid.
    initial: rate of the deepest level.
  """
  return initial * min(level, levels) / levels
